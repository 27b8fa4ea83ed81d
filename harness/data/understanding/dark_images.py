"""Warnings about images whose sample values use a small part of their scale, and would look black to a model."""

from __future__ import annotations

from collections.abc import Iterable

from harness.config.data import BitDepth
from harness.data.decoding.decode import Facts

_DEPTHS = (8, 10, 12, 14)  # bits of cameras whose images are stored with 16
_SMALL = 0.25  # share of the full scale


def warnings_of(facts: Iterable[Facts], bit_depth: BitDepth = "dtype") -> list[str]:
    """Return a sentence for each kind of sample of which a whole set uses at most a quarter of the scale.

    Args:
        facts: of all images of a set, or of its training part.
        bit_depth: as the study declares it; another value than dtype declares a scale, and nothing is warned of.
    """
    by_kind: dict[tuple[str, int], tuple[int, float]] = {}  # number of images and highest value of each kind
    for fact in facts:
        number, high = by_kind.get((fact.sample_type, fact.bits), (0, fact.high))
        by_kind[fact.sample_type, fact.bits] = number + 1, max(high, fact.high)
    found = [_warning(kind, bits, *seen, bit_depth) for (kind, bits), seen in sorted(by_kind.items())]
    return [text for text in found if text is not None]


def _warning(kind: str, bits: int, number: int, high: float, bit_depth: BitDepth) -> str | None:
    count = f"{number:,} image{'s' if number > 1 else ''}"
    if kind == "unsigned" and bits == 8:
        if high > 255 * _SMALL:
            return None
        return (
            f"{count} with 8 bits use no value above {high:g} of 255, so that they are nearly black: are they masks or "
            "label images? Otherwise stretch them before."
        )
    if bit_depth != "dtype" or not 8 < bits <= 64:
        return None
    if kind == "float":
        if high > _SMALL or high <= 0:
            return None
        return (
            f"{count} with {bits}-bit floats use no value above {high:.4g} of 1, so that they are nearly black: set "
            "bit_depth: used (data.bit_depth) to scale them by the range of the training images."
        )
    full = (1 << bits) - 1
    if kind != "unsigned" or bits > 16 or high > full * _SMALL:
        return None
    depth = next(depth for depth in _DEPTHS if high < 1 << depth)
    share = 100 * high / full
    return (
        f"{count} with {bits} bits use no value above {high:.0f} of {full} ({share:.2g} % of the scale), so that they "
        f"are nearly black: set bit_depth: {depth} (data.bit_depth), or bit_depth: used for the range of the training "
        "images."
    )
