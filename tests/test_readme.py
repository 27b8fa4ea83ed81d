"""What the README shows runs as it stands there, and what the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.model.freezing import stage_of

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_does_what_its_comments_say() -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    parameters = dict(names["model"].named_parameters())
    training = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert {stage_of(name) for name in training} == {"stage3", "stage4", "head"}
    assert {name for name, parameter in parameters.items() if parameter.grad is not None} == training


def test_every_study_and_command_that_is_named_exists() -> None:
    for name in re.findall(r"make study NAME=([a-z-]+)", README):
        assert (ROOT / "studies" / f"{name}.yaml").exists(), name
    cli = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "harness" / "cli").glob("*.py"))
    for command in re.findall(r"\.venv/bin/harness (\w+)", README):
        assert f"def {command}(" in cli or f'@app.command("{command}")' in cli, command
    for link in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", README):
        assert (ROOT / link).exists(), link


def test_every_test_that_a_promise_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "promises.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), (file, test)


def test_every_file_that_the_documents_name_exists() -> None:
    for document in ("ARCHITECTURE.md", "docs/extending.md", "docs/promises.md", "docs/backbones.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / document).parent.joinpath(link).exists(), (document, link)
        for named in re.findall(r"`([\w/]+\.py)[`:]", text):
            found = [ROOT / named, ROOT / "harness" / named, *(ROOT / "harness").rglob(named)]
            assert any(path.exists() for path in found), (document, named)


def test_architecture_stays_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_bytes()) <= 12_000
