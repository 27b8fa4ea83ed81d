from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import decode as decoding
from harness.data.decoding.decode import Facts, Pixels, decode, fit
from harness.data.decoding.rules import ReadingRules
from harness.errors import DataError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (9, 14, 3), dtype=np.uint8)
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def read(data: bytes, **rules: Any) -> tuple[Pixels, Facts]:
    return decoding.read(data, ReadingRules(**rules))


def as_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def as_tiff(samples: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, **options)
    return stream.getvalue()


def filtered(samples: NDArray[np.uint16], kinds: list[int]) -> bytes:
    """The rows of a 16-bit image, each behind one of PNG's five filters, byte by byte as the standard says."""
    rows, columns, channels = samples.shape
    step, lines, before = 2 * channels, b"", bytes(columns * channels * 2)
    for y in range(rows):
        line, kind = samples[y].astype(">u2").tobytes(), kinds[y % len(kinds)]
        lines += bytes([kind])
        for i, value in enumerate(line):
            left = line[i - step] if i >= step else 0
            up, corner = before[i], before[i - step] if i >= step else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda near: abs(guess - near))
            lines += bytes([(value - (0, left, up, (left + up) // 2, paeth)[kind]) % 256])
        before = line
    return lines


def png16(samples: NDArray[np.uint16], kinds: list[int], *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    height, width, channels = samples.shape
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes]
    raw = b"".join(filtered(part, kinds) for part in parts if part.size)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def test_8_bit_images_keep_every_value() -> None:
    pixels, facts = read(as_file(Image.fromarray(RGB), "PNG"))
    assert pixels.dtype == np.uint8 and (pixels == RGB).all()
    assert (facts.width, facts.height, facts.kind, facts.deep) == (14, 9, "8-bit RGB PNG", False)


def test_grey_is_repeated_to_three_channels() -> None:
    pixels, facts = read(as_file(Image.fromarray(RGB[..., 0]), "PNG"))
    assert (pixels == RGB[..., :1]).all() and pixels.shape == (9, 14, 3)
    assert facts.kind == "8-bit grey PNG"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_png_keeps_every_value_whatever_its_filters(channels: int, interlaced: bool) -> None:
    samples = np.random.default_rng(channels).integers(0, 65536, (13, 11, channels), dtype=np.uint16)
    for kinds in ([0], [1], [2], [3], [4], [4, 3, 0, 2, 1]):
        pixels, facts = read(png16(samples, kinds, interlaced=interlaced))
        assert pixels.dtype == np.uint16
        assert (pixels == samples).all(), f"filters {kinds}"
        assert facts.kind == f"16-bit {'RGB' if channels == 3 else 'grey'} PNG" and facts.deep


def test_smooth_16_bit_png_survives_the_filters_that_predict_it() -> None:
    y, x = np.mgrid[0:40, 0:50]
    ramp = np.stack([y * 900 + x * 300, x * 1200, y * 1500], axis=-1).astype(np.uint16)
    assert (read(png16(ramp, [4, 3]))[0] == ramp).all()


def test_16_bit_alpha_is_composited_on_the_background() -> None:
    samples = np.zeros((2, 2, 4), np.uint16)
    samples[..., :3], samples[0, 0, 3], samples[1, 1, 3] = 20000, 65535, 32768
    pixels, facts = read(png16(samples, [1]), background=(255, 0, 0))
    assert pixels[0, 0].tolist() == [20000, 20000, 20000]
    assert pixels[0, 1].tolist() == [65535, 0, 0]
    assert abs(int(pixels[1, 1, 0]) - (20000 + 65535) / 2) < 2
    assert facts.converted == ("alpha composited",)


def test_a_transparent_colour_of_a_16_bit_png_shows_the_background() -> None:
    samples = np.full((2, 2, 3), 500, np.uint16)
    samples[0, 0] = (1, 2, 3)
    body = struct.pack(">HHH", 1, 2, 3)
    key = struct.pack(">I", 6) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    pixels, _ = read(png16(samples, [0], extra=key), background=(0, 255, 0))
    assert pixels[0, 0].tolist() == [0, 65535, 0] and pixels[1, 1].tolist() == [500, 500, 500]


def test_a_damaged_16_bit_png_is_refused() -> None:
    data = bytearray(png16(RANDOM.integers(0, 65536, (8, 8, 3), dtype=np.uint16), [4]))
    with pytest.raises(DataError, match="truncated"):
        read(bytes(data[:-100]))
    data[60] ^= 1
    with pytest.raises(DataError, match="checksum"):
        read(bytes(data))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"planarconfig": "separate"}])
def test_16_bit_rgb_tiff_keeps_every_value(options: dict[str, Any]) -> None:
    samples = RANDOM.integers(0, 65536, (9, 14, 3), dtype=np.uint16)
    stored = np.moveaxis(samples, -1, 0) if "planarconfig" in options else samples
    pixels, facts = read(as_tiff(stored, photometric="rgb", **options))
    assert pixels.dtype == np.uint16 and (pixels == samples).all()
    assert facts.kind == "16-bit RGB TIFF"


def test_16_bit_grey_tiff_is_linear_to_one_part_in_65535() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels, facts = read(as_tiff(ramp))
    assert (pixels[..., 0] == ramp).all() and facts.kind == "16-bit grey TIFF"


def test_16_bit_grey_tiff_with_lzw_is_read_in_full_depth() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = Image.frombytes("I;16", (256, 256), ramp.astype("<u2").tobytes())
    pixels, _ = read(as_file(image, "TIFF", compression="tiff_lzw"))
    assert (pixels[..., 1] == ramp).all()


def test_float_tiff_between_0_and_1_is_scaled_to_16_bits() -> None:
    samples = np.linspace(0, 1, 65536, dtype=np.float32).reshape(256, 256)
    pixels, facts = read(as_tiff(samples))
    assert (pixels[..., 0].ravel() == np.arange(65536)).all()
    assert facts.kind == "32-bit float grey TIFF"


def test_float_tiff_outside_0_to_1_is_refused_with_the_way_out() -> None:
    counts = RANDOM.uniform(0, 4000, (8, 8)).astype(np.float32)
    with pytest.raises(DataError, match=r"bit_depth as a number that fits, or minmax"):
        read(as_tiff(counts))
    pixels, _ = read(as_tiff(counts), bit_depth=12)
    assert np.abs(pixels[..., 0] / 65535 - counts / 4095).max() < 1 / 65535
    with pytest.raises(DataError, match="not finite"):
        read(as_tiff(np.full((4, 4), np.nan, np.float32)))


def test_a_camera_of_12_bits_fills_the_scale_with_bit_depth_12() -> None:
    samples = np.array([[0, 2048, 4095]], np.uint16)
    assert read(as_tiff(samples), bit_depth=12)[0][0, :, 0].tolist() == [0, 32776, 65535]
    assert read(as_tiff(samples))[0][0, :, 0].tolist() == [0, 2048, 4095]
    with pytest.raises(DataError, match="0 to 1023 with bit_depth: 10"):
        read(as_tiff(samples), bit_depth=10)


def test_minmax_stretches_each_deep_image_and_leaves_8_bit_images_alone() -> None:
    assert read(as_tiff(np.array([[100, 150, 200]], np.uint16)), bit_depth="minmax")[0][0, :, 0].tolist() == [
        0,
        32768,
        65535,
    ]
    assert (read(as_tiff(np.full((2, 2), 7, np.uint16)), bit_depth="minmax")[0] == 0).all()
    assert (read(as_file(Image.fromarray(RGB), "PNG"), bit_depth="minmax")[0] == RGB).all()


def test_bit_depth_8_in_a_16_bit_file_gives_8_bits() -> None:
    pixels, facts = read(as_tiff(np.array([[0, 7, 255]], np.uint16)), bit_depth=8)
    assert pixels.dtype == np.uint8 and pixels[0, :, 0].tolist() == [0, 7, 255] and not facts.deep


def test_signed_and_wide_integers_need_a_declared_depth() -> None:
    wide = np.array([[0, 1000, 4095]], np.int32)
    with pytest.raises(DataError, match="full scale is unknown"):
        read(as_tiff(wide))
    assert read(as_tiff(wide), bit_depth=12)[0][0, 2, 0] == 65535


def test_zero_is_white_tiffs_are_turned_to_zero_is_black() -> None:
    samples = np.array([[0, 1000, 65535]], np.uint16)
    assert read(as_tiff(samples, photometric="miniswhite"))[0][0, :, 0].tolist() == [65535, 64535, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_more_than_three_channels_are_refused_by_number(dtype: type) -> None:
    samples = np.zeros((8, 8, 5), dtype)
    with pytest.raises(DataError, match="5 channels"):
        read(as_tiff(samples, photometric="minisblack", planarconfig="contig"))


def test_four_samples_that_are_not_declared_as_alpha_are_refused() -> None:
    with pytest.raises(DataError, match="4 channels"):
        read(as_tiff(np.zeros((8, 8, 4), np.uint8), photometric="rgb", extrasamples=["unspecified"]))


def test_a_stack_of_five_channels_is_refused_though_each_page_is_grey() -> None:
    with pytest.raises(DataError, match="5 channels"):
        read(as_tiff(np.zeros((5, 8, 8), np.uint16), imagej=True, metadata={"axes": "CYX"}))


def test_rgba_tiff_of_16_bits_is_composited() -> None:
    samples = np.zeros((2, 2, 4), np.uint16)
    pixels, facts = read(as_tiff(samples, photometric="rgb", extrasamples=["unassalpha"]))
    assert (pixels == 65535).all() and facts.kind == "16-bit RGB+alpha TIFF"


def test_alpha_hides_what_lies_under_it() -> None:
    samples = np.zeros((2, 3, 4), np.uint8)
    samples[..., 0] = 200
    samples[0, 0, 3] = 255
    pixels, facts = read(as_file(Image.fromarray(samples), "PNG"), background=(10, 20, 30))
    assert pixels[0, 0].tolist() == [200, 0, 0] and pixels[1, 1].tolist() == [10, 20, 30]
    assert facts.kind == "8-bit RGBA PNG" and facts.converted == ("alpha composited",)


def test_grey_with_alpha_and_transparent_palette_are_composited() -> None:
    grey = np.dstack([np.full((2, 2), 50, np.uint8), np.array([[0, 255], [255, 255]], np.uint8)])
    pixels, facts = read(as_file(Image.fromarray(grey), "PNG"))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 0].tolist() == [50, 50, 50]
    assert facts.kind == "8-bit grey+alpha PNG"
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    pixels, facts = read(as_file(palette, "PNG", transparency=0), background=(1, 2, 3))
    assert pixels[0].tolist() == [[1, 2, 3], [0, 0, 255]]
    assert facts.converted == ("palette to RGB", "alpha composited")


def test_1_bit_and_cmyk_images_become_grey_and_rgb() -> None:
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    pixels, facts = read(as_file(bits, "PNG"))
    assert pixels[0].tolist() == [[0, 0, 0], [255, 255, 255]] and facts.kind == "1-bit grey PNG"
    pixels, facts = read(as_file(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"))
    assert pixels[0, 0].tolist() == [255, 0, 0] and facts.converted == ("CMYK to RGB",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_png_and_tiff_alike(orientation: int) -> None:
    """Pillow's own turning of the 8-bit image is the reference."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = as_file(Image.fromarray(RGB), "PNG", exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(plain))))
    pixels, facts = read(plain)
    assert (pixels == wanted).all()
    assert facts.converted == (("EXIF orientation",) if orientation > 1 else ())
    deep = read(as_tiff(RGB.astype(np.uint16), photometric="rgb", extratags=[(274, "H", 1, orientation, True)]))
    assert (deep[0] == wanted).all() and deep[1].converted == facts.converted
    tiff8 = as_tiff(RGB, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    shallow = read(tiff8)
    assert (shallow[0] == wanted).all() and shallow[1].converted == facts.converted


def test_the_first_frame_of_several_is_taken_and_said() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels, facts = read(as_file(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert pixels[0, 0].tolist() == [255, 0, 0], kind
        assert facts.frames == 3 and "first frame of several" in facts.converted
    pixels, facts = read(as_tiff(np.stack([np.full((4, 4), v, np.uint16) for v in (9, 8)]), photometric="minisblack"))
    assert pixels[0, 0, 0] == 9 and facts.frames == 2


def test_each_kind_of_broken_file_has_its_reason() -> None:
    jpeg = as_file(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    for data, reason in (
        (b"", "empty"),
        (b"\n<!DOCTYPE html><p>404", "HTML"),
        (b"\x00\x01\x02\x03" * 20, "not an image"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (as_tiff(np.zeros((64, 64), np.uint16))[:3000], "damaged|truncated"),
        (as_tiff(np.zeros((640, 64), np.uint16), compression="zlib", rowsperstrip=64)[:600], "damaged|truncated"),
    ):
        with pytest.raises(DataError, match=reason):
            read(data)


def test_an_image_of_more_than_50_megapixels_is_refused_from_its_header() -> None:
    bomb = as_file(Image.new("1", (12_000, 12_000)), "PNG")
    with pytest.raises(DataError, match="million"):
        read(bomb)


def test_decode_names_the_file_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.jpg: is empty"):
        decode(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"y\.jpg"):
        decode(tmp_path / "y.jpg")


def test_stretch_pad_and_crop_make_a_square_of_a_wide_image() -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 100  # the middle square
    assert (fit(wide, 20, "crop") == 100).all()
    padded = fit(wide, 20, "pad", (255, 0, 7))
    assert (
        (padded[:5] == (255, 0, 7)).all() and (padded[15:] == (255, 0, 7)).all() and (padded[8:12, 8:12] == 100).all()
    )
    stretched = fit(wide, 20, "stretch")
    assert (stretched[:, 7:13] == 100).all() and (stretched[:, :3] == 0).all()


def test_shrinking_averages_and_keeps_the_depth() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 65535).astype(np.uint16)[..., None].repeat(3, axis=2)
    small = fit(board, 8, "stretch")
    assert small.dtype == np.uint16 and np.abs(small.astype(float) - 32767.5).max() < 2000
    small = fit((board >> 8).astype(np.uint8), 8, "stretch")
    assert small.dtype == np.uint8 and np.abs(small.astype(float) - 127.5).max() < 10


def test_an_8_bit_image_looks_the_same_through_the_16_bit_path() -> None:
    eight = fit(RGB, 7, "stretch").astype(float)
    deep = fit(RGB.astype(np.uint16) * np.uint16(257), 7, "stretch") / 257
    assert np.abs(eight - deep).max() <= 1.0


def test_a_square_of_the_right_size_is_not_resampled() -> None:
    square = RGB[:9, :9]
    assert (fit(square, 9, "pad") == square).all()


def test_damaged_metadata_do_not_spoil_an_image() -> None:
    pixels, facts = read(as_file(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\0"))
    assert (pixels == RGB).all() and facts.converted == ()
