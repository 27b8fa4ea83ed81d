"""The command that shows a data set as a study would see it, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.app import app, err, given, out, say, short_path
from harness.errors import DataError


@app.command("data")
def show_data(
    name: Annotated[
        str, typer.Argument(metavar="PATH|NAME", envvar="HARNESS_NAME", help="Folder, table, or a study of studies/.")
    ],
    data: Annotated[
        str | None, typer.Option(envvar="HARNESS_DATA", help="Folder or table that replaces the study's data.")
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, a key under data of a study file, such as channels=all; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    sheet: Annotated[
        str | None, typer.Option(envvar="HARNESS_SHEET", help="Write images of every class to this PNG or HTML file.")
    ] = None,
) -> None:
    """Show what a study would see of its images: classes, split, kinds, what is left aside, and warnings."""
    import numpy as np

    from harness.config.load import Overrides, data_key, load_study, study_of_data
    from harness.config.space import space
    from harness.data.composite import caption
    from harness.data.understanding.overview import overview_of
    from harness.data.understanding.sheet_images import near_strips, strips_of
    from harness.report.contact_sheet import check_sheet, write_sheet
    from harness.results.paths import home
    from harness.study.open_data import check_source, open_data

    page = Path(sheet).expanduser() if sheet else None
    if page is not None:
        check_sheet(page)
    chosen = dict(data_key(text) for text in keys or ())
    path = Path(name).expanduser()
    if not data and (path.exists() or "/" in name):
        study = study_of_data(name, chosen)
    else:
        loaded = load_study(name, Overrides(data=given(data), data_keys=chosen))
        study = loaded.study
        check_source(study, loaded.path.stem)

    def progress(what: str, done: int, of: int) -> None:
        if err.is_terminal:
            err.print(f"\r{what}: {done} of {of}", end="\n" if done == of else "", highlight=False)

    try:
        opened = open_data(study, cache=home() / "cache", progress=progress)
    except DataError as error:
        if "data." in str(error):
            raise DataError(f"{error}\nTo try a key here, add --set KEY=VALUE, such as --set channels=all.") from None
        raise
    overview = overview_of(opened.dataset, opened.parts, opened.findings)
    if page is not None:
        images = np.load(opened.arrays[min(opened.arrays)], mmap_mode="r")
        recipe = space(study, study.strategies[0]).default().augmentation
        warnings = [f"Warning: {warning}" for warning in overview.warnings]
        write_sheet(
            page,
            f"{opened.dataset.name}: images as the model will see them",
            [text for text in (overview.sentence(), *warnings, caption(opened.dataset.channels)) if text],
            strips_of(opened.dataset, images, recipe, study.seed),
            near_strips(opened.dataset, images, opened.findings.near),
        )
    if as_json:
        out.print(json.dumps(overview.as_json(), indent=1), markup=False, highlight=False, soft_wrap=True)
        return
    classes = Table(box=None, pad_edge=False)
    for heading in ("Class", "Images", "Train", "Validation", "Test"):
        classes.add_column(heading, justify="left" if heading == "Class" else "right")
    for label, parts in overview.classes.items():
        numbers = [sum(parts.values()), parts["train"], parts["validation"], parts["test"]]
        classes.add_row(label, *(f"{number:,}" for number in numbers))
    out.print(classes, markup=False)
    say("")
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for fact, value in overview.rows():
        facts.add_row(fact, value)
    out.print(facts, markup=False)
    for warning in overview.warnings:
        say("")
        say(f"Warning: {warning}")
    if page is not None:
        say("")
        say(f"Sheet    {short_path(page)}")
