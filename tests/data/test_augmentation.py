from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data import augmentation

KEYS = np.arange(1, 41, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
IMAGES = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
RECIPES = ("none", "flips", "microscopy", "natural")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_view_depends_on_its_key_alone(recipe: str) -> None:
    whole = augmentation.draw(recipe, 3, 2, KEYS)  # type: ignore[arg-type]
    part = augmentation.draw(recipe, 3, 2, KEYS[::-1][:7])  # type: ignore[arg-type]
    assert np.array_equal(whole[::-1][:7], part)


@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_seed_epoch_image_and_occurrence_each_change_the_view(recipe: str) -> None:
    base = augmentation.draw(recipe, 3, 2, KEYS)  # type: ignore[arg-type]
    for other in (
        augmentation.draw(recipe, 4, 2, KEYS),  # type: ignore[arg-type]
        augmentation.draw(recipe, 3, 3, KEYS),  # type: ignore[arg-type]
        augmentation.draw(recipe, 3, 2, KEYS, 1),  # type: ignore[arg-type]
        np.roll(base, 1, axis=0),
    ):
        assert (base != other).any(axis=1).mean() > 0.5


def test_flips_draw_the_eight_symmetries_evenly() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 80_000).astype(np.uint64)
    counts = np.bincount(augmentation.draw("flips", 0, 1, keys)[:, 0].astype(int), minlength=8)
    assert len(counts) == 8
    assert abs(counts / 10_000 - 1).max() < 0.05


def test_the_eight_symmetries_differ_and_change_no_pixel() -> None:
    turned = [augmentation.dihedral(IMAGES[:1], code) for code in range(8)]
    for i, one in enumerate(turned):
        assert torch.equal(one.flatten().sort().values, IMAGES[:1].flatten().sort().values)
        assert all(not torch.equal(one, other) for other in turned[:i])


def test_no_augmentation_returns_the_image() -> None:
    assert torch.equal(augmentation.apply("none", IMAGES, augmentation.draw("none", 0, 1, KEYS)), IMAGES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_views_stay_images(recipe: str) -> None:
    shown = augmentation.apply(recipe, IMAGES, augmentation.draw(recipe, 0, 1, KEYS))  # type: ignore[arg-type]
    assert shown.shape == IMAGES.shape
    assert shown.dtype == torch.float32
    assert float(shown.min()) >= 0 and float(shown.max()) <= 1


def test_a_view_does_not_depend_on_the_batch_it_is_rendered_in() -> None:
    for recipe in RECIPES:
        drawn = augmentation.draw(recipe, 0, 1, KEYS)  # type: ignore[arg-type]
        whole = augmentation.apply(recipe, IMAGES, drawn)  # type: ignore[arg-type]
        part = augmentation.apply(recipe, IMAGES[5:9], drawn[5:9])  # type: ignore[arg-type]
        assert torch.equal(whole[5:9], part)
