"""Traits: small facts about an image that may give its class away, and a thumbnail that finds near duplicates."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16  # pixels of the thumbnail
_MAKE, _MODEL, _DATE, _ORIGINAL_DATE, _EXIF = 0x010F, 0x0110, 0x0132, 0x9003, 0x8769


@dataclass(frozen=True)
class Traits:
    """Facts that a model could use instead of what the image shows. Brightness lies in [0, 1]."""

    size: int  # bytes of the file; 0 if the image is in memory
    brightness: float  # mean over all pixels and channels
    border: float  # mean of the outermost pixels
    camera: str  # maker and model of the camera as the file names them; "" if it does not
    taken: str  # date as the file gives it, YYYY-MM-DD; "" if it does not
    thumbnail: str  # (SIDE, SIDE) grey values as hex digits, row by row


def traits_of(pixels: NDArray[np.uint8] | NDArray[np.uint16], data: bytes | None) -> Traits:
    """Return the traits of one image.

    Args:
        pixels: (height, width, channels) as decoded, uint8 or uint16.
        data: the bytes of its file, for camera and date; None if it has no file.
    """
    full = 65535 if pixels.dtype == np.uint16 else 255
    grey = (pixels.mean(axis=2, dtype=np.float32) * (255 / full)).astype(np.float32)
    edge = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))
    camera, taken = _tags(data)
    return Traits(
        size=len(data) if data is not None else 0,
        brightness=round(float(grey.mean()) / 255, 5),
        border=round(float(edge.mean()) / 255, 5),
        camera=camera,
        taken=taken,
        thumbnail=np.rint(small).astype(np.uint8).tobytes().hex(),
    )


def thumbnail_of(traits: Traits) -> NDArray[np.uint8]:
    """Return the thumbnail as (SIDE, SIDE) grey values."""
    return np.frombuffer(bytes.fromhex(traits.thumbnail), np.uint8).reshape(SIDE, SIDE)


def _tags(data: bytes | None) -> tuple[str, str]:
    """Return camera and date as the file's metadata give them."""
    if data is None:
        return "", ""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "TIFF", "PNG", "WEBP")) as image:
            tags = image.getexif()
            maker, model = (str(tags.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL))
            date = str(tags.get_ifd(_EXIF).get(_ORIGINAL_DATE) or tags.get(_DATE, ""))
    except Exception:  # damaged metadata cause many kinds of errors, and are no reason to refuse an image
        return "", ""
    camera = model if model.startswith(maker) else f"{maker} {model}"
    return camera[:80], date[:10].replace(":", "-")
