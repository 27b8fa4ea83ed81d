"""Near duplicates: images that show the same thing again, cut, shifted, resized, recompressed or with other brightness.

Small thumbnails propose pairs; the details of the larger images decide. Two different cells of one kind often look
alike at low resolution, but their fine structure does not agree at any offset, while that of two renderings of one
photograph does. Mirrored and turned copies are not found.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn, irfft2, rfft2
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

VERSION = 1  # raise it if the same images give other pairs
SIMILAR = 0.8  # least correlation of the details; reports/benchmarks says how it was chosen
SIDE = 64  # pixels at which the details are compared
SHIFT = 16  # of those pixels: the largest offset that is tried
# How much the first and the second image of a pair are enlarged, since a cut image is shown enlarged. To each of the
# steps at which a pair is looked at quickly belong the finer ones at which it is decided.
_STEPS: tuple[tuple[tuple[float, float], tuple[tuple[float, float], ...]], ...] = (
    ((1.0, 1.0), ((1.0, 1.0), (1.06, 1.0), (1.0, 1.06))),
    ((1.1, 1.0), ((1.0, 1.0), (1.06, 1.0), (1.12, 1.0))),
    ((1.2, 1.0), ((1.0, 1.0), (1.12, 1.0), (1.19, 1.0))),
    ((1.0, 1.1), ((1.0, 1.0), (1.0, 1.06), (1.0, 1.12))),
    ((1.0, 1.2), ((1.0, 1.0), (1.0, 1.12), (1.0, 1.19))),
)
_DETAIL = (1.0, 2.5)  # blurs, in pixels of SIDE: detail is what the first one keeps (no noise) and the second does not
_AROUND, _FAINT = 3.0, 1.0  # detail is divided by its strength within this distance; weaker detail (of 255) counts less
_LOW = 6  # frequencies of a thumbnail that propose pairs
_PROPOSALS = ((5_000, 16), (20_000, 8))  # proposals for each image, up to so many images
_FEWEST_PROPOSALS = 4
_COARSE, _COARSE_DETAIL, _PASSES = 32, 1.0, 0.6
_BLOCK = 512  # pairs or images that are computed together
_WINDOW = np.outer(*[np.hanning(SIDE + 2)[1:-1].astype(np.float32)] * 2)  # fades a detail out at the border
_FLAT = 1.0  # an image whose grey values vary less than this (of 255) shows nothing

Pairs = NDArray[np.int64]  # (P, 2), row numbers, the smaller first
Grey = NDArray[np.float32]
Images = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class NearPair:
    """Two rows that show nearly the same; `similarity` is the correlation of their details, in [SIMILAR, 1]."""

    first: int
    second: int
    similarity: float


def near_duplicates(
    thumbnails: NDArray[np.uint8],
    images: Images,
    rows: NDArray[np.int64],
    progress: Callable[[int, int], None] | None = None,
) -> list[NearPair]:
    """Return the pairs of rows that are near duplicates, sorted by row.

    Args:
        thumbnails: (N, T, T) grey values, as in `harness.data.traits`.
        images: (N, S, S, channels), which may be a mapped file. Rows are read in small blocks.
        rows: the rows that are compared, ascending; copies of an image should be among them once only.
        progress: called with (pairs looked at, pairs in all), from this thread.
    """
    found: list[NearPair] = []
    small = _greys(images, rows, _COARSE)
    candidates = _proposed(thumbnails[rows])

    def decide(start: int) -> list[NearPair]:
        block = candidates[start : start + _BLOCK]
        quick, steps = _coarse(small, block)
        decided = []
        for place in np.flatnonzero(quick >= _PASSES).tolist():
            first, second = rows[block[place]].tolist()
            scales = _STEPS[steps[place]][1]
            decided.append(
                (first, second, _similarity(_grey(images[first], SIDE), _grey(images[second], SIDE), scales))
            )
        return [NearPair(first, second, round(value, 3)) for first, second, value in decided if value >= SIMILAR]

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:  # the transforms release Python's global lock
        for number, pairs in enumerate(pool.map(decide, range(0, len(candidates), _BLOCK)), start=1):
            found += pairs
            if progress is not None:
                progress(min(number * _BLOCK, len(candidates)), len(candidates))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def clusters(pairs: list[NearPair], count: int) -> NDArray[np.int64]:
    """Return (count,) the number of the cluster of each row; rows that pairs connect have the same number."""
    rows = np.array([(pair.first, pair.second) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(rows), np.int8), (rows[:, 0], rows[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


# --- proposals ----------------------------------------------------------------------------------------------


def _proposed(thumbnails: NDArray[np.uint8]) -> Pairs:
    """Return the pairs of images whose thumbnails agree most at low frequencies."""
    count = len(thumbnails)
    wanted = next((number for most, number in _PROPOSALS if count <= most), _FEWEST_PROPOSALS)
    each = min(wanted, count - 1)
    if each < 1:
        return np.empty((0, 2), np.int64)
    spectrum = dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho")[:, :_LOW, :_LOW].reshape(count, -1)[:, 1:]
    seen = thumbnails.reshape(count, -1).std(axis=1) >= _FLAT
    unit = np.where(seen[:, None], spectrum / np.maximum(np.linalg.norm(spectrum, axis=1, keepdims=True), 1e-6), 0)
    pairs = []
    for start in range(0, count, _BLOCK):
        agreement = unit[start : start + _BLOCK] @ unit.T
        rows = np.arange(start, start + len(agreement))
        agreement[np.arange(len(rows)), rows] = -1
        best = np.argpartition(-agreement, each - 1, axis=1)[:, :each]
        positive = np.take_along_axis(agreement, best, axis=1) > 0
        pairs.append(np.stack([np.repeat(rows, each), best.ravel()], axis=1)[positive.ravel()])
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


# --- a quick look at pairs, many at a time ------------------------------------------------------------------


def _coarse(small: Grey, pairs: Pairs) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the highest correlation of the pairs' details at low resolution, and at which of _STEPS it is."""
    scales = {scale for step, _ in _STEPS for scale in step}
    first, second = (
        {scale: rfft2(_windowed(_enlarged_all(small[rows], scale))) for scale in scales} for rows in pairs.T
    )
    found = np.empty((len(_STEPS), len(pairs)), np.float32)
    for number, ((ours, theirs), _) in enumerate(_STEPS):
        correlation = irfft2(first[ours] * second[theirs].conj(), s=(_COARSE, _COARSE))
        found[number] = correlation.reshape(len(pairs), -1).max(axis=1)
    return found.max(axis=0), found.argmax(axis=0)


def _windowed(images: Grey) -> Grey:
    """Return the details of images (N, S, S), faded out at the border, each with mean zero and norm one."""
    window = np.hanning(images.shape[1] + 2)[1:-1].astype(np.float32)
    detail = (images - gaussian_filter(images, _COARSE_DETAIL, axes=(1, 2))) * np.outer(window, window)
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    norm = np.linalg.norm(detail.reshape(len(detail), -1), axis=1)
    return np.asarray(detail / np.maximum(norm, 1e-3)[:, None, None], dtype=np.float32)


def _enlarged_all(images: Grey, scale: float) -> Grey:
    """Enlarge the middle of images (N, S, S); they keep their size."""
    side = images.shape[1]
    place = (np.arange(side) + 0.5 - side / 2) / scale + side / 2 - 0.5
    low = np.clip(np.floor(place).astype(int), 0, side - 2)
    share = np.clip(place - low, 0, 1).astype(np.float32)
    matrix = np.zeros((side, side), np.float32)
    matrix[np.arange(side), low] = 1 - share
    matrix[np.arange(side), low + 1] += share
    return np.asarray(matrix @ images @ matrix.T, dtype=np.float32)


# --- the decision about one pair ----------------------------------------------------------------------------


def _similarity(first: Grey, second: Grey, scales: tuple[tuple[float, float], ...]) -> float:
    """Return the highest correlation of two images' details (SIDE, SIDE) over offsets and these scales, in [-1, 1]."""
    return max(_aligned(_detail(_enlarged(first, ours)), _detail(_enlarged(second, theirs))) for ours, theirs in scales)


def _aligned(first: Grey, second: Grey) -> float:
    """Return the correlation of two details at the offset, of at most SHIFT pixels, at which they agree best."""
    correlation = irfft2(rfft2(first * _WINDOW) * rfft2(second * _WINDOW).conj(), s=(SIDE, SIDE))
    near = np.roll(correlation, (SHIFT, SHIFT), axis=(0, 1))[: 2 * SHIFT + 1, : 2 * SHIFT + 1]
    down, right = divmod(int(near.argmax()), 2 * SHIFT + 1)
    return _correlation(first, second, down - SHIFT, right - SHIFT)


def _detail(image: Grey) -> Grey:
    """Return the fine structure of an image, equally strong everywhere.

    Otherwise the outline of a lone round cell outweighs everything, and any two such cells would be near duplicates.
    """
    fine, coarse = (gaussian_filter(image, width) for width in _DETAIL)
    detail = fine - coarse
    return np.asarray(detail / np.sqrt(gaussian_filter(detail * detail, _AROUND) + _FAINT**2), dtype=np.float32)


def _enlarged(image: Grey, scale: float) -> Grey:
    if scale == 1:
        return image
    half = SIDE / 2 / scale
    box = (SIDE / 2 - half, SIDE / 2 - half, SIDE / 2 + half, SIDE / 2 + half)
    drawn = Image.fromarray(image).transform((SIDE, SIDE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    return np.asarray(drawn, dtype=np.float32)


def _correlation(first: Grey, second: Grey, down: int, right: int) -> float:
    """Return the correlation where `second` lies on `first` when it is moved down and right."""
    rows = slice(max(0, down), min(SIDE, SIDE + down))
    columns = slice(max(0, right), min(SIDE, SIDE + right))
    ours = first[rows, columns]
    theirs = second[rows.start - down : rows.stop - down, columns.start - right : columns.stop - right]
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    norm = float(np.sqrt((ours * ours).sum() * (theirs * theirs).sum()))
    return float((ours * theirs).sum()) / norm if norm > 1e-3 else -1.0


# --- grey images --------------------------------------------------------------------------------------------


def _greys(images: Images, rows: NDArray[np.int64], side: int) -> Grey:
    result = np.empty((len(rows), side, side), np.float32)
    for place, row in enumerate(rows.tolist()):
        result[place] = _grey(images[row], side)
    return result


def _grey(image: Images, side: int) -> Grey:
    """Return the grey values (side, side), 0 to 255, of an image (S, S, channels)."""
    full = 65535 if image.dtype == np.uint16 else 255
    grey = image.mean(axis=2, dtype=np.float32) * np.float32(255 / full)
    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
