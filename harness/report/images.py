"""Sample images for the page: one strip a class, as a data address."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

EACH = 6  # images a class
SIZE = 96  # pixels at most, on the longer side


def samples(path: Path, classes: int) -> dict[int, list[str]]:
    """Class index -> data addresses of a few of its images; {} where no thumbnails are stored."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    return {k: [_address(image) for image in images[labels == k][:EACH]] for k in range(classes) if (labels == k).any()}


def _address(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((SIZE, SIZE))
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
