"""Small facts about an image: brightness, border, camera, date and thumbnail."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from harness.data.traits import SIDE, thumbnail_of, traits_of


def test_brightness_and_border_are_shares_of_full_scale_for_both_depths() -> None:
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[1:-1, 1:-1] = 0
    shallow = traits_of(pixels, None)
    deep = traits_of(pixels.astype(np.uint16) * np.uint16(257), None)
    assert shallow.border == 1 and shallow.brightness == pytest.approx(1 - 38 * 58 / (40 * 60), abs=1e-4)
    assert deep == shallow and shallow.size == 0


def test_the_thumbnail_shows_the_image() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    thumbnail = thumbnail_of(traits_of(pixels, None))
    assert thumbnail.shape == (SIDE, SIDE)
    assert (thumbnail[:, : SIDE // 2] == 0).all() and (thumbnail[:, SIDE // 2 :] == 200).all()


def test_camera_and_date_come_from_the_file_and_damaged_metadata_are_no_error() -> None:
    image = Image.new("RGB", (8, 8))
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Nikon", "Ti2", "2024:05:06 07:08:09"
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    data = stream.getvalue()
    found = traits_of(np.zeros((8, 8, 3), np.uint8), data)
    assert (found.camera, found.taken, found.size) == ("Nikon Ti2", "2024-05-06", len(data))
    broken = data.replace(b"Exif\0\0II", b"Exif\0\0XX").replace(b"Exif\0\0MM", b"Exif\0\0XX")
    assert broken != data
    assert traits_of(np.zeros((8, 8, 3), np.uint8), broken).camera == ""
    assert traits_of(np.zeros((8, 8, 3), np.uint8), b"no image").camera == ""
