"""What all commands share: the app, the two consoles, and the reading of arguments."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import Terminal
from harness.config.study_names import NAME_RULE, check_study_name
from harness.errors import ConfigError
from harness.results.packed import is_path, open_stored
from harness.results.paths import StudyFolder, names_in_home

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


def existing(name: str, *, to_remove: bool = False) -> StudyFolder:
    """Return the folder of an existing study, also if study.json or the log is missing; makes no folder.

    Args:
        to_remove: the study is going to be removed, so nothing is read through links that its folder may hold.

    Raises:
        ConfigError: there is no such study, the name is one of the harness's own, or a link leads out of the folder.
    """
    if not NAME_RULE.fullmatch(name):
        raise ConfigError(f"there is no study {name!r}: a study's name has letters, digits, '.', '_' and '-'")
    check_study_name(name)
    known = names_in_home()
    if name not in known:
        raise ConfigError(f"there is no study {name!r} here; there are: {', '.join(known) or 'none yet'}")
    folder = StudyFolder(name)
    if not to_remove:
        folder.check_inside()
    return folder


MOST_DIGITS = 9  # of a number on the command line


def given(text: str | None) -> str | None:
    """Return None for an empty text, because make passes variables that are not set as empty texts."""
    return text or None


def whole_number(name: str, text: str | None) -> int | None:
    """Return the number in a text; None if it is empty.

    Raises:
        ConfigError: the text is not a whole number from 1.
    """
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else 0
    if number < 1:
        raise ConfigError(f"{name} must be a whole number from 1, but got {text[:50]!r}")
    return number


def repeat_command() -> str:
    """Return the command that repeats this call, as the user gave it: with make or with harness."""
    make = os.environ.get("HARNESS_COMMAND")
    if not make:
        return shlex.join(["harness", *sys.argv[1:]])
    names = ("NAME", "AS", "DATA", "WEIGHTS", "TRIALS", "EPOCHS", "SEEDS", "WORKERS", "DEVICE")
    return " ".join([make, *(f"{n}={shlex.quote(v)}" for n in names if (v := os.environ.get(f"HARNESS_{n}")))])


def short_path(path: Path) -> str:
    """Return the path relative to the current folder if it is below it; otherwise unchanged."""
    current = Path.cwd()
    return str(path.relative_to(current)) if path.is_relative_to(current) else str(path)


def say(text: str) -> None:
    """Print a text for the user, wrapped at the width of the terminal."""
    out.print(text, markup=False, highlight=False, width=shutil.get_terminal_size().columns)
