"""Signatures: kinds of files that are not read, recognised by their first bytes, with the way to a kind that is."""

from __future__ import annotations

from harness.errors import DataError

_PNG_OR_TIFF = "convert it to PNG or TIFF"
_PLANES = "export its images as TIFF"
_UNPACK = "unpack it"

# (place of the bytes, the bytes, what the file is, the way out)
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _PNG_OR_TIFF),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image (code stream)", _PNG_OR_TIFF),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", f"{_PNG_OR_TIFF}, for example with djxl"),
    (0, b"\xff\x0a", "a JPEG XL image", f"{_PNG_OR_TIFF}, for example with djxl"),
    (0, b"II\xbc", "a JPEG XR image", _PNG_OR_TIFF),
    (128, b"DICM", "a DICOM file", f"{_PNG_OR_TIFF} with 16 bits, for example with dcm2img or pydicom"),
    (0, b"\x93NUMPY", "a NumPy array (NPY)", "save it as TIFF, for example with tifffile.imwrite"),
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the image itself", "run git lfs pull"),
    (0, b"version https://hawser.github.com/spec/", "a Git LFS pointer, not the image itself", "run git lfs pull"),
    (0, b"/annex/objects/", "a git-annex pointer, not the image itself", "run git annex get"),
    (0, b"\x1f\x8b", "a file packed with gzip", "unpack it with gunzip"),
    (0, b"BZh", "a file packed with bzip2", "unpack it with bunzip2"),
    (0, b"\xfd7zXZ\0", "a file packed with xz", "unpack it with unxz"),
    (0, b"\x28\xb5\x2f\xfd", "a file packed with zstd", "unpack it with unzstd"),
    (0, b"PK\x03\x04", "a zip archive (or a document or NPZ file, which are zip archives)", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", "pack it again"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF", "a PDF document", "export its pages or pictures as PNG, for example with pdfimages"),
    (0, b"8BPS", "a Photoshop document (PSD)", _PNG_OR_TIFF),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", "convert it to a float TIFF"),
    (0, b"#?RADIANCE", "a Radiance HDR image", "convert it to a float TIFF"),
    (0, b"\0\0\1\0", "an icon (ICO)", "convert it to PNG"),
    (0, b"DDS ", "a DDS texture", "convert it to PNG"),
    (0, b"SIMPLE  =", "a FITS file", "save it as TIFF"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (also of Imaris, ilastik or MATLAB)", _PLANES),
    (0, b"MATLAB ", "a MATLAB file", _PLANES),
    (344, b"n+1\0", "a NIfTI volume", "export its slices as TIFF"),
    (0, b"NRRD", "an NRRD volume", "export its slices as TIFF"),
    (208, b"MAP ", "an MRC volume", "export its slices as TIFF"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file", _PLANES),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file", _PLANES),
    (0, b"\x70\0\0\0", "a Leica LIF file", _PLANES),
    (0, b"\0\5\x16\7", "an AppleDouble file, which macOS writes beside the real one", "remove it"),
    (0, b"II*\0\x10\0\0\0CR", "a Canon raw image (CR2)", f"develop it and {_PNG_OR_TIFF}"),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm raw image (RAF)", f"develop it and {_PNG_OR_TIFF}"),
    (0, b"IIRO", "an Olympus raw image (ORF)", f"develop it and {_PNG_OR_TIFF}"),
    (0, b"IIU\0", "a Panasonic raw image (RW2)", f"develop it and {_PNG_OR_TIFF}"),
)
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_AVIF = frozenset((b"avif", b"avis"))


def refuse_foreign(data: bytes) -> None:
    """Raise DataError, with the kind and the way out, if the bytes begin like a file of a kind that is not read."""
    if not data:
        raise DataError("is empty (0 bytes)")
    found = _container(data) or next(
        ((what, way) for place, sign, what, way in _SIGNATURES if data[place : place + len(sign)] == sign), None
    )
    if found is not None:
        raise DataError(f"is {found[0]}, which is not read: {found[1]}")
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<":
        if b"<svg" in start.lower():
            raise DataError("is an SVG drawing, which is not read: export it as PNG")
        raise DataError("contains HTML or other text, not an image: download it again")
    if not any(data):
        raise DataError(f"contains only zero bytes ({len(data)}), so its content was lost: copy it again")


def _container(data: bytes) -> tuple[str, str] | None:
    """Return what a file of the ISO base media format is, of which HEIC and AVIF images and films are kinds."""
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[place : place + 4] for place in range(16, min(data[3], 128), 4))}
        if brands & _AVIF:
            return "an AVIF image", f"{_PNG_OR_TIFF}, for example with avifdec"
        if brands & _HEIC or data[8:12] in (b"mif1", b"msf1"):
            return "a HEIC image", f"{_PNG_OR_TIFF}, for example with heif-convert"
        if data[8:12] == b"crx ":
            return "a Canon raw image (CR3)", f"develop it and {_PNG_OR_TIFF}"
        return "a film", "export its frames as PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "a film", "export its frames as PNG"
    return None
