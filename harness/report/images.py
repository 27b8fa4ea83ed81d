"""Small images for the page as data URLs, so that the page is one file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from harness.errors import HarnessError
from harness.results.compressed import read_arrays

EACH = 6  # images of a class
SIZE = 96  # largest width or height in pixels


def samples(path: Path, classes: int) -> dict[int, list[str]]:
    """Return class index -> data URLs of at most EACH of its images; {} if no thumbnails are stored.

    A file that is damaged, or does not hold images and a label for each, counts as missing.
    """
    try:
        stored = read_arrays(path, ("images", "labels"))
    except HarnessError:
        return {}
    images, labels = stored["images"], stored["labels"]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        return {}
    return {k: [address(image) for image in images[labels == k][:EACH]] for k in range(classes) if (labels == k).any()}


def address(pixels: np.ndarray) -> str:
    """Return an image (height, width, 3) uint8 as a data URL, scaled down to SIZE pixels at most."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIZE, SIZE))
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
