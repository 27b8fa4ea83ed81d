"""What every command has at hand: the app itself, two consoles, and how arguments and answers look."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import Terminal
from harness.config.trial import NAME_RULE
from harness.errors import ConfigError
from harness.results.packed import is_path, open_stored
from harness.results.paths import StudyFolder, home

app = typer.Typer(
    name="harness",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is a new head on frozen features enough, or is fine-tuning worth its cost?",
)
out = Terminal()
err = Terminal(stderr=True)

Name = Annotated[
    str, typer.Argument(envvar="HARNESS_NAME", help="The study's name: studies/NAME.yaml, or one of `harness list`.")
]


Stored = Annotated[
    str,
    typer.Argument(
        envvar="HARNESS_NAME", help="A study's name, or the folder of a stored study: reports/examples/NAME."
    ),
]


def stored(name: str) -> StudyFolder:
    """The folder of a study that is here, or of a stored study at this path; raises ConfigError."""
    return open_stored(name) if is_path(name) else existing(name)


def existing(name: str) -> StudyFolder:
    """The folder of a study that is here, even if one of its two first files is gone; raises ConfigError."""
    if not NAME_RULE.fullmatch(name):  # before a home is made for it
        raise ConfigError(f"there is no study {name!r}: a study's name has letters, digits, '.', '_' and '-'")
    known = sorted({path.parent.name for file in ("study.json", "events.jsonl") for path in home().glob(f"*/{file}")})
    if name not in known:
        raise ConfigError(f"there is no study {name!r} here; there are: {', '.join(known) or 'none yet'}")
    return StudyFolder(name)


def given(text: str | None) -> str | None:
    """None where a variable is empty, as make hands on what was not set."""
    return text or None


def whole(name: str, text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name} must be a whole number from 1, but got {text!r}")
    return int(text)


def again() -> str:
    """The command that was given, to be given again."""
    made = os.environ.get("HARNESS_COMMAND")
    if not made:
        return shlex.join(["harness", *sys.argv[1:]])
    names = ("NAME", "AS", "DATA", "WEIGHTS", "TRIALS", "EPOCHS", "WORKERS", "DEVICE")
    return " ".join([made, *(f"{n}={shlex.quote(v)}" for n in names if (v := os.environ.get(f"HARNESS_{n}")))])


def shown(path: Path) -> str:
    """A path relative to where the user is, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def say(text: str) -> None:
    out.print(text, markup=False, highlight=False, width=shutil.get_terminal_size().columns)
