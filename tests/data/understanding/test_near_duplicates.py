"""Near duplicates among textures, and among rendered cells of one kind, which look alike without being copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from harness.data.sources import rendered_cells
from harness.data.traits import thumbnail_of, traits_of
from harness.data.understanding.near_duplicates import clusters, near_duplicates

Picture = NDArray[np.uint8]


def texture(seed: int, side: int = 96) -> Picture:
    """Blobs on a background with fine grain, as in a photograph."""
    random = np.random.default_rng(seed)
    coarse = gaussian_filter(random.normal(size=(side, side)), 9) * 500
    fine = gaussian_filter(random.normal(size=(side, side)), 1.2) * 60
    tint = random.uniform(0.7, 1, 3)
    return np.clip((128 + coarse + fine)[..., None] * tint, 0, 255).astype(np.uint8)


def cut(picture: Picture, share: float, random: np.random.Generator) -> Picture:
    side = int(len(picture) * share**0.5)
    top, left = random.integers(0, len(picture) - side + 1, 2)
    return picture[top : top + side, left : left + side]


def shifted(picture: Picture, share: float) -> Picture:
    step = int(len(picture) * share)
    return np.pad(picture, ((step, 0), (0, step), (0, 0)), mode="reflect")[: len(picture), -len(picture) :]


def compressed(picture: Picture, quality: int) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def brightened(picture: Picture, factor: float) -> Picture:
    return np.clip(picture * factor, 0, 255).astype(np.uint8)


def resized(picture: Picture, factor: float) -> Picture:
    side = int(len(picture) * factor)
    return np.asarray(Image.fromarray(picture).resize((side, side)))


def found(pictures: list[Picture], size: int = 64) -> set[tuple[int, int]]:
    thumbnails = np.stack([thumbnail_of(traits_of(picture, None)) for picture in pictures])
    images = np.stack(
        [np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)) for picture in pictures]
    )
    pairs = near_duplicates(thumbnails, images, np.arange(len(pictures)))
    return {(pair.first, pair.second) for pair in pairs}


CHANGES: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "cut to 90 %": lambda picture, random: cut(picture, 0.9, random),
    "cut to 80 %": lambda picture, random: cut(picture, 0.8, random),
    "shifted by 3 %": lambda picture, random: shifted(picture, 0.03),
    "shifted by 6 %": lambda picture, random: shifted(picture, 0.06),
    "recompressed": lambda picture, random: compressed(picture, 50),
    "brighter": lambda picture, random: brightened(picture, 1.2),
    "darker": lambda picture, random: brightened(picture, 0.7),
    "half the size": lambda picture, random: resized(picture, 0.5),
    "grey": lambda picture, random: np.asarray(Image.fromarray(picture).convert("L").convert("RGB")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(change: str) -> None:
    random = np.random.default_rng(1)
    pictures = [texture(seed) for seed in range(40)]
    copies = [CHANGES[change](picture, random) for picture in pictures[:20]]
    pairs = found(pictures + copies)
    true = {(number, 40 + number) for number in range(20)}
    assert len(pairs & true) >= 19, sorted(true - pairs)
    assert pairs <= true


def test_the_order_of_the_two_images_does_not_matter() -> None:
    random = np.random.default_rng(2)
    pictures = [texture(seed) for seed in range(12)]
    copies = [cut(picture, 0.8, random) for picture in pictures]
    assert found(copies + pictures) == {(number, 12 + number) for number in range(12)}


def test_different_cells_of_one_kind_are_no_near_duplicates() -> None:
    cells = rendered_cells.render(0, slides=12)
    pictures = list(cells.images)
    assert found(pictures) == set()
    copies = [compressed(picture, 60) for picture in pictures[:15]]
    assert found(pictures + copies) == {(number, len(pictures) + number) for number in range(15)}


def test_blank_images_and_a_single_image_are_no_pairs() -> None:
    blank = [np.full((40, 40, 3), value, np.uint8) for value in (0, 3, 128, 255)]
    assert found(blank) == set()
    assert found([texture(0)]) == set()


def test_images_of_16_bits_and_other_sizes_are_compared_alike() -> None:
    pictures = [texture(seed) for seed in range(8)]
    copies = [brightened(picture, 0.8) for picture in pictures[:4]]
    thumbnails = np.stack([thumbnail_of(traits_of(picture, None)) for picture in pictures + copies])
    images = np.stack([np.asarray(Image.fromarray(p).resize((48, 48))) for p in pictures + copies])
    deep = images.astype(np.uint16) * np.uint16(257)
    pairs = near_duplicates(thumbnails, deep, np.arange(12))
    assert {(pair.first, pair.second) for pair in pairs} == {(number, 8 + number) for number in range(4)}
    assert pairs == near_duplicates(thumbnails, images, np.arange(12))


def test_only_the_given_rows_are_compared_and_progress_is_told() -> None:
    pictures = [texture(0), brightened(texture(0), 0.9), texture(1)]
    thumbnails = np.stack([thumbnail_of(traits_of(picture, None)) for picture in pictures])
    images = np.stack(pictures)
    told: list[tuple[int, int]] = []
    pairs = near_duplicates(thumbnails, images, np.array([0, 1, 2]), lambda done, of: told.append((done, of)))
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1)]
    assert told[-1][0] == told[-1][1] > 0
    assert near_duplicates(thumbnails, images, np.array([0, 2])) == []


def test_pairs_become_clusters() -> None:
    pictures = [texture(0), texture(1), brightened(texture(0), 0.9), brightened(texture(0), 0.8)]
    thumbnails = np.stack([thumbnail_of(traits_of(picture, None)) for picture in pictures])
    pairs = near_duplicates(thumbnails, np.stack(pictures), np.arange(4))
    numbers = clusters(pairs, 4)
    assert numbers[0] == numbers[2] == numbers[3] != numbers[1]
    assert len(set(clusters([], 3).tolist())) == 3
