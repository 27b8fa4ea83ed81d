"""The command line: reads arguments, calls one function, prints."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.config.trial import DEPTH_MAX, NAME_RULE, STAGES
from harness.errors import ConfigError, HarnessError
from harness.results.home import StudyFolder, home

app = typer.Typer(
    name="harness", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Is a new head on frozen features enough, or is fine-tuning worth its cost?",
)  # fmt: skip
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

Name = Annotated[
    str, typer.Argument(envvar="HARNESS_NAME", help="The study's name: studies/NAME.yaml, or one of `harness list`.")
]


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
    from harness.config.load import Overrides, load_study

    overrides = Overrides(
        data=_given(data), weights=_given(weights), device=_given(device), trials=_whole("TRIALS", trials),
        epochs=_whole("EPOCHS", epochs), workers=_whole("WORKERS", workers),
    )  # fmt: skip
    loaded = load_study(name, overrides, save_as=_given(save_as))

    from harness.study.forking import warm_up

    if loaded.study.executor == "processes":
        warm_up()  # beside the imports that follow, which take seconds: after the file is known to be right
    from harness.progress import Watcher
    from harness.study.coordinator import run_study

    with Watcher(out, loaded.study.objective, loaded.study.epochs) as watcher:
        try:
            outcome = run_study(loaded, watcher)
        except HarnessError as error:
            if error.exit_code > 128:
                watcher.message(f"Nothing that was finished is lost. Continue with: {_again()}")
            raise
    if outcome.already_finished:
        _say(f"The study {outcome.name} is finished; more TRIALS or seeds continue it.")
    _say("")
    _say(outcome.sentence or f"No verdict: {outcome.reason}")
    _say("")
    _say(f"Report   {_shown(outcome.report)}")
    _say(f"MLflow   make ui NAME={outcome.name}")


@app.command()
def report(name: Name) -> None:
    """Make a study's report again from what is stored; also while it runs."""
    folder = _existing(name)
    from harness.report.page import write_report

    _say(f"Report   {_shown(write_report(folder))}")


@app.command()
def compare(
    names: Annotated[
        list[str] | None, typer.Argument(envvar="HARNESS_NAMES", help="Two studies or more of `harness list`.")
    ] = None,
) -> None:
    """Put studies side by side in one page: what each found, on which data, at what cost."""
    from harness.report.compare_page import write_comparison

    _say(f"Page     {_shown(write_comparison(names or []))}")


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(envvar="HARNESS_NAME", help="Open on this study's runs.")] = None,
    port: Annotated[int, typer.Option(envvar="HARNESS_PORT", min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI on 127.0.0.1; Ctrl-C ends it."""
    from harness.tracking.store import tracking_address
    from harness.tracking.ui import serve

    folder = _existing(name) if name else None
    address = tracking_address(folder.tracking_uri() if folder else None)
    raise typer.Exit(serve(folder.name if folder else None, port=port, address=address))


@app.command("list")
def list_studies() -> None:
    """Show the studies with state, size and age."""
    from harness.study.shelf import shelf

    table = Table(box=None, pad_edge=False)
    for heading in ("Study", "State", "Trials", "Size", "Last change"):
        table.add_column(heading, justify="right" if heading in ("Trials", "Size") else "left")
    entries = shelf()
    for entry in entries:
        table.add_row(entry.name, entry.state, str(entry.trials), entry.size, entry.age)
    if entries:
        out.print(table, markup=False)
    else:
        _say("There are no studies yet; `make study NAME=microscopy` starts one.")


@app.command("rm")
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a study: its folder, its Optuna studies, its MLflow experiment and its report."""
    folder = _existing(name)
    from harness.study.shelf import remove_study

    if not yes and not typer.confirm(f"Remove the study {name} with all its trials, models and its report?"):
        _say("Nothing was removed.")
        return
    remove_study(folder)
    _say(f"Removed {name}.")


@app.command()
def bench(device: Annotated[str, typer.Option(envvar="HARNESS_DEVICE")] = "cpu") -> None:
    """Time whole sweeps against a plain loop, taking turns, with equal losses; writes reports/benchmarks."""
    from harness.bench.suite import run

    run(_say, device or "cpu")


@app.command("bench-search")
def bench_search(
    name: Name,
    data: Annotated[str | None, typer.Option(envvar="HARNESS_DATA", help="Folder or CSV of images.")] = None,
) -> None:
    """Compare pruning with one epoch each and with the exhaustive run, on a study's images; takes its time."""
    from harness.bench.pruning import run

    run(_say, name, _given(data))


@app.command()
def calibrate() -> None:
    """Count how often verdicts are wrong where the truth is known; writes reports/calibration, takes its time."""
    from harness.bench import calibration, calibration_page, same
    from harness.bench.task import machine

    counted = calibration.run(_say)
    told = calibration_page.write(calibration.FOLDER, counted, same.run(_say, calibration.FOLDER), machine())
    _say(told)


@app.command()
def backbones(
    as_json: Annotated[bool, typer.Option("--json", help="Everything that is known, for machines.")] = False,
) -> None:
    """Print every backbone: size, parameters, work, and what each unfreeze_depth makes of them."""
    from harness.config.costs import cost
    from harness.config.sheets import SHEETS

    if as_json:
        rows = [
            {
                **asdict(sheet), "licence": sheet.licence, **asdict(cost(name)), "gflops": cost(name).gflops,
                "parameter_share": [cost(name).parameter_share(depth) for depth in range(DEPTH_MAX + 1)],
                "backward_share": [cost(name).backward_share(depth) for depth in range(DEPTH_MAX + 1)],
            }
            for name, sheet in SHEETS.items()
        ]  # fmt: skip
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))  # fits 80 columns
    depths = range(1, DEPTH_MAX)
    for heading in ("Backbone", "px", "M par.", "GFLOP", "BN", *(f"p{k}" for k in depths), *(f"b{k}" for k in depths)):
        table.add_column(heading, justify="left" if heading == "Backbone" else "right", no_wrap=True)
    for name, sheet in SHEETS.items():
        known = cost(name)
        shares = [*(known.parameter_share(k) for k in depths), *(known.backward_share(k) for k in depths)]
        table.add_row(
            name, str(sheet.native_size), f"{sum(known.parameters) / 1e6:.1f}", f"{known.gflops:.1f}",
            str(known.batchnorm_layers), *(f"{share * 100:.0f}" for share in shares),
        )  # fmt: skip
    out.print(table, markup=False)
    _say(
        "px: native size. M par.: parameters without the head, in millions. GFLOP: one image forward (a multiply-add\n"
        "is two). BN: BatchNorm layers. p1 to p4: % of the parameters that train at unfreeze_depth 1 to 4.\n"
        "b1 to b4: the backward pass's work there, in % of that at depth 5."
    )


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(envvar="HARNESS_NAME", help="A study file: studies/NAME.yaml.")],
    backbone: Annotated[str | None, typer.Option(help="The study's first one where it is missing.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, max=DEPTH_MAX, help="unfreeze_depth; 0 trains the head.")] = None,
    knob: Annotated[list[str] | None, typer.Option("--set", help="KNOB=VALUE, as in `search`; again for more.")] = None,
    classes: Annotated[int, typer.Option(min=2, help="That the head tells apart.")] = 2,
) -> None:
    """Print what a trial would train, stage by stage, before anything runs."""
    from harness.config.load import load_study
    from harness.study.inspection import inspected

    chosen = dict(_pair(text) for text in knob or [])
    if backbone is not None:
        chosen["backbone"] = backbone
    if depth is not None:
        chosen["unfreeze_depth"] = str(depth)
    config, parts = inspected(load_study(name).study, chosen, classes)
    table = Table(box=None, pad_edge=False)
    for heading in ("Stage", "Parameters", "Train", "In epochs", "Peak rate", "BN", "BatchNorm's statistics"):
        table.add_column(heading, justify="right" if heading in ("Parameters", "Train", "Peak rate", "BN") else "left")
    for part in parts:
        table.add_row(
            part.name, f"{part.parameters:,}", f"{part.training:,}", part.epochs,
            "" if part.lr is None else f"{part.lr:.3g}", str(part.batchnorm_layers or ""), part.statistics,
        )  # fmt: skip
    _say(
        f"{config.strategy} of {config.backbone}: unfreeze_depth {config.unfreeze_depth}, {config.unfreeze_schedule}, "
        f"from the {config.unfreeze_from}, BatchNorm {config.batchnorm}, {config.epochs} epochs, {classes} classes"
    )
    out.print(table, markup=False)
    total, training = sum(p.parameters for p in parts), sum(p.training for p in parts)
    _say(f"{training:,} of {total:,} parameters train ({training / total:.2%}).")


@app.command()
def plan(
    name: Annotated[str, typer.Argument(envvar="HARNESS_NAME", help="A study file: studies/NAME.yaml.")],
    data: Annotated[str | None, typer.Option("--data", envvar="HARNESS_DATA", help="Folder or CSV of images.")] = None,
) -> None:
    """Print what a study will need: memory, disk and time, by strategy and depth; reads its images, trains nothing."""
    from harness.config.load import Overrides, load_study
    from harness.study.environment import resolve_devices
    from harness.study.forecast import forecast
    from harness.study.prepare import prepare

    loaded = load_study(name, Overrides(data=data))
    devices = resolve_devices(loaded.study.device, loaded.study.workers)
    prepared = prepare(loaded, devices, lambda what, done, of: None)
    found = forecast(prepared, devices)
    table = Table(box=None, pad_edge=False)
    for heading in ("Strategy", "Backbone", "Depth", "A trial alone", "With shared activations"):
        table.add_column(heading, justify="left" if heading in ("Strategy", "Backbone") else "right")
    for row in found.depths:
        table.add_row(
            row.strategy, row.backbone, str(row.depth), f"{row.seconds_alone:.1f} s", f"{row.seconds_shared:.1f} s"
        )
    out.print(table, markup=False)
    for kept in prepared.context.plan.kept:
        where = ", ".join(STAGES[cut - 1] for cut in kept.cuts)
        own = f", of {kept.split}" if kept.split else ""
        again = ", recalibrated" if kept.recalibrated else ""
        _say(f"Kept: {kept.backbone}, batches of {kept.batch_size}, views {kept.views}{again}{own}: behind {where}")
    lacking = [(f[0], cut, why) for f, cut, why in prepared.context.plan.left_out if f[3] is None]
    for reason in dict.fromkeys(f"{backbone} behind {STAGES[cut - 1]}: {why}" for backbone, cut, why in lacking):
        _say(f"Not kept: {reason}")
    gb = 1e9
    _say(
        f"Disk: activations {found.activations / gb:.2f} GB of the {found.budget / gb:.2f} GB they may take, "
        f"images {found.memory.images / gb:.2f} GB."
    )
    memory = found.memory
    _say(
        f"Memory: {memory.resident / gb:.2f} GB at the most: images {memory.images / gb:.2f}, and in {memory.workers} "
        f"worker(s) {memory.models / gb:.2f} for models, {memory.step / gb:.2f} for a step of {memory.step_of}, "
        f"beside torch itself; {memory.free / gb:.1f} GB are free."
    )
    if memory.workers * memory.worker > memory.free:
        _say("That is more than is free: lower batch_size, image_size, unfreeze_depth or workers.")
    _say(
        f"Time, unpruned: search {found.search_seconds / 60:.1f} min, "
        f"confirmation {found.confirmation_seconds / 60:.1f} min, "
        f"exploration {found.exploration_seconds / 60:.1f} min on {prepared.context.threads} thread(s) a worker."
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise ConfigError(f"--set takes KNOB=VALUE, but got {text!r}")
    return key, value


@app.command()
def keys() -> None:
    """Print every key a study file may hold, as a Markdown table."""
    from harness.config.keys import table

    sys.stdout.write(table())


def _existing(name: str) -> StudyFolder:

    known = sorted(path.parent.name for path in home().glob("*/study.json"))
    if not NAME_RULE.fullmatch(name) or name not in known:
        raise ConfigError(f"there is no study {name!r} here; there are: {', '.join(known) or 'none yet'}")
    return StudyFolder(name)


def _given(text: str | None) -> str | None:
    """None where a variable is empty, as make hands on what was not set."""
    return text or None


def _whole(name: str, text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name} must be a whole number from 1, but got {text!r}")
    return int(text)


def _again() -> str:
    """The command that was given, to be given again."""
    made = os.environ.get("HARNESS_COMMAND")
    if not made:
        return shlex.join(["harness", *sys.argv[1:]])
    names = ("NAME", "AS", "DATA", "WEIGHTS", "TRIALS", "EPOCHS", "WORKERS", "DEVICE")
    return " ".join([made, *(f"{n}={shlex.quote(v)}" for n in names if (v := os.environ.get(f"HARNESS_{n}")))])


def _shown(path: Path) -> str:
    """A path relative to where the user is, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, width=shutil.get_terminal_size().columns)


def main() -> None:
    """Run a command; every error of ours is one short text on stderr and its exit code."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except HarnessError as error:
        if debug:
            raise
        err.print(f"harness: {error}", markup=False, highlight=False)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
