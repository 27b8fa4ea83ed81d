"""The range of values really used: facts, warnings, and the ways out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from image_files import as_tiff, raw_tiff, read
from PIL import Image

from harness.data.decoding.decode import Facts
from harness.data.understanding.dark_images import warnings_of
from harness.errors import DataError

RANDOM = np.random.default_rng(4)


def facts_of(high: float, bits: int = 16, kind: str = "unsigned", low: float = 0) -> Facts:
    return Facts(8, 8, "", bits=bits, sample_type=kind, low=low, high=high)  # type: ignore[arg-type]


def test_facts_name_the_range_that_is_used_without_alpha() -> None:
    samples = np.zeros((4, 4, 2), np.uint16)
    samples[..., 0], samples[..., 1] = 300, 65535
    samples[0, 0] = (900, 7)
    facts = read(as_tiff(samples, photometric="minisblack", extrasamples=["unassalpha"]))[1]
    assert (facts.low, facts.high, facts.bits, facts.sample_type) == (300, 900, 16, "unsigned")
    stream = io.BytesIO()
    Image.fromarray(np.array([[[3, 9, 200]]], np.uint8)).save(stream, "PNG")
    facts = read(stream.getvalue())[1]
    assert (facts.low, facts.high, facts.bits) == (3, 200, 8)
    facts = read(as_tiff(np.array([[0.25, 0.5]], np.float32)))[1]
    assert (facts.low, facts.high, facts.bits, facts.sample_type) == (0.25, 0.5, 32, "float")


def test_used_scales_by_the_given_range_and_clips_beyond_it() -> None:
    for samples in (np.array([[50, 100, 300, 500, 900]], np.uint16), np.array([[-1, 100, 300, 500, 1e9]], np.float32)):
        data = as_tiff(samples)
        pixels, _ = read(data, bit_depth="used", value_range=(100.0, 500.0))
        assert np.abs(pixels[0, :, 0] / 65535 - [0, 0, 0.5, 1, 1]).max() < 1e-4
    own, _ = read(as_tiff(np.array([[100, 300, 500]], np.uint16)), bit_depth="used")
    assert np.abs(own[0, :, 0] / 65535 - [0, 0.5, 1]).max() < 1e-4


def test_used_leaves_8_bit_images_alone() -> None:
    samples = RANDOM.integers(0, 40, (5, 6), dtype=np.uint8)
    assert (read(as_tiff(samples), bit_depth="used", value_range=(0.0, 4095.0))[0][..., 0] == samples).all()
    packed = raw_tiff(samples[..., None] % 16, 4)
    assert (read(packed, bit_depth="used", value_range=(0.0, 4095.0))[0][..., 0] == samples % 16 * 17).all()


def test_values_that_are_not_finite_are_refused_with_two_ways_out_or_show_the_background() -> None:
    samples = np.array([[0.0, 0.5, np.nan, np.inf, 1.0]], np.float32)
    data = as_tiff(samples)
    with pytest.raises(
        DataError, match=r"not finite \(1 NaN and 1 infinite of 5\).*not_finite: background.*nan_to_num"
    ):
        read(data)
    pixels, facts = read(data, not_finite="background", background=(255, 0, 51))
    assert pixels[0, 2].tolist() == pixels[0, 3].tolist() == [65535, 0, 13107]
    assert pixels[0, [0, 1, 4], 0].tolist() == [0, 32768, 65535] and (facts.low, facts.high) == (0, 1)
    assert any("not finite" in text for text in facts.converted)
    stretched, _ = read(as_tiff(samples * 400 + 100), not_finite="background", bit_depth="minmax", background=(0, 0, 0))
    assert np.abs(stretched[0, :, 1] / 65535 - [0, 0.5, 0, 0, 1]).max() < 1e-4
    with pytest.raises(DataError, match="no finite value"):
        read(as_tiff(np.full((2, 2), np.nan, np.float32)), not_finite="background")


def test_values_that_are_not_finite_in_one_plane_or_channel_hide_only_that_place() -> None:
    stack = np.array([[[0.2, np.nan]], [[0.4, 0.6]]], np.float32)
    data = as_tiff(stack, imagej=True, metadata={"axes": "ZYX"})
    largest, _ = read(data, frames="max", not_finite="background", background=(0, 0, 0))
    assert np.abs(largest[0, :, 0] / 65535 - [0.4, 0.6]).max() < 1e-4
    colours = np.array([[[0.1, 0.2, np.inf], [0.1, 0.2, 0.3]]], np.float32)
    pixels, _ = read(as_tiff(colours, photometric="rgb"), not_finite="background", background=(0, 255, 0))
    assert pixels[0, 0].tolist() == [0, 65535, 0] and np.abs(pixels[0, 1] / 65535 - [0.1, 0.2, 0.3]).max() < 1e-4


@pytest.mark.parametrize(("high", "depth"), [(4095, 12), (3000, 12), (255, 8), (1023, 10), (4096, 14), (16383, 14)])
def test_a_used_range_far_below_the_scale_is_warned_of_with_the_value_to_set(high: int, depth: int) -> None:
    [text] = warnings_of([facts_of(high / 2), facts_of(high)])
    assert f"above {high} of 65535" in text and f"bit_depth: {depth}" in text and "2 images" in text


def test_what_fills_its_scale_is_not_warned_of() -> None:
    assert warnings_of([]) == []
    assert warnings_of([facts_of(4095), facts_of(17000)]) == []
    assert warnings_of([facts_of(200, bits=8), facts_of(2000, bits=12), facts_of(0.9, 32, "float")]) == []
    assert warnings_of([facts_of(4095)], bit_depth=12) == [] and warnings_of([facts_of(4095)], "used") == []


def test_other_kinds_have_their_own_warning() -> None:
    [packed, floats, eight] = sorted(
        warnings_of([facts_of(1000, bits=12), facts_of(0.01, 32, "float"), facts_of(2, bits=8)]), key=len, reverse=True
    )
    texts = " ".join((packed, floats, eight))
    assert "above 1000 of 4095" in texts and "bit_depth: 10" in texts
    assert "above 0.01 of 1" in texts and "bit_depth: used" in texts
    assert "above 2 of 255" in texts and "masks" in texts


def test_images_of_a_12_bit_camera_are_warned_of_from_their_files() -> None:
    facts = [read(as_tiff(RANDOM.integers(0, 4096, (40, 40)).astype(np.uint16)))[1] for _ in range(3)]
    [text] = warnings_of(facts)
    assert "bit_depth: 12" in text
    assert warnings_of([read(raw_tiff(np.full((2, 2, 1), 4000, np.uint16), 12))[1]]) == []
