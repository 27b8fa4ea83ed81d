"""TIFF by its tags: every pixel is compared with what the file was written from."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from image_files import as_tiff, fractions, raw_tiff, read
from numpy.typing import NDArray
from PIL import Image

from harness.errors import DataError

try:  # it writes some compressions
    import imagecodecs
except ImportError:
    imagecodecs = None

RANDOM = np.random.default_rng(1)
DEFLATE = (8, zlib.compress)


def numbers(bits: int, channels: int = 1, shape: tuple[int, int] = (11, 13)) -> NDArray[np.uint16]:
    return RANDOM.integers(0, 1 << bits, (*shape, channels), dtype=np.uint16)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_packed_bits_fill_the_scale_of_their_own_depth(bits: int, channels: int) -> None:
    samples, colour = numbers(bits, channels), 2 if channels == 3 else 1
    wanted = samples / ((1 << bits) - 1)
    half = 0.51 / (255 if bits <= 8 else 65535)
    for data in (
        raw_tiff(samples, bits, photometric=colour),
        raw_tiff(samples, bits, photometric=colour, rows=4, order=">"),
        raw_tiff(samples, bits, photometric=colour, tile=16, compression=DEFLATE),
        raw_tiff(samples, bits, photometric=colour, planar=True, rows=5),
        raw_tiff(samples, bits, photometric=colour, reverse=True),
    ):
        assert np.abs(fractions(data) - wanted).max() <= half
    facts = read(raw_tiff(samples, bits, photometric=colour))[1]
    assert (facts.bits, facts.high, facts.deep) == (bits, samples.max(), bits > 8)


def test_packed_bits_take_a_declared_depth_and_are_refused_if_they_are_cut_off() -> None:
    samples = np.array([[0, 511, 1023]], np.uint16)[..., None]
    assert np.abs(fractions(raw_tiff(samples, 12), bit_depth=10)[0, :, 0] * 1023 - [0, 511, 1023]).max() < 0.02
    with pytest.raises(DataError, match="truncated"):
        read(raw_tiff(numbers(12), 12)[:-8])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_palette_of_every_depth_shows_its_colours(bits: int) -> None:
    samples = numbers(bits)
    samples = samples.astype(np.uint8) if bits == 8 else samples
    table = RANDOM.integers(0, 65536, (1 << bits, 3))
    data = raw_tiff(samples, bits, photometric=3, more={320: (3, table.T.ravel().tolist())})
    pixels, facts = read(data)
    assert (pixels == table[samples[..., 0]]).all() and facts.kind == f"{bits}-bit palette TIFF"
    assert facts.converted == ("palette to RGB",) and facts.channels == 3


@pytest.mark.parametrize("factor", [1, 256, 257])
def test_a_palette_of_8_bit_colours_gives_8_bit_pixels_however_they_are_stored(factor: int) -> None:
    table, samples = RANDOM.integers(0, 256, (16, 3)), numbers(4)
    data = raw_tiff(
        samples, 4, photometric=3, compression=DEFLATE, more={320: (3, (table * factor).T.ravel().tolist())}
    )
    pixels, facts = read(data)
    assert (pixels == table[samples[..., 0]]).all() and not facts.deep


def test_a_number_beyond_the_palette_is_a_damage() -> None:
    data = raw_tiff(np.full((2, 2, 1), 9, np.uint8), 8, photometric=3, more={320: (3, [1000] * 6)})
    with pytest.raises(DataError, match="palette lacks"):
        read(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float16])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_composited_by_its_kind(dtype: type, kind: str, channels: int) -> None:
    colour, alpha = RANDOM.random((9, 14, channels)), RANDOM.random((9, 14, 1))
    alpha[0], alpha[1] = 0, 1
    stored = np.concatenate([colour * alpha if kind == "assocalpha" else colour, alpha], axis=2)
    full = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    samples = np.rint(stored * full).astype(dtype) if full > 1 else stored.astype(dtype)
    background = np.array([10, 200, 30])
    wanted = colour * alpha + background / 255 * (1 - alpha)
    if dtype is not np.float16:
        data = as_tiff(samples, photometric="rgb" if channels == 3 else "minisblack", extrasamples=[kind])
        got = fractions(data, background=(10, 200, 30))
        assert np.abs(got - wanted).max() < (1.5 / 255 if dtype == np.uint8 else 2e-5)
    if dtype == np.uint8 and channels == 3 and imagecodecs is not None:  # another decoder reads it
        packed = as_tiff(samples, photometric="rgb", extrasamples=[kind], compression="packbits")
        assert (fractions(packed, background=(10, 200, 30)) == got).all()


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_white_is_zero_is_turned_at_every_depth(bits: int) -> None:
    samples = numbers(bits)
    samples = samples.astype(np.uint8) if bits == 8 else samples
    wanted = 1 - samples / ((1 << bits) - 1)
    assert np.abs(fractions(raw_tiff(samples, bits, photometric=0)) - wanted).max() < 0.0021


def test_white_is_zero_is_turned_for_every_decoder_and_leaves_alpha() -> None:
    samples = numbers(8).astype(np.uint8)[..., 0]
    for compression in ("packbits", "zlib", None) if imagecodecs is not None else ("zlib", None):
        data = as_tiff(samples, photometric="miniswhite", compression=compression)
        assert (read(data)[0][..., 0] == 255 - samples).all(), compression
    both = np.dstack([np.full((3, 3), 1000, np.uint16), np.full((3, 3), 65535, np.uint16)])
    data = as_tiff(both, photometric="miniswhite", extrasamples=["unassalpha"])
    assert (read(data, background=(0, 0, 0))[0] == 64535).all()


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_missing_photometric_tag_means_black_is_zero_or_rgb(bits: int, channels: int) -> None:
    samples = numbers(bits, channels)
    samples = samples.astype(np.uint8) if bits == 8 else samples
    wanted = samples / ((1 << bits) - 1)
    assert np.abs(fractions(raw_tiff(samples, bits, photometric=None)) - wanted).max() < 1e-9
    if bits == 8 and channels == 1:  # Pillow decodes this compression, and takes 0 for white
        runs = (32773, lambda body: b"".join(bytes([0, byte]) for byte in body))
        assert np.abs(fractions(raw_tiff(samples, bits, photometric=None, compression=runs)) - wanted).max() < 1e-9


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_signed_samples_are_refused_by_name_unless_a_range_is_given(dtype: type) -> None:
    samples = np.array([[-100, 0, 100]], dtype)
    with pytest.raises(DataError, match=r"signed \d+-bit samples .*unsigned 8 or 16 bits"):
        read(as_tiff(samples))
    for rules in ({"bit_depth": "minmax"}, {"bit_depth": "used", "value_range": (-100, 100)}):
        pixels, facts = read(as_tiff(samples), **rules)
        assert pixels[0, :, 0].tolist() == [0, 32768, 65535]
        assert (facts.sample_type, facts.low, facts.high) == ("signed", -100, 100)
    with pytest.raises(DataError, match="-100 to 100"):
        read(as_tiff(samples), bit_depth=12)
    assert read(as_tiff(np.abs(samples)), bit_depth=8)[0][0, :, 0].tolist() == [100, 0, 100]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_is_applied_once_by_every_decoder(orientation: int) -> None:
    grey = numbers(16)[..., 0]
    tag = [(274, "H", 1, orientation, True)]
    wanted = np.rot90(grey, {3: 2, 6: 3, 8: 1}[orientation])
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})
    for data in (as_tiff(grey, extratags=tag), as_tiff(grey, extratags=tag, compression="zlib"), stream.getvalue()):
        pixels, facts = read(data)
        assert (pixels[..., 0] == wanted).all() and facts.converted == ("EXIF orientation",)


PLAIN = ["zlib", "lzma"]
BY_PACKAGE = ["packbits", "lzw", "zstd", "jpeg2000", "png", "lerc", "jpegxr", "jpegxl"]


@pytest.mark.parametrize("compression", [*PLAIN, *BY_PACKAGE])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_lossless_compression_keeps_every_value(compression: str, dtype: type, channels: int) -> None:
    if compression in BY_PACKAGE:
        pytest.importorskip("imagecodecs")
    samples = RANDOM.integers(0, np.iinfo(dtype).max + 1, (33, 47, channels), dtype=dtype)
    stored = samples if channels == 3 else samples[..., 0]
    colour = {"photometric": "rgb" if channels == 3 else "minisblack", "compression": compression}
    byte_codecs = (*PLAIN, "packbits", "lzw", "zstd")
    for options in ({}, {"tile": (16, 16)}, {"predictor": True} if compression in byte_codecs else {}):
        assert (read(as_tiff(stored, **colour, **options))[0] == samples).all(), options


def test_jpeg_inside_tiff_is_read_as_pillow_reads_it() -> None:
    pytest.importorskip("imagecodecs")
    y, x = np.mgrid[0:64, 0:64]
    smooth = np.dstack([y * 3, x * 3, 255 - y * 2]).astype(np.uint8)
    data = as_tiff(smooth, photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    assert np.abs(read(data)[0].astype(int) - smooth).mean() < 3


def test_a_missing_package_an_unknown_kind_and_a_damage_are_three_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs")
    samples = numbers(16, 3)
    lzw = as_tiff(samples, photometric="rgb", compression="lzw")
    assert (read(lzw)[0] == samples).all()
    for number in (65001, 60123):  # one that tifffile knows by name, and one that it does not
        with pytest.raises(DataError, match="compression of a kind that is not supported: save it with deflate"):
            read(raw_tiff(samples, 16, photometric=2, compression=(number, bytes)))
    broken = bytearray(as_tiff(samples, photometric="rgb", compression="zlib"))
    broken[-40:-30] = bytes(10)
    with pytest.raises(DataError, match=r"damaged|truncated"):
        read(bytes(broken))
    codecs = type(tifffile.TIFF.DECOMPRESSORS)
    original = codecs.__getitem__

    def without(self: Any, key: int) -> Any:
        if key == 5:
            raise KeyError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
        return original(self, key)

    monkeypatch.setattr(codecs, "__getitem__", without)
    with pytest.raises(DataError, match=r"LZW compression, which needs the package imagecodecs: .*\[tiff\].*deflate"):
        read(lzw)
    with pytest.raises(DataError, match="needs the package imagecodecs"):
        read(raw_tiff(numbers(12), 12, compression=(5, bytes)))


@pytest.mark.parametrize(
    ("photometric", "bits", "channels", "word"),
    [(5, 16, 4, "CMYK"), (8, 8, 3, "CIELab"), (32803, 16, 1, "colour filter array"), (34892, 16, 3, "raw camera")],
)
def test_colours_that_are_not_read_are_named(photometric: int, bits: int, channels: int, word: str) -> None:
    samples = numbers(bits, channels).astype(np.uint8 if bits == 8 else np.uint16)
    with pytest.raises(DataError, match=f"{word}.*save it as"):
        read(raw_tiff(samples, bits, photometric=photometric))


def test_complex_samples_and_mixed_depths_are_named() -> None:
    with pytest.raises(DataError, match="complex"):
        read(as_tiff(np.zeros((4, 4), np.complex64)))
    with pytest.raises(DataError, match="different depths"):
        read(raw_tiff(np.zeros((4, 4, 3), np.uint8), 8, photometric=2, more={258: (3, [5, 6, 5])}))


def test_a_tile_that_names_another_size_inside_is_not_decoded() -> None:
    pytest.importorskip("imagecodecs")
    large = imagecodecs.jpeg2k_encode(np.zeros((640, 640), np.uint8))
    data = raw_tiff(np.zeros((16, 16, 1), np.uint8), 8, compression=(34712, lambda _: large))
    with pytest.raises(DataError, match="more pixels than its place"):
        read(data)
