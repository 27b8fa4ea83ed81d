"""The source of rendered cells. The images are made once by `rendered_cells.py` and kept in the cache."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import zipfile
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from harness.atomic import atomic_write
from harness.data.sources import rendered_cells
from harness.data.sources.listing import Listing, Sample, by_bytes

SEED = 0  # the same in all studies, so that their results can be compared


def list_rendered(*, cache: Path) -> Listing:
    """List the rendered cells, with the slide as the group."""
    cells = _cells(cache)
    places = np.arange(len(cells.labels)) % rendered_cells.PER_SLIDE
    samples = [
        Sample(f"{cells.classes[label]}/slide{slide:03d}_{place:02d}.png", cells.classes[label], f"slide{slide:03d}")
        for label, slide, place in zip(cells.labels, cells.slides, places, strict=True)
    ]
    order = sorted(range(len(samples)), key=lambda row: by_bytes(samples[row].path))
    images = cells.images

    def fetch(index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = images[order[index]]
        return image

    return Listing(
        name="rendered_cells",
        source="rendered_cells",
        samples=tuple(samples[row] for row in order),
        fetch=fetch,
        classes=cells.classes,
        group_rule="slide",
        notes=("These images are rendered by a model of image formation; no microscope took them.",),
        rendered=True,
    )


def _cells(cache: Path) -> rendered_cells.RenderedCells:
    """Return the images from the cache if the same code wrote them and the file is undamaged; otherwise render them."""
    version = hashlib.sha256(inspect.getsource(rendered_cells).encode() + str(SEED).encode()).hexdigest()[:16]
    path = cache / "rendered" / f"{version}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file():
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                    return rendered_cells.RenderedCells(stored["images"], stored["labels"], stored["slides"])
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                path.unlink()  # incomplete or changed, which the checksums in a zip file show
        cells = rendered_cells.render(SEED)
        buffer = io.BytesIO()
        np.savez(buffer, images=cells.images, labels=cells.labels, slides=cells.slides)
        atomic_write(path, buffer.getvalue())
        os.chmod(path, 0o444)  # noqa: PTH101
    return cells
