"""Channels as pages, planes, axes and samples: none is left out in silence."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from image_files import as_tiff, read
from numpy.typing import NDArray
from PIL import Image

from harness.config.data import DataConfig
from harness.data.decoding.decode import fit
from harness.data.decoding.rules import ReadingRules, rules_of
from harness.errors import DataError

RANDOM = np.random.default_rng(2)


def mixture(channels: Any) -> Any:
    return rules_of(DataConfig.model_validate({"channels": channels})).channels


def files(planes: NDArray[Any]) -> dict[str, bytes]:
    """The same channels (channels, height, width) in all layouts that are in use."""
    count = len(planes)
    last = np.moveaxis(planes, 0, -1)
    found = {
        "ImageJ": as_tiff(planes[None, None], imagej=True, metadata={"axes": "TZCYX"}),
        "ImageJ composite": as_tiff(planes, imagej=True, metadata={"axes": "CYX", "mode": "composite"}),
        "OME": as_tiff(planes, ome=True, photometric="minisblack", metadata={"axes": "CYX"}),
        "OME, packed": as_tiff(
            planes, ome=True, photometric="minisblack", metadata={"axes": "CYX"}, compression="zlib"
        ),
        "named axes": as_tiff(planes, photometric="minisblack", metadata={"axes": "CYX"}),
    }
    if count > 1:
        found["interleaved"] = as_tiff(last, photometric="minisblack", planarconfig="contig", metadata=None)
        found["planes"] = as_tiff(planes, photometric="minisblack", planarconfig="separate", metadata=None)
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_three_declared_channels_are_red_green_and_blue_in_order(dtype: type) -> None:
    planes = RANDOM.integers(0, 250, (3, 9, 14), dtype=dtype)
    for name, data in files(planes).items():
        pixels, facts = read(data)
        assert (pixels == np.moveaxis(planes, 0, -1)).all(), name
        assert facts.channels == 3 and facts.frames == 1
        assert facts.converted == ("three channels as red, green and blue",), name


@pytest.mark.parametrize("count", [2, 4, 5])
def test_another_number_of_channels_is_refused_with_it_and_the_three_ways(count: int) -> None:
    planes = RANDOM.integers(0, 250, (count, 9, 14), dtype=np.uint16)
    for name, data in files(planes).items():
        with pytest.raises(DataError) as error:
            read(data)
        for word in (f"has {count} channels", "channels: [0, 1", "channels: {red", "channels: all"):
            assert word in str(error.value), name


@pytest.mark.parametrize("count", [2, 5, 16])
def test_channels_are_picked_mixed_and_read_as_they_are(count: int) -> None:
    planes = RANDOM.integers(0, 60000, (count, 9, 14), dtype=np.uint16)
    for name, data in files(planes).items():
        picked, facts = read(data, channels=mixture([1, 0, 1]))
        assert (picked == np.stack([planes[1], planes[0], planes[1]], -1)).all() and facts.channels == count, name
        mixed, _ = read(data, channels=mixture({"red": 0, "green": [0, 1]}))
        mean = (planes[0].astype(float) + planes[1]) / 2
        assert np.abs(mixed - np.dstack([planes[0], mean, 0 * mean])).max() <= 0.51, name
        whole, _ = read(data, channels="all")
        assert (whole == np.moveaxis(planes, 0, -1)).all(), name


def test_a_plain_stack_is_channels_if_the_study_says_so_and_a_stack_otherwise() -> None:
    planes = RANDOM.integers(0, 250, (4, 9, 14), dtype=np.uint8)
    for data in (
        as_tiff(planes, photometric="minisblack"),
        as_tiff(planes, photometric="minisblack", metadata=None, compression="zlib"),
    ):
        assert (read(data, channels="all")[0] == np.moveaxis(planes, 0, -1)).all()
        assert (read(data, channels=mixture([3, 1, 0]))[0] == np.moveaxis(planes[[3, 1, 0]], 0, -1)).all()
        pixels, facts = read(data)
        assert (pixels[..., 0] == planes[0]).all() and facts.frames == 4
        assert facts.converted == ("first frame of several",)


def test_a_channel_that_is_not_there_is_refused_with_the_number_there_is() -> None:
    grey = as_tiff(np.zeros((4, 4), np.uint8))
    five = as_tiff(np.zeros((5, 4, 4), np.uint8), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(DataError, match=r"has 1 channel \(0\), but data.channels names channel 1, 2"):
        read(grey, channels=mixture([2, 0, 1]))
    with pytest.raises(DataError, match=r"has 5 channels \(0 to 4\), but data.channels names channel 5"):
        read(five, channels=mixture({"blue": [0, 5]}))
    with pytest.raises(DataError, match=r"has 17 channels, but at most 16"):
        read(as_tiff(np.zeros((17, 4, 4), np.uint8), imagej=True, metadata={"axes": "CYX"}), channels="all")


def test_channels_of_common_kinds_of_files_are_their_colours() -> None:
    rgb = RANDOM.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    assert (read(stream.getvalue(), channels=mixture([2, 1, 0]))[0] == rgb[..., ::-1]).all()
    assert (read(stream.getvalue(), channels="all")[0] == rgb).all()
    half = np.rint((rgb[..., 0].astype(float) + rgb[..., 1]) / 2)
    assert np.abs(read(stream.getvalue(), channels=mixture({"green": [0, 1]}))[0][..., 1] - half).max() <= 0.5
    stream = io.BytesIO()
    Image.fromarray(rgb[..., 0]).save(stream, "PNG")
    pixels, facts = read(stream.getvalue(), channels="all")
    assert (pixels == rgb[..., :1]).all() and facts.channels == 1


def test_picked_colours_show_the_background_in_their_own_place() -> None:
    samples = np.zeros((2, 2, 4), np.uint8)
    samples[0, 0] = (10, 20, 30, 255)
    stream = io.BytesIO()
    Image.fromarray(samples).save(stream, "PNG")
    pixels, _ = read(stream.getvalue(), channels=mixture([2, 1, 0]), background=(1, 2, 3))
    assert pixels[0, 0].tolist() == [30, 20, 10] and pixels[1, 1].tolist() == [1, 2, 3]


def test_a_sixteenth_of_the_largest_image_may_have_sixteen_channels() -> None:
    planes = np.zeros((5, 200, 200), np.uint8)
    data = as_tiff(planes, imagej=True, metadata={"axes": "CYX"})
    assert read(data, channels="all", max_megapixels=0.05)[0].shape == (200, 200, 5)
    with pytest.raises(DataError, match=r"200 x 200 pixels of 5 channels.*max_megapixels"):
        read(data, channels="all", max_megapixels=0.045)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_number_of_channels_is_resized_channel_by_channel(channels: int, dtype: type) -> None:
    full = np.iinfo(dtype).max
    pixels = RANDOM.integers(0, full + 1, (20, 40, channels), dtype=dtype)
    for resize in ("stretch", "crop", "pad"):
        whole = fit(pixels, 16, resize, (30, 60, 90))  # type: ignore[arg-type]
        assert whole.shape == (16, 16, channels) and whole.dtype == dtype
        for channel in range(channels):
            alone = fit(np.ascontiguousarray(pixels[..., [channel] * 3]), 16, resize, (60, 60, 60))  # type: ignore[arg-type]
            inside = slice(4, 12) if resize == "pad" else slice(None)
            assert (whole[inside, :, channel] == alone[inside, :, 0]).all()
    padded = fit(pixels, 16, "pad", (30, 60, 90))[0, 0].astype(float) * 255 / full
    assert np.abs(padded - (np.array([30, 60, 90]) if channels == 3 else 60)).max() < 0.5


def test_every_rule_is_in_the_key_of_what_is_stored() -> None:
    changes: dict[str, Any] = {
        "channels": mixture([2, 0, 1]),
        "frames": "max",
        "bit_depth": 12,
        "background": (0, 0, 0),
        "max_megapixels": 60,
        "not_finite": "background",
        "value_range": (0.0, 4095.0),
    }
    assert set(changes) == set(ReadingRules.__dataclass_fields__)
    keys = {ReadingRules(**{name: value}).cache_key() for name, value in changes.items()}
    assert len(keys | {ReadingRules().cache_key()}) == len(changes) + 1
