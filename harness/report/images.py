"""Images for the page, as data addresses: a strip of samples for each class, or any other small image."""

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
    return {k: [address(image) for image in images[labels == k][:EACH]] for k in range(classes) if (labels == k).any()}


def address(pixels: np.ndarray) -> str:
    """An image (height, width, 3) uint8 as a data address, SIZE pixels at most."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIZE, SIZE))
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
