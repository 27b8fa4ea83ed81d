"""Commands that run studies, show them and take them away."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.app import Name, Stored, again, app, existing, given, out, say, shown, stored, whole
from harness.errors import HarnessError
from harness.results.packed import reading


@app.command()
def study(
    name: Name,
    save_as: Annotated[str | None, typer.Option("--as", envvar="HARNESS_AS", help="Keep it under this name.")] = None,
    data: Annotated[str | None, typer.Option(envvar="HARNESS_DATA", help="Folder or CSV of your own images.")] = None,
    weights: Annotated[
        str | None, typer.Option(envvar="HARNESS_WEIGHTS", help="bundled, imagenet, none, a file.")
    ] = None,
    trials: Annotated[str | None, typer.Option(envvar="HARNESS_TRIALS", help="Slots for each strategy.")] = None,
    epochs: Annotated[str | None, typer.Option(envvar="HARNESS_EPOCHS", help="Epochs of every trial.")] = None,
    workers: Annotated[str | None, typer.Option(envvar="HARNESS_WORKERS", help="Side by side on a CPU.")] = None,
    device: Annotated[str | None, typer.Option(envvar="HARNESS_DEVICE", help="auto, cpu, cuda, cuda:N, mps.")] = None,
) -> None:
    """Run a study, or continue it; ends with the verdict and the report."""
    from harness.config.executors import EXECUTORS
    from harness.config.load import Overrides, load_study

    overrides = Overrides(
        data=given(data),
        weights=given(weights),
        device=given(device),
        trials=whole("TRIALS", trials),
        epochs=whole("EPOCHS", epochs),
        workers=whole("WORKERS", workers),
    )
    loaded = load_study(name, overrides, save_as=given(save_as))

    from harness.study.executors.forkserver import warm_up

    if EXECUTORS[loaded.study.executor].forks:
        warm_up()  # beside the imports that follow, which take seconds: after the file is known to be right
    from harness.cli.progress import Watcher
    from harness.study.coordinator import run_study

    with Watcher(out, loaded.study.objective, loaded.study.epochs) as watcher:
        try:
            outcome = run_study(loaded, watcher)
        except HarnessError as error:
            if error.exit_code > 128:
                watcher.message(f"Nothing that was finished is lost. Continue with: {again()}")
            raise
    if outcome.already_finished:
        say(f"The study {outcome.name} is finished; more TRIALS or seeds continue it.")
    say("")
    say(outcome.sentence or f"No verdict: {outcome.reason}")
    say("")
    say(f"Report   {shown(outcome.report)}")
    say(f"MLflow   make ui NAME={outcome.name}")


@app.command()
def report(name: Stored) -> None:
    """Make a study's report again from what is stored; also while it runs, and from the folder of a stored study."""
    folder = stored(name)
    from harness.report.page import write_report

    with reading(folder):
        say(f"Report   {shown(write_report(folder))}")


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(envvar="HARNESS_NAMES", help="Two studies or more: names, or folders of stored ones."),
    ] = None,
) -> None:
    """Put studies side by side in one page: what each found, on which data, at what cost."""
    from harness.report.compare.page import write_comparison

    say(f"Page     {shown(write_comparison(names or []))}")


@app.command()
def pack(
    name: Name,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the files; reports/examples/NAME/study where missing.")
    ] = None,
) -> None:
    """Store a finished study's files, without images: small, and enough for `harness report` to make its page."""
    folder = existing(name)
    from harness.study.pack import pack_study

    packed = pack_study(folder, to)
    say(f"Packed   {shown(packed.place)} ({packed.bytes / 1e6:.1f} MB in {packed.files} files)")
    say(f"Page     harness report {shlex.quote(shown(packed.argument))}")


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(envvar="HARNESS_NAME", help="Open on this study's runs.")] = None,
    port: Annotated[int, typer.Option(envvar="HARNESS_PORT", min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(envvar="HARNESS_HOST", help="Another address; needs --exposed.")] = "127.0.0.1",
    exposed: Annotated[bool, typer.Option(envvar="HARNESS_EXPOSED", help="Whoever reaches it may change all.")] = False,
) -> None:
    """Serve the MLflow UI on 127.0.0.1; Ctrl-C ends it."""
    from harness.tracking.address import address_of, tracking_address
    from harness.tracking.ui import serve

    folder = existing(name) if name else None
    address = address_of(folder.name, folder.tracking_uri()) if folder else tracking_address()
    seen = folder.name if folder else None
    raise typer.Exit(serve(seen, port=port, address=address, host=host or "127.0.0.1", exposed=exposed, say=say))


@app.command("list")
def list_all() -> None:
    """Show the studies with state, size and age."""
    from harness.study.studies import list_studies

    table = Table(box=None, pad_edge=False)
    for heading in ("Study", "State", "Trials", "Size", "Last change"):
        table.add_column(heading, justify="right" if heading in ("Trials", "Size") else "left")
    entries = list_studies()
    for entry in entries:
        table.add_row(entry.name, entry.state, str(entry.trials), entry.size, entry.age)
    if entries:
        out.print(table, markup=False)
    else:
        say("There are no studies yet; `make study NAME=microscopy` starts one.")


@app.command("rm")
def remove(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a study: its folder, its Optuna studies, its MLflow experiment and its report."""
    folder = existing(name)
    from harness.study.studies import remove_study

    if not yes and not typer.confirm(f"Remove the study {name} with all its trials, models and its report?"):
        say("Nothing was removed.")
        return
    remove_study(folder)
    say(f"Removed {name}.")
