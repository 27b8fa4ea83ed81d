"""PNG: comments and their checksums do not matter, transparent colours of few bits and fast decoders do."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from image_files import chunk, raw_png, read
from PIL import Image

from harness.data.decoding import isolation, png, png16
from harness.errors import DataError

RANDOM = np.random.default_rng(5)
BACKGROUND = (10, 20, 30)


def with_chunks(data: bytes, *extra: bytes) -> bytes:
    return data[:33] + b"".join(extra) + data[33:]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [0, 2])
def test_long_comments_and_wrong_checksums_of_comments_do_not_matter(bits: int, colour: int) -> None:
    samples = RANDOM.integers(0, 1 << bits, (7, 9, 3 if colour == 2 else 1))
    plain = raw_png(samples, bits, colour)
    wanted = read(plain)[0]
    assert (wanted == samples).all()
    long = zlib.compress(b"x" * 3_000_000)
    for extra in (
        chunk(b"zTXt", b"Comment\0\0" + long),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + long),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long),
        chunk(b"tEXt", b"Comment\0" + b"y" * 2_000_000),
        chunk(b"zTXt", b"Comment\0\0damaged"),
        chunk(b"tEXt", b"Comment\0one", right=False),
        chunk(b"gAMA", struct.pack(">I", 45455), right=False),
        chunk(b"tIME", bytes(7), right=False) + chunk(b"iCCP", b"name\0\0broken"),
    ):
        assert (read(with_chunks(plain, extra))[0] == wanted).all(), extra[:20]


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_decides_pixels_is_refused(name: bytes) -> None:
    palette, alpha = chunk(b"PLTE", bytes(range(12))), chunk(b"tRNS", b"\0\xff\xff\xff")
    data = bytearray(raw_png(RANDOM.integers(0, 4, (7, 9, 1)), 2, 3, palette, alpha))
    place = data.index(name)
    length = struct.unpack_from(">I", data, place - 4)[0]
    data[place + 4 + length] ^= 1
    with pytest.raises(DataError, match=f"{name.decode()} chunk has a wrong checksum"):
        read(bytes(data))


def test_the_orientation_is_found_in_every_chunk_that_may_hold_it() -> None:
    samples = RANDOM.integers(0, 256, (4, 6, 3))
    exif = b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    hexed = b"\nexif\n%8d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode() + b"\n"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    wanted = np.rot90(samples, 3)
    for extra in (
        chunk(b"eXIf", exif),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    ):
        pixels, facts = read(with_chunks(raw_png(samples, 8, 2), extra, chunk(b"tEXt", b"a\0b", right=False)))
        assert (pixels == wanted).all() and facts.converted == ("EXIF orientation",)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_is_found_at_every_depth(bits: int, colour: int) -> None:
    if colour == 2 and bits < 8:
        pytest.skip("PNG has no such kind")
    samples = RANDOM.integers(0, 1 << bits, (7, 9, 3 if colour == 2 else 1))
    key = samples[3, 4]
    data = raw_png(samples, bits, colour, chunk(b"tRNS", b"".join(struct.pack(">H", value) for value in key)))
    pixels, facts = read(data, background=BACKGROUND)
    full, top = (65535, 257) if bits == 16 else (255, 1)
    wanted = np.broadcast_to(samples * (full // ((1 << bits) - 1)), (7, 9, 3)).copy()
    wanted[(samples == key).all(axis=2)] = np.array(BACKGROUND) * top
    assert (pixels == wanted).all() and "alpha composited" in facts.converted


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("short", [False, True])
def test_a_palette_with_transparency_is_composited_at_every_depth(bits: int, short: bool) -> None:
    count = 1 << bits
    samples, table = RANDOM.integers(0, count, (7, 9, 1)), RANDOM.integers(0, 256, (count, 3))
    alpha = RANDOM.integers(0, 256, count)
    alpha = alpha[: max(1, count // 2)] if short else alpha
    data = raw_png(
        samples,
        bits,
        3,
        chunk(b"PLTE", table.astype(np.uint8).tobytes()),
        chunk(b"tRNS", alpha.astype(np.uint8).tobytes()),
    )
    share = np.append(alpha, np.full(count - len(alpha), 255))[samples] / 255
    wanted = table[samples[..., 0]] * share + np.array(BACKGROUND) * (1 - share)
    assert np.abs(read(data, background=BACKGROUND)[0] - wanted).max() <= 0.51


def test_a_file_that_is_cut_off_anywhere_is_called_truncated() -> None:
    stream = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(stream, "PNG")
    whole = stream.getvalue()
    for end in range(34, len(whole) - 40, 97):
        with pytest.raises(DataError, match="is truncated"):
            read(whole[:end])


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_the_fast_decoder_gives_the_same_bits_and_the_same_refusals(
    colour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    channels = {2: 3, 4: 2, 6: 4}[colour]
    y, x = np.mgrid[0:31, 0:37]
    smooth = np.stack([(y * 900 + x * 70 * (c + 1)) % 65536 for c in range(channels)], axis=-1).astype(np.uint16)
    files = [
        raw_png(RANDOM.integers(0, 65536, (13, 9, channels)), 16, colour),
        imagecodecs.png_encode(smooth, level=9),
        with_chunks(raw_png(smooth, 16, colour), chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"tEXt", b"a\0b")),
        with_chunks(raw_png(smooth, 16, colour), chunk(b"sBIT", bytes([12] * channels))),
    ]
    if colour == 2:
        files.append(raw_png(smooth, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *smooth[3, 4]))))
    files += [files[0][:-30], files[1].replace(b"IDAT", b"IDAX", 1)]

    def outcomes() -> list[Any]:
        found: list[Any] = []
        for data in files:
            try:
                found.append(read(data, background=BACKGROUND)[0].tolist())
            except DataError as error:
                found.append(str(error))
        return found

    used: list[int] = []
    original = png16.read
    monkeypatch.setattr(png16, "read", lambda data: used.append(1) or original(data))
    slow = outcomes()
    slowly = len(used)
    monkeypatch.setattr(isolation, "isolated", True)
    assert outcomes() == slow
    assert slowly >= 4 and len(used) - slowly < slowly  # the fast one did something


def test_a_file_without_comments_is_handed_on_as_it_is() -> None:
    data = raw_png(RANDOM.integers(0, 256, (4, 4, 3)), 8, 2)
    assert png.checked(data).data is data
