"""Storage of activations on disk, with a checksum for each row; trials, workers and studies share the files.

Each cache entry is a folder, named by a digest of everything that determines the values (see `features.identity`). For
each cut and view it contains a sparse file with one row for each image, and a file with one checksum for each row; the
checksum is 0 if the row was never written. A row is used only if its checksum fits its bytes. After an incomplete write
or on a damaged disk the row is therefore computed again, and never read as a wrong number.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from harness.atomic import atomic_write, disk_errors

MAX_OPEN_VIEWS = 100  # two open files each; a process may open 256 files (macOS) or 1,024 (Linux)
_DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}


@dataclass(frozen=True)
class Boundary:
    """Shape, memory layout and type of the activations at one cut."""

    shape: tuple[int, ...]  # of one image, dimensions in memory order
    order: tuple[int, ...]  # the tensor's dimensions in memory order, batch first (channels_last: 0, 2, 3, 1)
    dtype: str

    @classmethod
    def of(cls, x: Tensor) -> Boundary:
        """Describe the activations of a batch, whose outermost dimension in memory must be the batch."""
        strides = x.stride()
        order = tuple(sorted(range(x.ndim), key=lambda dim: (-strides[dim], dim)))
        return cls(tuple(x.shape[dim] for dim in order[1:]), order, str(x.dtype).removeprefix("torch."))

    @property
    def bytes(self) -> int:
        """Return the bytes of one image's activation."""
        return int(np.prod(self.shape)) * np.dtype(_DTYPES[self.dtype]).itemsize

    def to_array(self, x: Tensor) -> NDArray[Any]:
        """Return a batch as an array whose dimensions are in memory order, batch first."""
        rows = x.detach().permute(self.order).contiguous().cpu()
        return rows.view(torch.uint16).numpy() if rows.dtype == torch.bfloat16 else rows.numpy()

    def to_tensor(self, rows: NDArray[Any], device: torch.device) -> Tensor:
        """Return the batch of such an array as a tensor with its original shape and strides."""
        tensor = torch.from_numpy(rows)
        if self.dtype == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        back = [self.order.index(dim) for dim in range(len(self.order))]
        return tensor.to(device).permute(back)


class _View:
    """The files of one view at one cut.

    `verified` is (images,): the rows whose checksums this process has already checked. It is changed in place.
    """

    def __init__(self, path: Path, images: int, boundary: Boundary, verified: NDArray[np.bool_]) -> None:
        self._path, self._bytes = path, boundary.bytes
        for file, size in ((path, images * boundary.bytes), (path.with_suffix(".crc"), images * 8)):
            with file.open("ab") as stream:  # two processes that do this at once make the same file
                if stream.tell() < size:
                    stream.truncate(size)
        self._raw = np.memmap(path, np.uint8, "r", shape=(images, self._bytes))
        self._checks = np.memmap(path.with_suffix(".crc"), np.uint64, "r", shape=(images,))
        self.values = self._raw.view(np.ndarray).view(_DTYPES[boundary.dtype]).reshape(images, *boundary.shape)
        self._verified = verified

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        for row in rows[~self._verified[rows]].tolist():
            stored = int(self._checks[row])
            self._verified[row] = stored != 0 and stored == _check(self._raw[row])
        return self._verified[rows]

    def write(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        # Not through the memory map: if the disk is full, writing to a mapped page kills the process.
        with self._path.open("r+b") as data, self._path.with_suffix(".crc").open("r+b") as checks:
            for row, value in zip(rows.tolist(), values, strict=True):
                raw = value.reshape(-1).view(np.uint8)
                _write(data.fileno(), raw, row * self._bytes)
                _write(checks.fileno(), np.array([_check(raw)], np.uint64).view(np.uint8), row * 8)
                self._verified[row] = True


class Activations:
    """The stored activations of one initial model for one array of images and one batch shape: a cache entry.

    Args:
        folder: the entry's folder, which is created if it is missing.
        images: number of rows of the image array.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self._folder, self._images = folder, images
        self._views: OrderedDict[tuple[int, int], _View] = OrderedDict()
        self._verified: dict[tuple[int, int], NDArray[np.bool_]] = {}
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / "lock")
        self._meta = self._read_meta()

    def _read_meta(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / "meta.json").read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}

    @property
    def meta(self) -> dict[str, Any]:
        """Return the entry's metadata as last read or written; {} if there is none."""
        return self._meta

    def update_meta(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Read the metadata from the disk, let `change` modify it, and write it back, all under the lock."""
        with self.lock:
            meta = self._read_meta()
            change(meta)
            atomic_write(self._folder / "meta.json", json.dumps(meta, indent=1).encode())
            self._meta = meta

    def boundary(self, cut: int) -> Boundary:
        """Return the layout of the activations at a cut; raise KeyError if the entry was not probed."""
        values = self._meta["boundaries"][str(cut)]
        return Boundary(tuple(values["shape"]), tuple(values["order"]), values["dtype"])

    def has(self, cut: int, view: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return, for each of these rows, whether it is stored and undamaged, (len(rows),)."""
        return self._view(cut, view).has(rows)

    def read(self, cut: int, views: NDArray[np.int64], rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """Return the activations of (view, row) pairs, (B, ...). Call it only for pairs for which `has` is true."""
        boundary = self.boundary(cut)
        present = np.unique(views)
        if len(present) == 1:
            return boundary.to_tensor(self._view(cut, int(present[0])).values[rows], device)
        out = np.empty((len(rows), *boundary.shape), _DTYPES[boundary.dtype])
        for view in present.tolist():
            mask = views == view
            out[mask] = self._view(cut, view).values[rows[mask]]
        return boundary.to_tensor(out, device)

    def write(self, cut: int, views: NDArray[np.int64], rows: NDArray[np.int64], x: Tensor) -> None:
        """Store the activations `x`, (B, ...), of these (view, row) pairs. Call it under the lock.

        Raises:
            ResourceError: the disk is full.
        """
        values = self.boundary(cut).to_array(x)
        for view in np.unique(views).tolist():
            mask = views == view
            with disk_errors(self._path(cut, view)):
                self._view(cut, view).write(rows[mask], values[mask])

    def _path(self, cut: int, view: int) -> Path:
        return self._folder / f"cut{cut}-view{view}.rows"

    def _view(self, cut: int, view: int) -> _View:
        key = (cut, view)
        if key not in self._views:
            verified = self._verified.setdefault(key, np.zeros(self._images, bool))
            path = self._path(cut, view)
            with disk_errors(path):
                self._views[key] = _View(path, self._images, self.boundary(cut), verified)
            if len(self._views) > MAX_OPEN_VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return self._views[key]


def damaged_rows(folder: Path, sample: int | None) -> tuple[dict[str, int], int]:
    """Count the rows of an entry that fail their checksum.

    Args:
        sample: number of rows to check in each file, drawn by a fixed seed; None checks all rows that were written.

    Returns:
        The number of damaged rows by file name, for files that have any, and the number of rows that were checked.
    """
    found: dict[str, int] = {}
    checked = 0
    for path, size in _files(folder):
        stored = _stored_checks(path)
        written = np.flatnonzero(stored)
        if sample is not None and len(written) > sample:
            written = np.sort(np.random.default_rng(0).choice(written, sample, replace=False))
        with path.open("rb") as stream:
            bad = sum(_row_check(stream, int(row), size) != int(stored[row]) for row in written)
        checked += len(written)
        if bad:
            found[path.name] = int(bad)
    return found, checked


def forget_rows(folder: Path) -> int:
    """Mark every row that fails its checksum as never written, and return the number of these rows."""
    count = 0
    with FileLock(folder / "lock"):
        for path, size in _files(folder):
            stored = _stored_checks(path)
            with path.open("rb") as stream:
                bad = [r for r in np.flatnonzero(stored).tolist() if _row_check(stream, r, size) != int(stored[r])]
            with path.with_suffix(".crc").open("r+b") as stream:
                for row in bad:
                    _write(stream.fileno(), np.zeros(8, np.uint8), row * 8)
            count += len(bad)
    return count


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Return the files of rows that have a file of checksums, and the bytes of a row in each."""
    boundaries = json.loads((folder / "meta.json").read_text(encoding="utf-8")).get("boundaries", {})
    found = []
    for path in sorted(folder.glob("cut*-view*.rows")):
        values = boundaries.get(path.name.removeprefix("cut").partition("-")[0])
        if values is not None and path.with_suffix(".crc").exists():
            found.append((path, Boundary(tuple(values["shape"]), tuple(values["order"]), values["dtype"]).bytes))
    return found


def _stored_checks(path: Path) -> NDArray[np.uint64]:
    """Return the stored checksums of a file of rows; 0 means that the row was never written."""
    checks = path.with_suffix(".crc")
    return np.fromfile(checks, np.uint64, count=checks.stat().st_size // 8)


def _row_check(stream: BinaryIO, row: int, size: int) -> int:
    stream.seek(row * size)
    return _check(np.frombuffer(stream.read(size), np.uint8))


def describe(boundaries: dict[int, Boundary]) -> dict[str, Any]:
    """Return boundaries as the entry's metadata stores them."""
    return {str(cut): asdict(boundary) for cut, boundary in boundaries.items()}


def _check(raw: NDArray[np.uint8]) -> int:
    """Return a row's checksum, which is never 0."""
    return zlib.crc32(raw.data) | 1 << 32


def _write(file: int, raw: NDArray[np.uint8], offset: int) -> None:
    """Write all bytes: after a partial write, continue where it stopped."""
    view = memoryview(raw)  # type: ignore[arg-type]
    while len(view):
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
