from __future__ import annotations

import numpy as np
import pytest

from harness.data.sources.rendered_cells import CLASSES, PER_SLIDE, RenderedCells, render


@pytest.fixture(scope="module")
def few() -> RenderedCells:
    return render(5, slides=6)


def test_the_same_seed_gives_the_same_bytes(few: RenderedCells) -> None:
    again = render(5, slides=6)
    assert again.images.tobytes() == few.images.tobytes()
    assert (again.labels == few.labels).all()


def test_another_seed_gives_other_images(few: RenderedCells) -> None:
    assert (render(6, slides=1).images != few.images[:PER_SLIDE]).mean() > 0.5


def test_fewer_slides_are_the_first_ones_of_more(few: RenderedCells) -> None:
    assert render(5, slides=2).images.tobytes() == few.images[: 2 * PER_SLIDE].tobytes()


def test_every_slide_holds_each_phenotype_twice_in_its_own_order(few: RenderedCells) -> None:
    assert few.images.shape == (6 * PER_SLIDE, 64, 64, 3) and few.images.dtype == np.uint8
    orders = few.labels.reshape(6, PER_SLIDE)
    assert (np.sort(orders, axis=1) == np.repeat(np.arange(len(CLASSES)), 2)).all()
    assert len({tuple(order) for order in orders}) > 1
    assert (few.slides == np.repeat(np.arange(6), PER_SLIDE)).all()


def test_no_two_images_are_equal_and_none_is_blank(few: RenderedCells) -> None:
    assert len({image.tobytes() for image in few.images}) == len(few.images)
    assert few.images.reshape(len(few.images), -1).std(axis=1).min() > 4


def test_slides_differ_more_in_colour_than_the_images_of_one_slide(few: RenderedCells) -> None:
    """What makes a split by image too easy: the slide can be told from the light of its background."""
    light = np.percentile(few.images.reshape(6, PER_SLIDE, -1, 3), 90, axis=2)
    assert light.mean(axis=1).std(axis=0).mean() > 2 * light.std(axis=1).mean(axis=0).mean()


def test_condensed_chromatin_is_darker_than_resting_chromatin() -> None:
    cells = render(7, slides=20)
    middle = cells.images[:, 16:48, 16:48].astype(float).mean(axis=3).reshape(len(cells.images), -1)
    darkest = np.percentile(middle, 2, axis=1) / np.percentile(middle, 95, axis=1)
    mean = {name: darkest[cells.labels == label].mean() for label, name in enumerate(CLASSES)}
    assert mean["metaphase"] < mean["interphase"] and mean["apoptotic"] < mean["interphase"]
