"""Small files that claim to be huge, or would become so: refused from the header, in little memory and time."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from harness.data.decoding.decode import decode, read
from harness.data.decoding.raw import MAX_BYTES
from harness.errors import DataError

SIDE = 60_000  # pixels: 3.6 billion in all


def as_file(kind: str, **options: Any) -> bytearray:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, kind, **options)
    return bytearray(stream.getvalue())


def png(width: int, height: int, depth: int, colour: int) -> bytes:
    """A PNG whose header names this size, with hardly any pixels behind it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(*, big: bool = False, data: Any = None, **options: Any) -> bytearray:
    stream = io.BytesIO()
    samples = np.zeros((16, 16), np.uint16) if data is None else data
    tifffile.imwrite(stream, samples, bigtiff=big, byteorder="<", photometric="minisblack", **options)
    return bytearray(stream.getvalue())


def with_tags(data: bytearray, tags: dict[int, int]) -> bytes:
    """The TIFF file with these values of one number each in its first directory."""
    big = data[2] == 43
    start = struct.unpack_from("<Q", data, 8)[0] if big else struct.unpack_from("<I", data, 4)[0]
    count, length, head = (struct.unpack_from("<Q", data, start)[0], 20, 8) if big else (data[start], 12, 2)
    left = dict(tags)
    for place in range(start + head, start + head + count * length, length):
        if (value := left.pop(struct.unpack_from("<H", data, place)[0], None)) is not None:
            struct.pack_into("<HQQ" if big else "<HII", data, place + 2, 16 if big else 4, 1, value)
    assert not left, f"the file has no tags {left}"
    return bytes(data)


def with_strip(compression: int, strip: bytes) -> bytes:
    """A TIFF file of 16 x 16 pixels whose only strip is this one."""
    data = tiff()
    where = len(data)
    return with_tags(data + strip, {259: compression, 273: where, 279: len(strip)})


@cache
def bombs() -> dict[str, bytes]:
    """Headers of 3.6 billion pixels (268 million: the most that WebP can name) in every format that is read."""
    jpeg, gif, bmp, webp = as_file("JPEG"), as_file("GIF"), as_file("BMP"), as_file("WEBP", lossless=True)
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, SIDE, SIDE)
    struct.pack_into("<HH", gif, 6, SIDE, SIDE)
    struct.pack_into("<ii", bmp, 18, SIDE, SIDE)
    [bits] = struct.unpack_from("<I", webp, 21)
    struct.pack_into("<I", webp, 21, (bits & ~0x0FFFFFFF) | 16383 << 14 | 16383)
    wide = {256: SIDE, 257: SIDE}
    return {
        "8-bit PNG": png(SIDE, SIDE, 8, 2),
        "16-bit grey PNG": png(SIDE, SIDE, 16, 0),
        "16-bit RGB PNG": png(SIDE, SIDE, 16, 2),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "WebP": bytes(webp),
        "PPM": b"P6 %d %d 255\n" % (SIDE, SIDE) + bytes(3),
        "PPM in digits": b"P3 %d %d 255\n0 0 0" % (SIDE, SIDE),
        "float PFM": b"Pf\n%d %d\n-1.0\n" % (SIDE, SIDE) + bytes(4),
        "8-bit TIFF": with_tags(as_file("TIFF"), wide),
        "16-bit TIFF": with_tags(tiff(), wide),
        "deflated TIFF": with_tags(tiff(compression="zlib"), wide),
        "float BigTIFF": with_tags(tiff(big=True, data=np.zeros((16, 16), np.float32)), wide),
    }


@cache
def later_bombs() -> dict[str, tuple[bytes, str]]:
    """Files of a few pixels that would take gigabytes on the way to them, and what is said of them."""
    zeros = bytes(1 << 20)
    packer = zlib.compressobj(1)
    deflated = b"".join(packer.compress(zeros) for _ in range(128)) + packer.flush()
    return {
        "a strip that inflates to 128 MB": (with_strip(8, deflated), "unpacks to more"),
        "the same under deflate's old number": (with_strip(32946, deflated), "unpacks to more"),
        "huge tiles": (with_tags(tiff(tile=(16, 16)), {322: SIDE, 323: SIDE}), "tiles"),
        "huge tiles of 8 bits": (
            with_tags(tiff(data=np.zeros((16, 16), np.uint8), tile=(16, 16)), {322: SIDE, 323: SIDE}),
            "tiles",
        ),
        "a volume": (tiff(data=np.zeros((4, 16, 16), np.uint16), volumetric=True, tile=(4, 16, 16)), "volume"),
        "a row for each of 49 million pixels": (png(1, 49_000_000, 16, 2), "65,535 a side"),
    }


@pytest.mark.parametrize("kind", bombs())
def test_an_image_above_50_megapixels_is_refused_from_its_header(kind: str) -> None:
    with pytest.raises(DataError, match="million"):
        read(bombs()[kind])


@pytest.mark.parametrize("kind", later_bombs())
def test_what_would_become_huge_behind_a_modest_header_is_refused(kind: str) -> None:
    data, reason = later_bombs()[kind]
    with pytest.raises(DataError, match=reason):
        read(bytes(data))


def test_an_lzma_strip_is_measured_too() -> None:
    import lzma

    with pytest.raises(DataError, match="unpacks to more"):
        read(with_strip(34925, lzma.compress(bytes(1 << 22))))


@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("options", [{"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["strips", "tiles"])
def test_whole_segments_are_read_as_before(compression: str | None, options: dict[str, Any]) -> None:
    samples = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
    pixels, _ = read(bytes(tiff(data=samples, compression=compression, **options)))
    assert (pixels[..., 0] == samples).all()


MEASURE = """
import json, pathlib, resource, sys, time
from harness.data.decoding.decode import decode, quiet
from harness.errors import DataError

before, began, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), 0
with quiet():
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        try:
            decode(path)
        except DataError:
            refused += 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"refused": refused, "seconds": time.process_time() - began, "grown": grown}))
"""


def test_bombs_take_little_memory_and_time(tmp_path: Path) -> None:
    files = [*bombs().values(), *(data for data, _ in later_bombs().values())]
    for number, data in enumerate(files):
        (tmp_path / f"{number:02}.png").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    megabyte = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of what ru_maxrss counts in
    assert found["refused"] == len(files)
    assert found["seconds"] < 3
    assert found["grown"] < 50 * megabyte, found


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png(8, 8, 8, 2))
    os.truncate(path, MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(DataError, match=r"huge\.png: has 1\.0 GB"):
        decode(path)


def test_a_format_for_which_another_program_would_be_started_is_no_image() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="not an image in a known format"):
        read(postscript)
