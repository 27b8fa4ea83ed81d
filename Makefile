# `make` prints the commands. It needs only python3 and make, and works in a path that contains a space.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help env data study report compare ui list log doctor sync test test-all check bench bench-search calibrate torture pin clean

# Variables are passed to the commands through the environment, never in the text of a shell line,
# so the content of NAME='…' is always a value and never a command.
VARIABLES := NAME NAMES AS DATA WEIGHTS TRIALS EPOCHS SEEDS WORKERS DEVICE SHEET PORT FIX HOST EXPOSED
GIVEN_NAME := $(if $(filter command,$(origin NAME)),$(value NAME))
HARNESS_NAME := $(if $(GIVEN_NAME),$(value GIVEN_NAME),microscopy)
# Only values given by the user are passed on: make itself defines AS (the assembler).
$(foreach v,$(filter-out NAME HOST EXPOSED,$(VARIABLES)),$(if $(filter command environment,$(origin $(v))),$(eval HARNESS_$(v) = $$(value $(v)))$(eval export HARNESS_$(v))))
# Some shells set HOST to the machine's name, so HOST and EXPOSED count only on the command line.
$(foreach v,HOST EXPOSED,$(if $(filter command,$(origin $(v))),$(eval HARNESS_$(v) = $$(value $(v)))$(eval export HARNESS_$(v))))
export HARNESS_NAME
unexport $(VARIABLES) MAKEFLAGS MAKEOVERRIDES MFLAGS
export HARNESS_COMMAND := make study
# Every command and every worker imports torch, which takes nearly twice as long without bytecode.
unexport PYTHONDONTWRITEBYTECODE
PY := .venv/bin/python
# One test worker for each core; a file is run by one worker; each test trains on one thread.
PYTEST := $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

help:
	@echo "make study   run or continue the study NAME (default: microscopy)"
	@echo "make data    show what a study would see of its images; SHEET=sheet.html shows them"
	@echo "make report  make the study's report again, without training"
	@echo "make compare NAMES=\"one other\"   show several studies side by side on one page"
	@echo "make ui      start the MLflow UI on 127.0.0.1, opened on the study's runs"
	@echo "make list    list the studies with state, size and age"
	@echo "make log     show what happened in the study, line by line"
	@echo "make doctor  check the study's files and databases; FIX=1 repairs what can be repaired"
	@echo "make sync    send to MLflow what it has missed, without training"
	@echo "make test    run the tests         make test-all  run also the slow tests"
	@echo "make check   run ruff and mypy     make bench     time the harness against a hand-written loop"
	@echo "make calibrate   count false verdicts in simulations, where the truth is known"
	@echo "make bench-search NAME=study DATA=images   compare pruning with one epoch each and with no pruning"
	@echo "make torture  kill and disturb small studies at random moments and check that nothing is lost"
	@echo "make clean   remove the caches of tools; studies, runs and reports stay"
	@echo
	@echo "NAME=file in studies/    AS=other name      DATA=your folder or CSV  WEIGHTS=bundled|imagenet|none|file"
	@echo "TRIALS=of each strategy  EPOCHS=of a trial  SEEDS=of the confirmation WORKERS=side by side"
	@echo "DEVICE=auto|cpu|cuda|cuda:N|mps"

env: .venv/.installed

# Use uv if it is installed, otherwise install it into the environment: pip alone takes minutes.
.venv/.installed: pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { \
	  echo "The harness needs Python 3.11 or newer as python3; this one is $$(python3 -V 2>&1)." >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then uv venv -q --allow-existing --python "$$(command -v python3)" .venv; \
	else python3 -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "python3 cannot make a virtual environment because its venv module is missing; on Debian install python3-venv." >&2; exit 2; }; \
	  python3 -m venv .venv || exit 2; fi
	@echo "Installing into .venv …"
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(PY) -c constraints.txt -e '.[dev]'; \
	else $(PY) -m pip install -q --disable-pip-version-check uv && \
	  $(PY) -m uv pip install -q --python $(PY) -c constraints.txt -e '.[dev]'; fi
	@touch $@

study: env
	@$(PY) -m harness study

data: env
	@$(PY) -m harness data

report: env
	@$(PY) -m harness report

compare: env
	@$(PY) -m harness compare

ui: HARNESS_NAME := $(value GIVEN_NAME)
ui: env
	@$(PY) -m harness ui

list: env
	@$(PY) -m harness list

log: env
	@$(PY) -m harness log

doctor: env
	@$(PY) -m harness doctor

sync: env
	@$(PY) -m harness sync

test: env
	@$(PYTEST)

test-all: env
	@$(PYTEST) -m 'not gpu and not network'

check: env
	@$(PY) -m ruff check harness tests
	@$(PY) -m ruff format --check harness tests
	@$(PY) -m mypy

bench: env
	@$(PY) -m harness bench

calibrate: env
	@$(PY) -m harness calibrate

torture: env
	@$(PY) -m harness torture

bench-search: env
	@$(PY) -m harness bench-search

# Pin every package again, for all supported versions of Python and systems.
pin: env
	@$(PY) -m uv pip compile -q --upgrade --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o constraints.txt
	@{ echo "# Every package, pinned for Python 3.11 to 3.13 on Linux and macOS. Made anew by 'make pin'. Names no index."; \
	  cat constraints.txt; } > .venv/pins && mv .venv/pins constraints.txt

clean:
	@rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	@find harness tests -name __pycache__ -type d -prune -exec rm -rf {} +
