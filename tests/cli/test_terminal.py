"""Nothing that a name, an error or a warning holds reaches the terminal as a command to it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from harness import cli
from harness.cli.terminal import Terminal, replace_missing_characters, take_warnings
from harness.errors import DataError
from harness.safe_text import masked

ROOT = Path(__file__).resolve().parents[2]

# Clears the screen, retitles the window, moves up and turns the text around.
EVIL = "\x1b[2J\x1b]0;title\x07\x1b[A\x9b31m\u202eevil\udcff"
STEERS = re.compile(r"\x1b\[2J|\x1b\]|\x1b\[A|[\x07\x9b\u202e\udcff]")


def told(write: Callable[[Terminal], object]) -> str:
    """What a terminal would get."""
    stream = io.StringIO()
    write(Terminal(file=stream, force_terminal=True, width=200))
    return stream.getvalue()


def print_line(terminal: Terminal) -> None:
    terminal.print(EVIL)


def print_table(terminal: Terminal) -> None:
    table = Table(box=None)
    table.add_column(EVIL)
    table.add_row(EVIL)
    terminal.print(table)


def show_progress(terminal: Terminal) -> None:
    with Progress(TextColumn("{task.description}", markup=False), console=terminal) as bars:
        bars.add_task(EVIL, total=1)


@pytest.mark.parametrize("write", [print_line, print_table, show_progress])
def test_whatever_is_written_steers_nothing_and_is_shown(write: Callable[[Terminal], object]) -> None:
    output = told(write)
    assert not STEERS.search(output), output
    assert "\\x1b[2J" in output
    if write is not show_progress:  # whose columns are as wide as the text would have been
        assert "\\x1b]0;title\\x07\\x1b[A\\x9b31m\\u202eevil\\xff" in output
    output.encode("utf-8")


def test_lines_stay_lines_and_brackets_and_colons_are_text() -> None:
    text = "a\n  [bold]b[/bold] :smile: [/]"
    assert told(lambda terminal: terminal.print(text)) == f"{text}\n"


def test_a_password_in_an_address_is_masked() -> None:
    output = told(lambda terminal: terminal.print("no answer from postgresql://me:s3cret@host/db?token=s3cret"))
    assert output == "no answer from postgresql://me:***@host/db?token=***\n"


def test_a_warning_is_neutral_too() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        take_warnings(Terminal(file=stream, force_terminal=True))
        warnings.warn(f"odd file {EVIL}", stacklevel=1)
    assert "odd file \\x1b[2J" in stream.getvalue()
    assert not STEERS.search(stream.getvalue())


@pytest.mark.parametrize(
    ("error", "code"), [(DataError(f"{EVIL}: is empty"), 3), (ValueError(f"bug with {EVIL}"), 1)], ids=["ours", "a bug"]
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_that_ends_the_command_is_neutral(
    error: Exception, code: int, debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["harness", *["--debug"] * debug])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert "\\x1b[2J" in shown
    assert not STEERS.search(shown)
    assert ("Traceback" in shown) == (debug or code == 1)


def test_the_view_in_a_link_to_mlflow_is_no_secret() -> None:
    link = "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=harness"
    assert masked(link) == link
    assert masked(f"{link}&apiKey=sesame") == f"{link}&apiKey=***"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_characters_that_an_encoding_lacks_are_replaced(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    replace_missing_characters()
    for terminal in (Terminal(width=80), Terminal(stderr=True, width=80)):
        terminal.print("fine_tuning 3 · resnet18 … 漢字")
        table = Table()
        table.add_column("Größe · 漢")
        table.add_row("3 µm")
        terminal.print(table)
        with Progress(TextColumn("{task.description} ·"), console=terminal) as bars:
            bars.add_task("trial · 漢", total=1)
    for stream in streams:
        stream.flush()
        assert b"fine_tuning 3 " in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_command_prints_to_a_pipe_in_ascii() -> None:
    """The list of keys has a dash between the bounds of a range; rich would draw a traceback around a failed print."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-m", "harness", "keys"], capture_output=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert b"head_lr" in done.stdout and b"Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()
