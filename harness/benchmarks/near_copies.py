"""Measure how many changed copies of images are found as near duplicates, and how many found pairs are none.

    python -m harness.benchmarks.near_copies FILE.json [FOLDER]

The images are the rendered cells, or those below FOLDER. Copies of some of them are made by each change; the images
themselves count as different from each other, so that FOLDER should hold no copies of its own.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.atomic import atomic_write
from harness.data.decoding import decode
from harness.data.sources import rendered_cells
from harness.data.traits import thumbnail_of, traits_of
from harness.data.understanding.near_duplicates import SIDE, SIMILAR, near_duplicates

IMAGES, COPIES = 1_440, 200
SEED = 0

Picture = NDArray[np.uint8]  # (height, width, 3)
Change = Callable[[Picture, np.random.Generator], Picture]


def cut(share: float) -> Change:
    """Return a change that keeps this share of the area, at a random place."""

    def change(picture: Picture, random: np.random.Generator) -> Picture:
        height, width = (int(side * share**0.5) for side in picture.shape[:2])
        top = random.integers(0, picture.shape[0] - height + 1)
        left = random.integers(0, picture.shape[1] - width + 1)
        return picture[top : top + height, left : left + width]

    return change


def shift(share: float) -> Change:
    """Return a change that moves the picture by this share of its sides; its border is mirrored."""

    def change(picture: Picture, random: np.random.Generator) -> Picture:
        down, right = (int(side * share) for side in picture.shape[:2])
        padded = np.pad(picture, ((down, down), (right, right), (0, 0)), mode="reflect")
        top, left = random.choice([0, 2 * down]), random.choice([0, 2 * right])
        return padded[top : top + picture.shape[0], left : left + picture.shape[1]]

    return change


def recompress(quality: int) -> Change:
    """Return a change that saves the picture as JPEG with this quality."""

    def change(picture: Picture, random: np.random.Generator) -> Picture:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=quality)
        return np.asarray(Image.open(stream).convert("RGB"))

    return change


def brighten(factor: float) -> Change:
    """Return a change that multiplies all values."""
    return lambda picture, random: np.clip(picture * factor, 0, 255).astype(np.uint8)


def resize(factor: float) -> Change:
    """Return a change of the number of pixels."""
    return lambda picture, random: np.asarray(
        Image.fromarray(picture).resize([max(int(side * factor), 8) for side in picture.shape[1::-1]])
    )


CHANGES: dict[str, Change] = {
    "cut to 90 % of the area": cut(0.9),
    "cut to 80 %": cut(0.8),
    "cut to 70 %": cut(0.7),
    "moved by 3 % of the side": shift(0.03),
    "moved by 6 %": shift(0.06),
    "moved by 10 %": shift(0.10),
    "JPEG of quality 75": recompress(75),
    "JPEG of quality 30": recompress(30),
    "15 % brighter": brighten(1.15),
    "30 % darker": brighten(0.7),
    "half the size": resize(0.5),
    "grey": lambda picture, random: np.asarray(Image.fromarray(picture).convert("L").convert("RGB")),
}


def measure(pictures: list[Picture]) -> dict[str, Any]:
    """Return recall and false pairs for each change.

    Args:
        pictures: different images, RGB.
    """
    random = np.random.default_rng(SEED)
    rows = []
    for name, change in CHANGES.items():
        chosen = random.permutation(len(pictures))[: min(COPIES, len(pictures))].tolist()
        everything = pictures + [change(pictures[row], random) for row in chosen]
        thumbnails = np.stack([thumbnail_of(traits_of(picture, None)) for picture in everything])
        images = np.asarray([decode.fit(picture, SIDE, "stretch") for picture in everything], np.uint8)
        started = time.perf_counter()
        pairs = {(pair.first, pair.second) for pair in near_duplicates(thumbnails, images, np.arange(len(everything)))}
        true = {(row, len(pictures) + number) for number, row in enumerate(chosen)}
        rows.append(
            {
                "change": name,
                "copies": len(true),
                "recall": round(len(pairs & true) / len(true), 3),
                "false_pairs": len(pairs - true),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    return {"images": len(pictures), "similar": SIMILAR, "changes": rows}


def _pictures(folder: Path | None) -> list[Picture]:
    if folder is None:
        return list(rendered_cells.render(SEED).images[:IMAGES])
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in decode.SUFFIXES)
    chosen = np.random.default_rng(SEED).permutation(len(files))[:IMAGES]
    return [np.asarray(Image.open(files[row]).convert("RGB")) for row in chosen]


if __name__ == "__main__":
    result = measure(_pictures(Path(sys.argv[2]) if len(sys.argv) > 2 else None))
    atomic_write(Path(sys.argv[1]), json.dumps(result, indent=1).encode())
