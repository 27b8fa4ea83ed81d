"""Z-stacks, time series and animations: the first plane, the maximum or mean of all, or each as an image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from image_files import as_tiff, read
from PIL import Image

from harness.config.data import DataConfig
from harness.data.decoding import decode
from harness.data.decoding.rules import ReadingRules
from harness.data.scan import scan
from harness.errors import DataError

RANDOM = np.random.default_rng(3)
STACK = RANDOM.integers(0, 60000, (4, 9, 14), dtype=np.uint16)


def stacks() -> dict[str, bytes]:
    """One z-stack in all layouts that are in use."""
    return {
        "ImageJ": as_tiff(STACK, imagej=True, metadata={"axes": "ZYX"}),
        "ImageJ time": as_tiff(STACK, imagej=True, metadata={"axes": "TYX"}),
        "OME": as_tiff(STACK, ome=True, photometric="minisblack", metadata={"axes": "ZYX"}),
        "OME T": as_tiff(STACK, ome=True, photometric="minisblack", metadata={"axes": "TYX"}, compression="zlib"),
        "plain": as_tiff(STACK, photometric="minisblack", metadata=None),
        "tifffile": as_tiff(STACK, photometric="minisblack"),
    }


@pytest.mark.parametrize("kind", stacks())
def test_planes_of_a_stack_are_combined_as_declared(kind: str) -> None:
    data = stacks()[kind]
    first, facts = read(data)
    assert (first[..., 0] == STACK[0]).all() and facts.frames == 4 and "first frame of several" in facts.converted
    largest, facts = read(data, frames="max")
    assert (largest[..., 1] == STACK.max(axis=0)).all() and facts.converted == ("maximum of several frames",)
    assert (facts.low, facts.high) == (STACK.min(), STACK.max())
    mean, facts = read(data, frames="mean")
    assert np.abs(mean[..., 2] - STACK.mean(axis=0)).max() <= 0.51 and facts.converted == ("mean of several frames",)
    assert decode.count_frames(data) == 4
    for number in range(4):
        pixels, facts = decode.read(data, ReadingRules(frames="each"), frame=number)
        assert (pixels[..., 0] == STACK[number]).all() and facts.converted == ()
    with pytest.raises(DataError, match="has 4 frames"):
        decode.read(data, ReadingRules(frames="each"), frame=4)


def test_channels_and_planes_of_one_file_are_told_apart() -> None:
    both = RANDOM.integers(0, 60000, (2, 3, 4, 9, 14), dtype=np.uint16)  # time, z, channel
    for data in (
        as_tiff(both, imagej=True, metadata={"axes": "TZCYX"}),
        as_tiff(both, ome=True, photometric="minisblack", metadata={"axes": "TZCYX"}),
        as_tiff(np.moveaxis(both, 2, 1), ome=True, photometric="minisblack", metadata={"axes": "TCZYX"}),
    ):
        with pytest.raises(DataError, match="has 4 channels"):
            read(data)
        assert decode.count_frames(data) == 6
        largest, facts = read(data, frames="max", channels="all")
        assert (largest == np.moveaxis(both.max(axis=(0, 1)), 0, -1)).all() and facts.channels == 4
        last, _ = decode.read(data, ReadingRules(channels=((3,), (0,), ())), frame=5)
        assert (last == np.dstack([both[1, 2, 3], both[1, 2, 0], 0 * both[1, 2, 0]])).all()


def test_a_series_without_a_page_for_each_image_is_read_plane_by_plane(tmp_path: Path) -> None:
    """ImageJ writes files above 4 GB in this way: one page, and the other images behind its pixels."""
    path = tmp_path / "long.tif"
    with tifffile.TiffWriter(path, byteorder=">") as writer:
        description = "ImageJ=1.53\nimages=4\nslices=4\n"
        writer.write(STACK[0], photometric="minisblack", description=description, metadata=None)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    data = data[:start] + STACK.astype(">u2").tobytes()
    assert (read(data, frames="max")[0][..., 0] == STACK.max(axis=0)).all()
    second, _ = decode.read(data, ReadingRules(frames="each"), frame=1)
    assert (second[..., 2] == STACK[1]).all()


def test_one_scale_serves_all_planes() -> None:
    stack = np.array([[[100, 150]], [[200, 300]]], np.uint16)
    data = as_tiff(stack, imagej=True, metadata={"axes": "ZYX"})
    assert np.abs(read(data, frames="max", bit_depth="minmax")[0][0, :, 0] / 65535 - [0.5, 1]).max() < 1e-4
    assert (
        np.abs(read(data, frames="mean", bit_depth=12)[0][0, :, 0] / 65535 - np.array([150, 225]) / 4095).max() < 1e-4
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_of_animations_are_combined_after_alpha_is_composited(kind: str) -> None:
    frames = [Image.new("RGBA", (6, 5), colour) for colour in ((200, 0, 0, 255), (0, 100, 0, 255), (0, 0, 50, 255))]
    for number, image in enumerate(frames):
        image.putpixel((number, 0), (250, 250, 250, 0))  # white that nobody sees
    stream = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"disposal": 2} if kind == "GIF" else {}
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:], duration=50, **options)
    data = stream.getvalue()
    assert decode.count_frames(data) == 3
    largest, facts = read(data, frames="max", background=(0, 0, 7))
    assert facts.frames == 3 and np.abs(largest[4, 5].astype(int) - (200, 100, 50)).max() <= 1
    if kind != "GIF":
        assert np.abs(largest[0, 0].astype(int) - (0, 100, 50)).max() <= 1
    mean, _ = read(data, frames="mean", background=(0, 0, 7))
    assert np.abs(mean[4, 5] - np.array([200, 100, 50]) / 3).max() <= 1
    for number, colour in enumerate(((200, 0, 0), (0, 100, 0), (0, 0, 50))):
        pixels, _ = decode.read(data, ReadingRules(frames="each"), frame=number)
        assert np.abs(pixels[4, 5].astype(int) - colour).max() <= 1


def test_a_series_of_more_pixels_than_can_be_combined_is_refused() -> None:
    data = as_tiff(np.zeros((5, 20, 20), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    assert read(data, frames="max", max_megapixels=0.0004)[0].shape == (20, 20, 3)
    stack = as_tiff(np.zeros((101, 20, 20), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match="has 101 frames of"):
        read(stack, frames="max", max_megapixels=0.0004)


def test_each_frame_of_a_folder_is_an_image_and_a_file_is_a_group(tmp_path: Path, cache: Path) -> None:
    for label, value in (("a", 0), ("b", 30000)):
        (tmp_path / "d" / label).mkdir(parents=True)
        (tmp_path / "d" / label / "stack.tif").write_bytes(
            as_tiff(
                RANDOM.integers(value, value + 20000, (11, 9, 14), dtype=np.uint16),
                imagej=True,
                metadata={"axes": "ZYX"},
            )
        )
        Image.fromarray(RANDOM.integers(0, 256, (9, 14), dtype=np.uint8)).save(tmp_path / "d" / label / "one.png")
    config = DataConfig.model_validate({"source": {"folder": str(tmp_path / "d")}, "frames": "each"})
    found = scan(config, cache=cache)
    names = [sample.path for sample in found.listing.samples]
    assert len(names) == 24 and names[0] == "a/one.png" and names == sorted(names)
    assert names[1] == "a/stack.tif frame 00" and names[11] == "a/stack.tif frame 10"
    assert {sample.group for sample in found.listing.samples} == {"", "a/stack.tif", "b/stack.tif"}
    assert len({image.pixels_sha256 for image in found.images}) == 24
    whole = tifffile.imread(tmp_path / "d/a/stack.tif")
    for number in range(11):
        pixels, _ = decode.read((tmp_path / "d/a/stack.tif").read_bytes(), ReadingRules(frames="each"), number)
        assert (pixels[..., 0] == whole[number]).all()


def test_a_file_that_cannot_be_read_stays_one_sample_and_is_named(tmp_path: Path, cache: Path) -> None:
    for label in "ab":
        (tmp_path / "d" / label).mkdir(parents=True)
        (tmp_path / "d" / label / "x.tif").write_bytes(b"II*\0nothing")
    config = DataConfig.model_validate({"source": {"folder": str(tmp_path / "d")}, "frames": "each"})
    with pytest.raises(DataError, match=r"2 of 2 images cannot be read(.|\n)*a/x\.tif"):
        scan(config, cache=cache)
