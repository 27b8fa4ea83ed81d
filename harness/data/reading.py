"""Read one image of a listing: its pixels, its digests and the facts about it.

Processes that decode images import this file, so it must not import anything slow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.data import DataConfig
from harness.data.decoding import decode
from harness.data.decoding.decode import Facts, Pixels
from harness.data.decoding.raw import read_bytes
from harness.data.decoding.rules import rules_of
from harness.data.sources.listing import Frame, Listing, Stored
from harness.data.staged_rows import Target
from harness.data.traits import Traits, traits_of
from harness.errors import DataError

FACTS = tuple(field.name for field in fields(Facts))
TRAITS = tuple(field.name for field in fields(Traits))


@dataclass(frozen=True)
class Scanned:
    """One readable image: SHA-256 (hex) of its file and of its decoded pixels, and the facts about it."""

    sha256: str
    pixels_sha256: str
    facts: Facts
    traits: Traits


def fetch(listing: Listing, row: int, config: DataConfig) -> tuple[Pixels, Scanned]:
    """Return the pixels of one image at full size, with its digests and facts.

    Raises:
        DataError: it cannot be read. The message is the reason without the file's name.
    """
    return read_source(listing.fetch(row), config)


def read_source(
    stored: Stored, config: DataConfig, value_range: tuple[float, float] | None = None
) -> tuple[Pixels, Scanned]:
    """Return what `fetch` returns, of what the listing's own `fetch` gave.

    Args:
        value_range: of sample values, with `bit_depth: used`; without it, every image has its own.
    """
    source, frame = (stored.path, stored.number) if isinstance(stored, Frame) else (stored, None)
    if isinstance(source, np.ndarray):
        pixels: Pixels = source
        facts = _facts(pixels)
        digest = pixel_digest(pixels)
        return pixels, Scanned(digest, digest, facts, traits_of(pixels, None))
    try:
        rules = rules_of(config, value_range)
        data = read_bytes(source, rules.max_pixels) if isinstance(source, Path) else source
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})") from None
    pixels, facts = decode.read(data, rules=rules, frame=frame)
    digest = pixel_digest(pixels)
    content = data if isinstance(data, bytes) else None
    traits = traits_of(pixels, content)
    return pixels, Scanned(hashlib.sha256(content).hexdigest() if content else digest, digest, facts, traits)


def examine(source: Stored, config: DataConfig, targets: Sequence[Target], slot: int) -> tuple[list[Any], list[int]]:
    """Read one image and write it at every target's size into that target's slot.

    Returns:
        The values of its `Scanned`, as `to_values` gives them, and the checksum of each row that was written.

    Raises:
        DataError: it cannot be read. The message is the reason without the file's name.
        OSError: a row cannot be written.
    """
    pixels, scanned = read_source(source, config)
    scaled = {None: pixels} | {
        one: read_source(source, config, one)[0] for one in {target.value_range for target in targets} - {None}
    }
    return to_values(scanned), [target.write(slot, scaled[target.value_range]) for target in targets]


def _facts(pixels: Pixels) -> Facts:
    """Return the facts about pixels (H, W, C) that a source has in memory."""
    height, width, channels = pixels.shape
    colour = "RGB image" if channels == 3 else f"image of {channels} channel{'s' if channels > 1 else ''}"
    deep = pixels.dtype == np.uint16
    return Facts(
        width,
        height,
        f"{16 if deep else 8}-bit {colour}",
        deep=deep,
        channels=channels,
        bits=16 if deep else 8,
        low=float(pixels.min()),
        high=float(pixels.max()),
    )


def pixel_digest(pixels: Pixels) -> str:
    """Return the SHA-256 (hex) of an image's values, shape and type."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype.newbyteorder('<').str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def to_values(scanned: Scanned) -> list[Any]:
    """Return the fields as values that JSON can hold: two digests, the facts and the traits in their order."""
    facts, traits = scanned.facts, scanned.traits
    return [
        scanned.sha256,
        scanned.pixels_sha256,
        [getattr(facts, name) for name in FACTS],
        [getattr(traits, name) for name in TRAITS],
    ]


def from_values(values: list[Any]) -> Scanned:
    """Return the Scanned that `to_values` was given. Lists, which JSON makes of tuples, are tuples again."""
    facts, traits = (tuple(_frozen(value) for value in part) for part in values[2:])
    return Scanned(values[0], values[1], Facts(*facts), Traits(*traits))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
