"""Commands that look after a study that is there: its story, its health, and what MLflow has missed."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

import typer

from harness.cli.app import Name, Stored, app, existing, say, stored
from harness.results.packed import reading


@app.command("log")
def show_log(
    name: Stored,
    epochs: Annotated[bool, typer.Option("--epochs", help="Every epoch too.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Only what went wrong.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Times of this machine's zone instead of UTC.")] = False,
) -> None:
    """Tell what happened in a study, line by line; also while it runs, and of a damaged log."""
    folder = stored(name)
    from harness.cli.log_text import format_events, format_lines
    from harness.results.events import scan_log
    from harness.study.lock import owner

    with reading(folder):
        lines = format_events(scan_log(folder.events), "score", owner(folder))
    chosen = [line for line in lines if (line.problem or not problems) and (epochs or not line.epoch)]
    for text in format_lines(chosen, None if local else UTC, "" if local else "UTC"):
        say(text)
    if not chosen:
        say("Nothing went wrong." if lines else "Nothing has happened yet.")


@app.command()
def doctor(
    name: Name,
    fix: Annotated[
        bool, typer.Option("--fix", envvar="HARNESS_FIX", help="Mend what can be mended; loses no finished trial.")
    ] = False,
) -> None:
    """Check a study's log, stores, models and caches; exits 1 where something is wrong."""
    folder = existing(name)
    from harness.doctor.check import examine

    found = examine(folder, fix=fix, say=say)
    for line in found.lines():
        say(line)
    raise typer.Exit(0 if found.well else 1)


@app.command()
def sync(name: Name) -> None:
    """Send what MLflow and Optuna's storage have missed, from the event log: trains nothing and needs no images."""
    folder = existing(name)
    from harness.study.sync import sync as send

    for line in send(folder, say):
        say(line)
