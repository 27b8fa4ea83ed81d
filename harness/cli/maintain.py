"""Commands for an existing study: show its log, check its files, and send events to the stores."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

import typer

from harness.cli.app import Name, Stored, app, existing, say, stored
from harness.results.packed import reading


@app.command("log")
def show_log(
    name: Stored,
    epochs: Annotated[bool, typer.Option("--epochs", help="Show every epoch too.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Show only what went wrong.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Show times of this machine's zone instead of UTC.")] = False,
) -> None:
    """Print what happened in a study, line by line; also while it runs, and if its log is damaged."""
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
        bool,
        typer.Option("--fix", envvar="HARNESS_FIX", help="Repair what can be repaired; no finished trial is lost."),
    ] = False,
) -> None:
    """Check a study's log, stores, models and caches; exit with 1 if something is wrong."""
    folder = existing(name)
    from harness.doctor.check import examine

    found = examine(folder, fix=fix)
    for line in found.lines():
        say(line)
    raise typer.Exit(0 if found.well else 1)


@app.command()
def sync(name: Name) -> None:
    """Send the events that MLflow and Optuna's storage lack; train nothing and need no images."""
    folder = existing(name)
    from harness.study.sync import sync as send

    for line in send(folder, say):
        say(line)
