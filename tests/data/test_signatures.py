"""Kinds of files that are not read are named by their first bytes, with the way out."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from image_files import read

from harness.errors import DataError


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", b"x")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), ["HEIC", "PNG or TIFF"]),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + bytes(40), ["HEIC"]),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(40), ["AVIF", "PNG or TIFF"]),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(40), ["AVIF"]),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(40), ["film", "frames"]),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), ["JPEG 2000"]),
        (b"\xff\x4f\xff\x51\0\x2f" + bytes(40), ["JPEG 2000"]),
        (b"\xff\x0a\xfa\x1f" + bytes(40), ["JPEG XL"]),
        (bytes(128) + b"DICM\2\0\0\0UL", ["DICOM", "16 bits"]),
        (saved(np.zeros((4, 4))), ["NumPy", "NPY", "TIFF"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", ["Git LFS", "git lfs pull"]),
        (gzip.compress(b"II*\0", mtime=0), ["gzip", "gunzip"]),
        (zipped(), ["zip archive", "unpack"]),
        (tarred(), ["tar archive"]),
        (b"%PDF-1.7\n" + bytes(40), ["PDF", "PNG"]),
        (b"8BPS\0\1", ["Photoshop"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5", "TIFF"]),
        (b"ZISRAWFILE" + bytes(40), ["CZI", "TIFF"]),
        (b"II*\0\x10\0\0\0CR\2\0", ["raw image", "CR2"]),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg xmlns='x'></svg>", ["SVG"]),
        (b"\xef\xbb\xbf \n<!DOCTYPE html>", ["HTML", "download it again"]),
        (bytes(5000), ["zero bytes"]),
        (b"", ["empty"]),
    ],
)
def test_a_foreign_kind_is_named_with_the_way_out(data: bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        read(data)
    for word in words:
        assert word in str(error.value)


def test_text_and_noise_are_no_image() -> None:
    for data in (b"path,label\n0.png,a\n", np.random.default_rng(0).bytes(400)):
        with pytest.raises(DataError, match="not an image in a known format"):
            read(data)
