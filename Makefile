# `make` prints what there is. Needs python3 and make alone; works from a path with a space in it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help env study report compare ui list log doctor sync test test-all check bench bench-search calibrate torture pin clean

# Variables reach the commands through the environment, never through the text of a shell line:
# whatever stands in NAME='…' is a value, and no command.
VARIABLES := NAME NAMES AS DATA WEIGHTS TRIALS EPOCHS WORKERS DEVICE PORT FIX HOST EXPOSED
GIVEN_NAME := $(if $(filter command,$(origin NAME)),$(value NAME))
HARNESS_NAME := $(if $(GIVEN_NAME),$(value GIVEN_NAME),microscopy)
# Only what the user gave: make itself has an AS (the assembler).
$(foreach v,$(filter-out NAME HOST EXPOSED,$(VARIABLES)),$(if $(filter command environment,$(origin $(v))),$(eval HARNESS_$(v) = $$(value $(v)))$(eval export HARNESS_$(v))))
# Some shells put the machine's name into HOST: only what stands on the command line is meant for us.
$(foreach v,HOST EXPOSED,$(if $(filter command,$(origin $(v))),$(eval HARNESS_$(v) = $$(value $(v)))$(eval export HARNESS_$(v))))
export HARNESS_NAME
unexport $(VARIABLES) MAKEFLAGS MAKEOVERRIDES MFLAGS
export HARNESS_COMMAND := make study
# Every command and every worker imports torch; without bytecode that takes nearly twice as long.
unexport PYTHONDONTWRITEBYTECODE
PY := .venv/bin/python
# One worker a core, a file stays with one worker; each test trains on one thread.
PYTEST := $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

help:
	@echo "make study   run the study NAME (microscopy), or continue it"
	@echo "make report  make its report again, without training"
	@echo "make compare NAMES=\"one other\"   put studies side by side in one page"
	@echo "make ui      serve the MLflow UI on 127.0.0.1, opened on its runs"
	@echo "make list    show the studies with state, size and age"
	@echo "make log     tell what happened in the study NAME, line by line"
	@echo "make doctor  check its files and databases; FIX=1 mends what can be mended"
	@echo "make sync    send what MLflow has missed, without training"
	@echo "make test    run the tests         make test-all  the slow ones too"
	@echo "make check   ruff and mypy         make bench     time this against a plain loop"
	@echo "make calibrate   count false verdicts where the truth is known"
	@echo "make bench-search NAME=study DATA=images   pruning against one epoch each and the exhaustive run"
	@echo "make torture  kill and disturb small studies at random moments, and see that nothing is lost"
	@echo "make clean   remove caches of tools; studies, runs and reports stay"
	@echo
	@echo "NAME=study of studies/   AS=other name      DATA=your folder or CSV  WEIGHTS=bundled|imagenet|none|file"
	@echo "TRIALS=each strategy     EPOCHS=each trial  WORKERS=side by side     DEVICE=auto|cpu|cuda|cuda:N|mps"

env: .venv/.installed

# uv where it is there, else uv inside the environment: pip alone takes minutes.
.venv/.installed: pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { \
	  echo "The harness needs Python 3.11 or newer as python3; this one is $$(python3 -V 2>&1)." >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then uv venv -q --allow-existing --python "$$(command -v python3)" .venv; \
	else python3 -m venv .venv >/dev/null 2>&1 || { \
	  echo "python3 cannot make an environment: its venv module is missing (on Debian: the package python3-venv)." >&2; exit 2; }; fi
	@echo "Installing into .venv …"
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(PY) -c constraints.txt -e '.[dev]'; \
	else $(PY) -m pip install -q --disable-pip-version-check uv && \
	  $(PY) -m uv pip install -q --python $(PY) -c constraints.txt -e '.[dev]'; fi
	@touch $@

study: env
	@$(PY) -m harness study

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

# Pins every package anew, for all supported Pythons and systems.
pin: env
	@$(PY) -m uv pip compile -q --upgrade --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o constraints.txt
	@{ echo "# Every package, pinned for Python 3.11 to 3.13 on Linux and macOS. Made anew by 'make pin'. Names no index."; \
	  cat constraints.txt; } > .venv/pins && mv .venv/pins constraints.txt

clean:
	@rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	@find harness tests -name __pycache__ -type d -prune -exec rm -rf {} +
