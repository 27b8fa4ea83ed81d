"""Choose the images of a contact sheet: some of every class, as the model will see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.parameters import Augmentation
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.data.augmentation import apply, draw, image_keys
from harness.data.understanding.overview import Overview
from harness.report.contact_sheet import COLUMNS, NearStrip, Picture, Strip, write_sheet
from harness.study.open_data import OpenedData

_PAIRS = 12  # near duplicates that the sheet shows


def write_contact_sheet(path: Path, study: StudyConfig, opened: OpenedData, overview: Overview) -> None:
    """Write the contact sheet of a study's data as PNG or HTML, by the suffix of `path`."""
    images = np.load(opened.arrays[min(opened.arrays)], mmap_mode="r")
    table, recipe = opened.dataset.table, _recipe(study)
    labels = table["label"].to_numpy(np.int64)
    keys = image_keys(list(table["sha256"]))
    random = np.random.default_rng(study.seed)
    strips = []
    for label, name in enumerate(opened.dataset.classes):
        own = np.flatnonzero(labels == label)
        rows = np.sort(random.permutation(own)[:COLUMNS])
        batch = torch.from_numpy(_fractions(images[rows])).permute(0, 3, 1, 2)
        views = apply(recipe, batch, draw(recipe, study.seed, 1, keys[rows])).permute(0, 2, 3, 1).numpy()
        plain = [_picture(image) for image in _fractions(images[rows])]
        shown = [_picture(view) for view in views]
        strips.append(Strip(name, len(own), list(zip(plain, shown, table["path"].iloc[rows], strict=True))))
    near = [
        NearStrip(
            (_picture(_fractions(images[pair.first])), table["path"].iloc[pair.first]),
            (_picture(_fractions(images[pair.second])), table["path"].iloc[pair.second]),
            pair.similarity,
        )
        for pair in opened.findings.near[:_PAIRS]
    ]
    lines = [overview.sentence(), *(f"Warning: {warning}" for warning in overview.warnings)]
    write_sheet(path, f"{opened.dataset.name}: images as the model will see them", lines, strips, near)


def _recipe(study: StudyConfig) -> Augmentation:
    recipe: Augmentation = space(study, study.strategies[0]).default().augmentation
    return recipe


def _fractions(images: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return pixels in [0, 1]."""
    return images.astype(np.float32) / np.float32(65535 if images.dtype == np.uint16 else 255)


def _picture(image: NDArray[np.float32]) -> Picture:
    return np.rint(image * 255).clip(0, 255).astype(np.uint8)
