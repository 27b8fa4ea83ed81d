"""Commands that show backbones, study keys and what a study would do, before anything runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.app import app, out, say
from harness.config.data import MAX_CHANNELS
from harness.config.initial_weights import DEFAULT
from harness.config.trial import DEPTH_MAX, STAGES
from harness.errors import ConfigError


@app.command()
def backbones(
    as_json: Annotated[bool, typer.Option("--json", help="Print all values as JSON.")] = False,
    source: Annotated[str, typer.Option(help="List the names of another source: timm.")] = "",
    wanted: Annotated[
        list[str] | None, typer.Option("--name", help="Show these backbones alone; may be repeated.")
    ] = None,
) -> None:
    """Print every backbone: image size, parameters, work, and the share that each unfreeze_depth trains."""
    from harness.config.backbone_costs import cost
    from harness.config.backbone_specs import backbone_spec, backbone_specs, permit

    if source not in ("", "torchvision"):
        _print_names(source, as_json)
        return
    permit(wanted or ())
    specs = {one: backbone_spec(one) for one in wanted} if wanted else backbone_specs()
    if as_json:
        rows = [
            {
                **asdict(spec),
                **asdict(cost(name)),
                "gflops": cost(name).gflops,
                "parameter_share": [cost(name).parameter_share(depth) for depth in range(DEPTH_MAX + 1)],
                "backward_share": [cost(name).backward_share(depth) for depth in range(DEPTH_MAX + 1)],
            }
            for name, spec in specs.items()
        ]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))  # fits 80 columns
    depths = range(1, DEPTH_MAX)
    for heading in ("Backbone", "px", "M par.", "GFLOP", "BN", *(f"p{k}" for k in depths), *(f"b{k}" for k in depths)):
        table.add_column(heading, justify="left" if heading == "Backbone" else "right", no_wrap=True)
    for name, spec in specs.items():
        known = cost(name)
        shares = [*(known.parameter_share(k) for k in depths), *(known.backward_share(k) for k in depths)]
        table.add_row(
            name,
            str(spec.native_size),
            f"{sum(known.parameters) / 1e6:.1f}",
            f"{known.gflops:.1f}",
            str(known.batchnorm_layers),
            *(f"{share * 100:.0f}" for share in shares),
        )
    out.print(table, markup=False)
    say(
        "px: native size. M par.: parameters without the head, in millions. GFLOP: one image forward (a multiply-add\n"
        "is two). BN: BatchNorm layers. p1 to p4: % of the parameters that train at unfreeze_depth 1 to 4.\n"
        "b1 to b4: the backward pass's work there, in % of that at depth 5."
    )
    if not wanted:
        for line in _other_sources():
            say(line)


def _other_sources() -> list[str]:
    """Return a line for each source beside torchvision: whether it is installed, and how to see its backbones."""
    from importlib.metadata import version

    from harness.config.backbone_specs import SOURCES, backbone_specs, is_installed

    lines = []
    for prefix, entry in SOURCES.items():
        if not prefix:
            continue
        if entry.runs_code:
            lines.append(f"{prefix}package.module:function: {entry.label}; docs/extending.md says what one returns.")
        elif not is_installed(entry):
            lines.append(f"{prefix}NAME: {entry.label}, not installed; pip install 'finetune-harness[{entry.extra}]'")
        else:
            which = f" {version(entry.package)}" if entry.package else ""
            lines.append(
                f"{prefix}NAME: {entry.label}{which}, {len(backbone_specs(prefix))} names; "
                f"`harness backbones --source {prefix.rstrip('/:')}` lists them, --name {prefix}NAME shows one."
            )
    return lines


def _print_names(source: str, as_json: bool) -> None:
    """Print the names of a source's backbones, one a line; their costs would take minutes to count."""
    from harness.config.backbone_specs import SOURCES, backbone_specs

    prefix = next((prefix for prefix in SOURCES if prefix and prefix.rstrip("/:") == source), None)
    if prefix is None:
        known = ", ".join(["torchvision", *(prefix.rstrip("/:") for prefix in SOURCES if prefix)])
        raise ConfigError(f"--source must be one of {known}, but got {source!r}.")
    names = list(backbone_specs(prefix))
    if as_json:
        sys.stdout.write(json.dumps(names, indent=1) + "\n")
        return
    if not names:
        say(f"{SOURCES[prefix].label}: there is no list of them; docs/extending.md says what one returns.")
    for each in names:
        say(each)


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(envvar="HARNESS_NAME", help="A study file: studies/NAME.yaml.")],
    backbone: Annotated[str | None, typer.Option(help="Default: the study's first backbone.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, max=DEPTH_MAX, help="unfreeze_depth; 0 trains the head.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", help="PARAMETER=VALUE, as in `search`; may be repeated.")
    ] = None,
    classes: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the study's epochs; 10 if they are auto.")] = None,
    channels: Annotated[
        int, typer.Option(min=1, max=MAX_CHANNELS, help="Channels of the images, for data.channels: all.")
    ] = 3,
) -> None:
    """Print what a trial would train, stage by stage, before anything runs."""
    from harness.config.load import load_study
    from harness.config.study import AUTO
    from harness.study.estimate.inspect import checkpoint_text, inspect_trial

    chosen = dict(_pair(text) for text in parameter or [])
    if backbone is not None:
        chosen["backbone"] = backbone
    if depth is not None:
        chosen["unfreeze_depth"] = str(depth)
    study = load_study(name).study
    if channels != 3 and study.data.channels != "all":
        raise ConfigError(f"--channels must be 3 without `data.channels: all` in the study file, but got {channels}.")
    config, stages = inspect_trial(study, chosen, classes, epochs, channels)
    table = Table(box=None, pad_edge=False)
    for heading in ("Stage", "Parameters", "Train", "In epochs", "Peak rate", "BN", "BatchNorm's statistics"):
        table.add_column(heading, justify="right" if heading in ("Parameters", "Train", "Peak rate", "BN") else "left")
    for stage in stages:
        table.add_row(
            stage.name,
            f"{stage.parameters:,}",
            f"{stage.training:,}",
            stage.epochs,
            "" if stage.lr is None else f"{stage.lr:.3g}",
            str(stage.batchnorm_layers or ""),
            stage.statistics,
        )
    say(
        f"{config.strategy} of {config.backbone}: unfreeze_depth {config.unfreeze_depth}, {config.unfreeze_schedule}, "
        f"from the {config.unfreeze_from}, BatchNorm {config.batchnorm}, {config.epochs} epochs, {classes} classes"
    )
    if epochs is None and study.epochs == AUTO:
        say("The study chooses its number of epochs from its images; --epochs sets the one that is shown here.")
    if study.data.channels == "all":
        say(f"The study takes every channel of its images; --channels sets their number, here {channels}.")
    out.print(table, markup=False)
    if (text := checkpoint_text(study, config)) is not None:
        say(f"Weights: {text}")
    total, training = sum(s.parameters for s in stages), sum(s.training for s in stages)
    say(f"{training:,} of {total:,} parameters train ({training / total:.2%}).")


@app.command()
def plan(
    name: Annotated[str, typer.Argument(envvar="HARNESS_NAME", help="A study file: studies/NAME.yaml.")],
    data: Annotated[str | None, typer.Option("--data", envvar="HARNESS_DATA", help="Folder or CSV of images.")] = None,
) -> None:
    """Print the memory, disk and time that a study will need; read its images, but train nothing."""
    from harness.config.load import Overrides, load_study
    from harness.study.environment import resolve_devices
    from harness.study.estimate.forecast import forecast
    from harness.study.prepare import prepare

    loaded = load_study(name, Overrides(data=data))
    devices = resolve_devices(loaded.study.device, loaded.study.workers)
    prepared = prepare(loaded, devices, lambda what, done, of: None)
    for sentence in prepared.chosen:
        say(sentence)
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
        of = kept.backbone + ("" if kept.weights == DEFAULT else f" ({kept.weights})")
        say(f"Kept: {of}, batches of {kept.batch_size}, views {kept.views}{again}{own}: behind {where}")
    lacking = [(f[0], cut, why) for f, cut, why in prepared.context.plan.left_out if f[3] is None]
    for reason in dict.fromkeys(f"{backbone} behind {STAGES[cut - 1]}: {why}" for backbone, cut, why in lacking):
        say(f"Not kept: {reason}")
    gb = 1e9
    say(
        f"Disk: activations {found.activations / gb:.2f} GB of {found.budget / gb:.2f} GB that they may take, "
        f"images {found.memory.images / gb:.2f} GB."
    )
    memory = found.memory
    say(
        f"Memory: at most {memory.resident / gb:.2f} GB: images {memory.images / gb:.2f}, and in {memory.workers} "
        f"worker(s) {memory.models / gb:.2f} for models, {memory.step / gb:.2f} for a step of {memory.step_of}, "
        f"and torch itself; {memory.free / gb:.1f} GB are free."
    )
    if memory.workers * memory.worker > memory.free:
        say("This is more than is free: lower batch_size, image_size, unfreeze_depth or workers.")
    say(
        f"Time, unpruned: search {found.search_seconds / 60:.1f} min, "
        f"confirmation {found.confirmation_seconds / 60:.1f} min, "
        f"exploration {found.exploration_seconds / 60:.1f} min on {prepared.context.threads} thread(s) a worker."
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise ConfigError(f"--set must be PARAMETER=VALUE, but got {text!r}")
    return key, value


@app.command()
def keys() -> None:
    """Print every key a study file may hold, as a Markdown table."""
    from harness.config.keys import table

    sys.stdout.write(table())
