"""Commands that run, show, compare and remove studies."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.app import (
    Name,
    Stored,
    app,
    existing,
    given,
    out,
    repeat_command,
    say,
    short_path,
    stored,
    whole_number,
)
from harness.errors import HarnessError
from harness.results.packed import reading


@app.command()
def study(
    name: Name,
    save_as: Annotated[
        str | None, typer.Option("--as", envvar="HARNESS_AS", help="Name of the study if not the file's.")
    ] = None,
    data: Annotated[str | None, typer.Option(envvar="HARNESS_DATA", help="Folder or CSV of your own images.")] = None,
    weights: Annotated[
        str | None, typer.Option(envvar="HARNESS_WEIGHTS", help="bundled, imagenet, none, or a file.")
    ] = None,
    trials: Annotated[str | None, typer.Option(envvar="HARNESS_TRIALS", help="Slots for each strategy.")] = None,
    epochs: Annotated[str | None, typer.Option(envvar="HARNESS_EPOCHS", help="Epochs of every trial, or auto.")] = None,
    seeds: Annotated[str | None, typer.Option(envvar="HARNESS_SEEDS", help="Seeds of the confirmation.")] = None,
    workers: Annotated[
        str | None, typer.Option(envvar="HARNESS_WORKERS", help="Trials at the same time on a CPU.")
    ] = None,
    device: Annotated[str | None, typer.Option(envvar="HARNESS_DEVICE", help="auto, cpu, cuda, cuda:N, mps.")] = None,
) -> None:
    """Run a study, or continue it, up to the verdict and the report."""
    from harness.config.executors import EXECUTORS
    from harness.config.load import Overrides, load_study

    overrides = Overrides(
        data=given(data),
        weights=given(weights),
        device=given(device),
        trials=whole_number("TRIALS", trials),
        epochs="auto" if epochs == "auto" else whole_number("EPOCHS", epochs),
        seeds=whole_number("SEEDS", seeds),
        workers=whole_number("WORKERS", workers),
    )
    loaded = load_study(name, overrides, save_as=given(save_as))

    from harness.study.executors.forkserver import warm_up

    if EXECUTORS[loaded.study.executor].forks:
        warm_up()  # after the study file was checked, and while the imports below run, which take seconds
    from harness.cli.progress import Watcher
    from harness.study.coordinator import run_study

    with Watcher(out, loaded.study.objective) as watcher:
        try:
            result = run_study(loaded, watcher)
        except HarnessError as error:
            if error.exit_code > 128:
                watcher.message(f"No finished trial is lost. Continue with: {repeat_command()}")
            raise
    if result.already_finished:
        say(f"The study {result.name} is finished; more TRIALS or SEEDS continue it.")
    say("")
    say(result.sentence or f"No verdict: {result.reason}")
    say("")
    say(f"Report   {short_path(result.report)}")
    say(f"MLflow   make ui NAME={result.name}")


@app.command()
def report(name: Stored) -> None:
    """Make a study's report again from the stored results; also while it runs, and for the folder of a stored study."""
    folder = stored(name)
    from harness.report.page import write_report

    with reading(folder):
        say(f"Report   {short_path(write_report(folder))}")


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(envvar="HARNESS_NAMES", help="Two or more studies: names, or folders of stored studies."),
    ] = None,
) -> None:
    """Compare studies on one page: results, data and costs."""
    from harness.report.compare.page import write_comparison

    say(f"Page     {short_path(write_comparison(names or []))}")


@app.command()
def pack(
    name: Name,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the files; reports/examples/NAME/study if missing.")
    ] = None,
) -> None:
    """Store a finished study's files, without images: small, and enough for `harness report` to make its page."""
    folder = existing(name)
    from harness.study.pack import pack_study

    packed = pack_study(folder, to)
    say(f"Packed   {short_path(packed.place)} ({packed.bytes / 1e6:.1f} MB in {packed.files} files)")
    say(f"Page     harness report {shlex.quote(short_path(packed.argument))}")


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(envvar="HARNESS_NAME", help="Show this study's runs.")] = None,
    port: Annotated[int, typer.Option(envvar="HARNESS_PORT", min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(envvar="HARNESS_HOST", help="Another address; needs --exposed.")] = "127.0.0.1",
    exposed: Annotated[
        bool, typer.Option(envvar="HARNESS_EXPOSED", help="Allow others to change all studies.")
    ] = False,
) -> None:
    """Serve the MLflow UI on 127.0.0.1; stop it with Ctrl-C."""
    from harness.results.stored_study import stored_address
    from harness.tracking.address import address_of, tracking_address
    from harness.tracking.ui import serve

    folder = existing(name) if name else None
    address = address_of(stored_address(folder, "tracking_uri")) if folder else tracking_address()
    shown = folder.name if folder else None
    raise typer.Exit(serve(shown, port=port, address=address, host=host or "127.0.0.1", exposed=exposed, say=say))


@app.command("list")
def list_all() -> None:
    """List the studies with state, size and age."""
    from harness.study.studies import list_studies

    table = Table(box=None, pad_edge=False)
    for heading in ("Study", "State", "Trials", "Size", "Last change"):
        table.add_column(heading, justify="right" if heading in ("Trials", "Size") else "left")
    rows = list_studies()
    for row in rows:
        table.add_row(row.name, row.state, str(row.trials), row.size, row.age)
    if rows:
        out.print(table, markup=False)
        if damaged := [row.name for row in rows if row.state == "damaged"]:
            say(f"`harness doctor {damaged[0]}` says what is damaged, and what helps.")
    else:
        say("There are no studies yet; `make study NAME=microscopy` starts one.")


@app.command("rm")
def remove(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a study: its folder, its Optuna studies, its MLflow experiment and its report."""
    folder = existing(name, to_remove=True)
    from harness.study.studies import remove_study

    if not yes and not typer.confirm(f"Remove the study {name} with all its trials, models and its report?"):
        say("Nothing was removed.")
        return
    left = remove_study(folder)
    say(f"Removed {name}.")
    for line in left:
        say(line)
