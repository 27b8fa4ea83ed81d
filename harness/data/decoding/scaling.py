"""Scaling: from samples of any depth to pixels of 8 or 16 bits, with planes combined and alpha composited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.decoding.channels import mixed
from harness.data.decoding.raw import Plane
from harness.data.decoding.rules import Mixture, ReadingRules
from harness.errors import DataError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Scaled:
    """Pixels (height, width, channels), and the range of the samples they came from, without alpha."""

    pixels: Pixels
    low: float
    high: float
    converted: tuple[str, ...]


def scaled(load: Callable[[int], Plane], numbers: list[int], mixture: Mixture | None, rules: ReadingRules) -> Scaled:
    """Return the pixels of one plane, or of the maximum or mean of several.

    Args:
        load: returns a plane by its number.
        numbers: of the planes to combine, by `rules.frames` if there are several.
        mixture: which channels each colour shows; None for the channels as they are.
        rules: for the depth, the range, the background and values that are not finite.

    Raises:
        DataError: values do not fit the scale.
    """

    def one(number: int) -> Plane:
        plane = _whole(load(number), rules)
        if not plane.alpha:
            return replace(plane, samples=mixed(plane.samples, mixture))
        colours = mixed(plane.samples[..., :-1], mixture)
        return replace(plane, samples=np.concatenate([colours, plane.samples[..., -1:]], axis=2))

    if len(numbers) == 1:
        plane = one(numbers[0])
        low, high = _range_of(plane)
        values = _values(plane, _scale(plane, low, high, rules), rules)
        return Scaled(_rounded(values, plane, rules), low, high, _said(plane))
    combine = _Combination(rules.frames)
    low, high, alpha = np.inf, -np.inf, False
    for number in numbers:
        plane = one(number)
        lowest, highest = _range_of(plane)
        low, high, alpha = min(low, lowest), max(high, highest), alpha or bool(plane.alpha)
        if not alpha:
            combine.add(plane.samples)
    scale = _scale(plane, low, high, rules)
    if alpha:  # hidden colours must not count, so that each plane is composited before planes are combined
        combine = _Combination(rules.frames)
        for number in numbers:
            plane = one(number)
            combine.add(_repeated(_values(plane, scale, rules), rules))
        values = combine.result()
    else:
        values = _values(replace(plane, samples=combine.result()), scale, rules)
    words = {"max": "maximum of several frames", "mean": "mean of several frames"}[rules.frames]
    return Scaled(_rounded(values, plane, rules), low, high, (*_said(plane), words))


class _Combination:
    """Combines arrays of one shape one by one, so that a long series needs the memory of two planes."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._count = 0
        self._state: NDArray[Any] | None = None

    def add(self, samples: NDArray[Any]) -> None:
        if self._state is not None and self._state.shape != samples.shape:
            raise DataError(
                f"has frames of different sizes or channels ({self._state.shape} and {samples.shape}): choose "
                "data.frames: first"
            )
        self._count += 1
        if self._kind == "mean":
            samples = samples.astype(np.float64)
            self._state = samples if self._state is None else self._state + samples
        else:
            self._state = samples.copy() if self._state is None else np.maximum(self._state, samples)

    def result(self) -> NDArray[Any]:
        assert self._state is not None
        return self._state / self._count if self._kind == "mean" else self._state


def _whole(plane: Plane, rules: ReadingRules) -> Plane:
    """Return the plane without values that are not finite: they become transparent, or are refused."""
    if plane.form != "float" or np.isfinite(plane.samples).all():
        return plane
    samples, finite = plane.samples.astype(np.float64), np.isfinite(plane.samples)
    if rules.not_finite == "error":
        nan, count = int(np.isnan(plane.samples).sum()), finite.size
        raise DataError(
            f"has values that are not finite ({nan} NaN and {count - int(finite.sum()) - nan} infinite of {count}): "
            "set data.not_finite: background to show the background there, or replace them before, as "
            "numpy.nan_to_num does"
        )
    if not finite.any():
        raise DataError("has no finite value")
    seen = finite.all(axis=2)
    samples[~seen] = samples[finite].min() if plane.alpha == "" else 0
    if plane.alpha:
        samples[..., -1] = np.where(seen, samples[..., -1], 0)
        return replace(plane, samples=samples)
    return replace(
        plane,
        samples=np.dstack([samples, seen.astype(np.float64)]),
        alpha="straight",
        converted=(*plane.converted, "values that are not finite replaced by the background"),
    )


def _range_of(plane: Plane) -> tuple[float, float]:
    colours = plane.samples[..., :-1] if plane.alpha else plane.samples
    return float(colours.min()), float(colours.max())


def _said(plane: Plane) -> tuple[str, ...]:
    return plane.converted + (("alpha composited",) if plane.alpha else ())


def _is_shallow(plane: Plane) -> bool:
    """Return whether these are samples of up to 8 bits, whose full scale is theirs under every rule."""
    return plane.form == "unsigned" and plane.bits <= 8


def _scale(plane: Plane, low: float, high: float, rules: ReadingRules) -> tuple[float, float]:
    """Return the sample values that become 0 and full scale; raise DataError if the samples lie beyond them."""
    depth = rules.bit_depth
    if _is_shallow(plane):
        return 0.0, float((1 << plane.bits) - 1)
    if depth == "minmax" or depth == "used":
        bottom, top = rules.value_range if depth == "used" and rules.value_range is not None else (low, high)
        return bottom, top if top > bottom else bottom + 1.0
    if depth == "dtype":
        if plane.form == "float":
            full, rule = 1.0, "floats must lie in 0 to 1 with bit_depth: dtype"
        elif plane.form == "unsigned" and plane.bits <= 16:
            full, rule = float((1 << plane.bits) - 1), ""
        else:
            sign = "signed " if plane.form == "signed" else ""
            raise DataError(
                f"has {sign}{plane.bits}-bit samples (from {low:g} to {high:g}), whose full scale is unknown: save it "
                "with unsigned 8 or 16 bits, or give data.bit_depth as a number (of bits, if no value is negative), "
                "used or minmax"
            )
    else:
        full = float((1 << depth) - 1)
        rule = f"samples must lie in 0 to {full:.0f} with bit_depth: {depth}"
    if low < 0 or high > full:
        raise DataError(
            f"has values from {low:g} to {high:g}: {rule}; give bit_depth as a number that fits, or minmax, or used"
        )
    return 0.0, full


def _values(plane: Plane, scale: tuple[float, float], rules: ReadingRules) -> NDArray[Any]:
    """Return values on the scale of the pixels, not yet rounded, with alpha composited: (height, width, channels)."""
    bottom, top = scale
    samples = plane.samples[..., :-1] if plane.alpha else plane.samples
    full = _full(plane, rules)
    if _is_shallow(plane) and plane.bits == 8:
        values: NDArray[Any] = samples
    elif plane.alpha == "premultiplied" and bottom:
        share = _share(plane)
        values = np.clip((samples - bottom * share) / (top - bottom), 0, 1).astype(np.float32) * np.float32(full)
    else:
        fractions = (samples.astype(np.float64) - bottom) / (top - bottom)
        values = np.clip(fractions, 0, 1).astype(np.float32) * np.float32(full)
    if not plane.alpha:
        return values
    share = _share(plane)
    colours = values.shape[2]
    behind = np.asarray(background_of(rules.background, 3 if colours == 1 and rules.channels != "all" else colours))
    front = values if plane.alpha == "premultiplied" else values * share
    return np.asarray(np.clip(front + behind.astype(np.float32) * np.float32(full / 255) * (1 - share), 0, full))


def background_of(background: tuple[int, int, int], channels: int) -> tuple[float, ...]:
    """Return the background for an image of so many channels: their mean unless there are three, which are colours."""
    return tuple(map(float, background)) if channels == 3 else (sum(background) / 3,) * channels


def _share(plane: Plane) -> NDArray[np.float32]:
    """Return alpha in [0, 1], (height, width, 1)."""
    full = 1.0 if plane.form == "float" else float((1 << (plane.bits - (plane.form == "signed"))) - 1)
    return np.asarray(np.clip(plane.samples[..., -1:].astype(np.float32) / np.float32(full), 0, 1), dtype=np.float32)


def _full(plane: Plane, rules: ReadingRules) -> int:
    return 255 if _is_shallow(plane) or rules.bit_depth == 8 else 65535


def _rounded(values: NDArray[Any], plane: Plane, rules: ReadingRules) -> Pixels:
    """Return pixels of whole numbers, in at least three channels unless all channels are read as they are."""
    dtype = np.uint8 if _full(plane, rules) == 255 else np.uint16
    whole = values if values.dtype == dtype else np.rint(values).astype(dtype)
    return np.ascontiguousarray(_repeated(whole, rules))


def _repeated(values: NDArray[Any], rules: ReadingRules) -> NDArray[Any]:
    """Return grey in three channels, unless all channels are read as they are."""
    if values.shape[2] != 1 or rules.channels == "all":
        return values
    return np.broadcast_to(values, (*values.shape[:2], 3))
