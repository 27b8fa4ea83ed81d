"""Images of N channels: in arrays, augmented, shifted, and as a composite for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from channel_images import listing_of, pixels_of
from PIL import Image

from harness.config.data import DataConfig
from harness.config.parameters import Augmentation
from harness.config.trial import Shift
from harness.data import augmentation
from harness.data.augmentation import image_keys
from harness.data.composite import PALETTE, caption, composite
from harness.data.corruptions import check_shifts, shifted
from harness.data.dataset import Dataset, arrays, open_dataset
from harness.data.decoding import decode
from harness.data.understanding.sheet_images import strips_of
from harness.errors import ConfigError, DataError

ALL = DataConfig(channels="all")
KEYS = image_keys(["aa" * 32, "bb" * 32, "cc" * 32])


def opened(images: list[Any], cache: Path, patch: pytest.MonkeyPatch, config: DataConfig = ALL) -> Dataset:
    patch.setattr("harness.data.scan.list_source", lambda config, *, cache: listing_of(images))
    return open_dataset(config, cache=cache)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint16), (5, np.uint8), (16, np.uint16)])
def test_an_array_holds_every_channel(channels: int, dtype: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [pixels_of(number, channels, dtype) for number in range(9)]
    dataset = opened(images, cache, monkeypatch)
    assert dataset.channels == channels
    stored = np.load(arrays(dataset, ALL, 32, cache=cache))
    assert stored.dtype == dtype
    assert np.array_equal(stored, np.stack(images))
    assert np.load(arrays(dataset, ALL, 24, cache=cache)).shape == (9, 24, 24, channels)
    plural = "s" if channels > 1 else ""
    assert dataset.card["kinds"] == {f"{np.dtype(dtype).itemsize * 8}-bit image of {channels} channel{plural}": 9}


def test_padding_is_the_mean_of_the_background_s_colours() -> None:
    padded = decode.fit(np.full((8, 16, 5), 7, np.uint8), 16, "pad", (30, 60, 90))
    assert padded[:4].tolist() == np.full((4, 16, 5), 60).tolist()
    assert decode.fit(np.full((8, 16, 3), 7, np.uint8), 16, "pad", (30, 60, 90))[0, 0].tolist() == [30, 60, 90]


def test_all_channels_have_an_array_of_their_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened([pixels_of(number, 3) for number in range(9)], cache, monkeypatch)
    assert arrays(dataset, ALL, 32, cache=cache) != arrays(dataset, DataConfig(), 32, cache=cache)


def test_different_numbers_of_channels_are_refused_with_examples(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [pixels_of(number, 2 if number == 7 else 5) for number in range(12)]
    with pytest.raises(DataError) as caught:
        opened(images, cache, monkeypatch)
    assert "1 image of 2 channels, such as slide00_007" in str(caught.value)
    assert "11 images of 5 channels, such as slide00_000" in str(caught.value)
    assert "choose the same three channels" in str(caught.value)
    with pytest.raises(DataError, match=r"leave data[.]channels out, so that grey images are read as RGB"):
        opened([pixels_of(number, 1 if number % 2 else 3) for number in range(12)], cache, monkeypatch)


def test_without_all_grey_files_and_rgb_files_have_three_channels_together(cells: Path, cache: Path) -> None:
    for name in ("blast", "resting"):
        grey = np.random.default_rng(len(name)).integers(0, 256, (10, 12), dtype=np.uint8)
        Image.fromarray(grey).save(cells / name / "grey.png")
    config = DataConfig(source={"folder": str(cells)})  # type: ignore[arg-type]
    dataset = open_dataset(config, cache=cache)
    assert dataset.channels == 3
    assert np.load(arrays(dataset, config, 16, cache=cache)).shape == (26, 16, 16, 3)


def test_more_than_sixteen_channels_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="at most 16 channels, but these have 17"):
        opened([pixels_of(number, 17) for number in range(9)], cache, monkeypatch)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_each_channel_is_resized_as_a_grey_image(resize: Any, dtype: Any) -> None:
    stack = pixels_of(3, 5, dtype)[:, :20]
    small = decode.fit(stack, 16, resize, (0, 0, 0))
    for channel in range(5):
        grey = np.ascontiguousarray(np.broadcast_to(stack[:, :, channel : channel + 1], (*stack.shape[:2], 3)))
        assert np.array_equal(small[:, :, channel], decode.fit(grey, 16, resize, (0, 0, 0))[:, :, 0])


@pytest.mark.parametrize("recipe", get_args(Augmentation))
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_view_has_the_image_s_channels_and_depends_on_its_key_alone(channels: int, recipe: Augmentation) -> None:
    images = torch.rand(3, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn = augmentation.draw(recipe, 0, 1, KEYS, 0, channels)
    shown = augmentation.apply(recipe, images, drawn)
    assert shown.shape == images.shape
    assert float(shown.min()) >= 0 and float(shown.max()) <= 1
    alone = augmentation.draw(recipe, 0, 1, KEYS[1:2], 0, channels)
    assert torch.equal(augmentation.apply(recipe, images[1:2], alone), shown[1:2])


def test_microscopy_varies_the_light_of_each_fluorescence_channel_and_leaves_black_black() -> None:
    flat = torch.full((3, 5, 8, 8), 0.5)
    flat[:, 2] = 0.0
    shown = augmentation.apply("microscopy", flat, augmentation.draw("microscopy", 0, 1, KEYS, 0, 5))
    factors = shown[:, :, 0, 0] / 0.5
    assert torch.equal(factors[:, 2], torch.zeros(3))
    lit = factors[:, [0, 1, 3, 4]]
    assert ((lit > 0.8 * 0.9 - 1e-6) & (lit < 1.2 * 1.1 + 1e-6)).all()
    assert all(len(set(row.tolist())) == 4 for row in lit)


def test_three_channels_draw_what_they_always_drew() -> None:
    drawn = augmentation.draw("microscopy", 3, 2, KEYS)
    assert drawn.shape == (3, 5)
    assert np.array_equal(augmentation.draw("microscopy", 3, 2, KEYS, 0, 9)[:, :5], drawn)


@pytest.mark.parametrize("shift", sorted({*get_args(Shift)} - {"stain"}))
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_shift_changes_every_channel(channels: int, shift: Shift) -> None:
    smooth = torch.nn.functional.interpolate(
        torch.rand(3, channels, 6, 6, generator=torch.Generator().manual_seed(0)), 32
    )
    before = smooth * 0.6 + 0.2
    check_shifts([shift], channels)
    after = shifted(shift, before.clone(), KEYS)
    assert after.shape == before.shape
    assert ((after - before).abs().mean(dim=(2, 3)) > 0.001).all()
    assert np.corrcoef(before.flatten().numpy(), after.flatten().numpy())[0, 1] > 0.8


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_stain_is_refused_by_name_without_three_channels(channels: int) -> None:
    check_shifts(["blur", "stain"], 3)
    with pytest.raises(ConfigError, match=f"stain needs images of three channels.*have {channels}"):
        check_shifts(["blur", "stain"], channels)


def test_a_composite_shows_each_channel_in_its_own_colour() -> None:
    assert len({colour for _, colour in PALETTE}) == len({name for name, _ in PALETTE}) == 16
    for channel in range(5):
        stack = np.zeros((2, 4, 4, 5), np.uint16)
        stack[..., channel] = 40_000
        shown = composite(stack)
        assert shown.shape == (2, 4, 4, 3) and shown.dtype == np.uint8
        assert shown[0, 0, 0].tolist() == [round(share * (40_000 >> 8)) for share in PALETTE[channel][1]]
    assert composite(np.full((4, 4, 5), 255, np.uint8)).tolist() == np.full((4, 4, 3), 255).tolist()


@pytest.mark.parametrize("recipe", ["microscopy", "flips"])
def test_the_contact_sheet_shows_composites_of_images_and_views(
    recipe: Augmentation, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = opened([pixels_of(number, 5, np.uint16) for number in range(9)], cache, monkeypatch)
    images = np.load(arrays(dataset, ALL, 32, cache=cache))
    shown, view, name = strips_of(dataset, images, recipe, 0)[0].images[0]
    assert name == "slide00_000"
    assert np.abs(shown.astype(int) - composite(images[0])).max() <= 3  # rounded before the colours are added
    assert view.shape == (32, 32, 3) and view.dtype == np.uint8


def test_three_channels_are_shown_as_they_are_and_one_in_grey() -> None:
    colours, deep = pixels_of(0, 3), pixels_of(0, 3, np.uint16)
    assert np.array_equal(composite(colours), colours)
    assert np.array_equal(composite(deep), deep >> 8)
    grey = pixels_of(0, 1)
    assert np.array_equal(composite(grey), np.repeat(grey, 3, axis=2))


def test_a_caption_says_what_is_shown() -> None:
    assert caption(3) == ""
    assert "grey" in caption(1)
    assert caption(2) == "Images are composites of 2 channels: 0 blue, 1 green."
    assert caption(5).startswith("Images are composites of 5 channels: 0 blue, 1 green, 2 red, ")
