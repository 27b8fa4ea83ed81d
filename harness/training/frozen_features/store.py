"""Activations of frozen stages on disk: rows that check themselves, shared by trials, workers and studies.

One folder for all that decides their values (see `features.identity`). In it lie, for each cut and
view, a sparse file of one row an image, and a file of one checksum a row: 0 where the row was never written. A row
counts as there only if its checksum fits its bytes, so a write that was cut off, a damaged disk or a changed byte is a
row that is computed again, never a wrong number.
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

MAX_OPEN_VIEWS = 100  # each holds two files open; systems allow a process 256 (macOS) or 1,024 (Linux)
_DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}


@dataclass(frozen=True)
class Boundary:
    """How the activation of a batch lies in memory at one cut."""

    shape: tuple[int, ...]  # of one image, dimensions in the order of memory
    order: tuple[int, ...]  # the tensor's dimensions, batch first, in the order of memory (channels_last: 0, 2, 3, 1)
    dtype: str

    @classmethod
    def of(cls, x: Tensor) -> Boundary:
        """Of a batch; the batch must be its outermost dimension."""
        strides = x.stride()
        order = tuple(sorted(range(x.ndim), key=lambda dim: (-strides[dim], dim)))
        return cls(tuple(x.shape[dim] for dim in order[1:]), order, str(x.dtype).removeprefix("torch."))

    @property
    def bytes(self) -> int:
        """Of one image."""
        return int(np.prod(self.shape)) * np.dtype(_DTYPES[self.dtype]).itemsize

    def to_array(self, x: Tensor) -> NDArray[Any]:
        """A batch as rows in the order of memory."""
        rows = x.detach().permute(self.order).contiguous().cpu()
        return rows.view(torch.uint16).numpy() if rows.dtype == torch.bfloat16 else rows.numpy()

    def to_tensor(self, rows: NDArray[Any], device: torch.device) -> Tensor:
        """The batch again, with the strides it had."""
        tensor = torch.from_numpy(rows)
        if self.dtype == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        back = [self.order.index(dim) for dim in range(len(self.order))]
        return tensor.to(device).permute(back)


class _View:
    """The rows of one view at one cut."""

    def __init__(self, path: Path, images: int, boundary: Boundary, whole: NDArray[np.bool_]) -> None:
        self._path, self._bytes = path, boundary.bytes
        for file, size in ((path, images * boundary.bytes), (path.with_suffix(".crc"), images * 8)):
            with file.open("ab") as stream:  # two that come at once make the same file
                if stream.tell() < size:
                    stream.truncate(size)
        self._raw = np.memmap(path, np.uint8, "r", shape=(images, self._bytes))
        self._checks = np.memmap(path.with_suffix(".crc"), np.uint64, "r", shape=(images,))
        self.values = self._raw.view(np.ndarray).view(_DTYPES[boundary.dtype]).reshape(images, *boundary.shape)
        self._whole = whole  # rows this process has checked

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        for row in rows[~self._whole[rows]].tolist():
            noted = int(self._checks[row])
            self._whole[row] = noted != 0 and noted == _check(self._raw[row])
        return self._whole[rows]

    def write(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        # Not through the map: a page that finds the disk full would kill the process.
        with self._path.open("r+b") as data, self._path.with_suffix(".crc").open("r+b") as checks:
            for row, value in zip(rows.tolist(), values, strict=True):
                raw = value.reshape(-1).view(np.uint8)
                _write(data.fileno(), raw, row * self._bytes)
                _write(checks.fileno(), np.array([_check(raw)], np.uint64).view(np.uint8), row * 8)
                self._whole[row] = True


class Activations:
    """The activations of one starting model over one set of images, at one batch shape.

    Args:
        folder: made where it is missing.
        images: rows of the image array.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self._folder, self._images = folder, images
        self._views: OrderedDict[tuple[int, int], _View] = OrderedDict()
        self._whole: dict[tuple[int, int], NDArray[np.bool_]] = {}
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
        """What was noted about the entry; {} where nothing was."""
        return self._meta

    def note(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the note under the lock; the newest one on disk is what is changed."""
        with self.lock:
            meta = self._read_meta()
            change(meta)
            atomic_write(self._folder / "meta.json", json.dumps(meta, indent=1).encode())
            self._meta = meta

    def boundary(self, cut: int) -> Boundary:
        """Raises KeyError where the entry was not probed."""
        values = self._meta["boundaries"][str(cut)]
        return Boundary(tuple(values["shape"]), tuple(values["order"]), values["dtype"])

    def has(self, cut: int, view: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows are there and whole, (len(rows),)."""
        return self._view(cut, view).has(rows)

    def read(self, cut: int, views: NDArray[np.int64], rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """The activations of (view, row) pairs, (B, ...); `has` must have said that all are there."""
        boundary = self.boundary(cut)
        present = np.unique(views)
        if len(present) == 1:
            return boundary.to_tensor(self._view(cut, int(present[0])).values[rows], device)
        out = np.empty((len(rows), *boundary.shape), _DTYPES[boundary.dtype])
        for view in present.tolist():
            here = views == view
            out[here] = self._view(cut, view).values[rows[here]]
        return boundary.to_tensor(out, device)

    def write(self, cut: int, views: NDArray[np.int64], rows: NDArray[np.int64], x: Tensor) -> None:
        """Keep the activations (B, ...) of these pairs; call it under the lock.

        Raises:
            ResourceError: the disk is full.
        """
        values = self.boundary(cut).to_array(x)
        with disk_errors(self._folder):
            for view in np.unique(views).tolist():
                here = views == view
                self._view(cut, view).write(rows[here], values[here])

    def _view(self, cut: int, view: int) -> _View:
        key = (cut, view)
        if key not in self._views:
            whole = self._whole.setdefault(key, np.zeros(self._images, bool))
            with disk_errors(self._folder):
                path = self._folder / f"cut{cut}-view{view}.rows"
                self._views[key] = _View(path, self._images, self.boundary(cut), whole)
            if len(self._views) > MAX_OPEN_VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return self._views[key]


def damaged_rows(folder: Path, sample: int | None) -> tuple[dict[str, int], int]:
    """How many rows of each file of an entry fail their checksum, where some do, and how many were looked at.

    Args:
        sample: rows of a file that are looked at, drawn by a fixed seed; None looks at all that were written.
    """
    found: dict[str, int] = {}
    looked = 0
    for path, size in _files(folder):
        noted = np.fromfile(path.with_suffix(".crc"), np.uint64, count=path.with_suffix(".crc").stat().st_size // 8)
        written = np.flatnonzero(noted)
        if sample is not None and len(written) > sample:
            written = np.sort(np.random.default_rng(0).choice(written, sample, replace=False))
        with path.open("rb") as stream:
            bad = sum(_row_check(stream, int(row), size) != int(noted[row]) for row in written)
        looked += len(written)
        if bad:
            found[path.name] = int(bad)
    return found, looked


def forget_rows(folder: Path) -> int:
    """Mark every row that fails its checksum as never written; how many there were."""
    count = 0
    with FileLock(folder / "lock"):
        for path, size in _files(folder):
            checks = path.with_suffix(".crc")
            noted = np.fromfile(checks, np.uint64, count=checks.stat().st_size // 8)
            with path.open("rb") as stream:
                bad = [r for r in np.flatnonzero(noted).tolist() if _row_check(stream, r, size) != int(noted[r])]
            with checks.open("r+b") as stream:
                for row in bad:
                    _write(stream.fileno(), np.zeros(8, np.uint8), row * 8)
            count += len(bad)
    return count


def _files(folder: Path) -> list[tuple[Path, int]]:
    """The files of rows that have checksums beside them, and the bytes of a row in each."""
    boundaries = json.loads((folder / "meta.json").read_text(encoding="utf-8")).get("boundaries", {})
    found = []
    for path in sorted(folder.glob("cut*-view*.rows")):
        values = boundaries.get(path.name.removeprefix("cut").partition("-")[0])
        if values is not None and path.with_suffix(".crc").exists():
            found.append((path, Boundary(tuple(values["shape"]), tuple(values["order"]), values["dtype"]).bytes))
    return found


def _row_check(stream: BinaryIO, row: int, size: int) -> int:
    stream.seek(row * size)
    return _check(np.frombuffer(stream.read(size), np.uint8))


def describe(boundaries: dict[int, Boundary]) -> dict[str, Any]:
    """Boundaries as the note keeps them."""
    return {str(cut): asdict(boundary) for cut, boundary in boundaries.items()}


def _check(raw: NDArray[np.uint8]) -> int:
    """A row's checksum, never 0."""
    return zlib.crc32(raw.data) | 1 << 32


def _write(file: int, raw: NDArray[np.uint8], offset: int) -> None:
    """All of it; a write that takes less than everything goes on where it stopped."""
    view = memoryview(raw)  # type: ignore[arg-type]
    while len(view):
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
