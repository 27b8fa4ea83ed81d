"""Make an array of staged images: rename the staging file if its rows lie in order, otherwise copy them into order."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.data import DataConfig
from harness.data.array_file import header_of, write_checks
from harness.data.decoder_pool import Answer
from harness.data.parallel import Progress, read_images
from harness.data.scan import Recorder, Scan
from harness.data.staged_rows import HEADER, row_bytes
from harness.data.staging import Staging, assign_slots
from harness.errors import DataError, ResourceError


def make_array(
    path: Path, staging: Staging, found: Scan, config: DataConfig, dtype: np.dtype[Any], progress: Progress | None
) -> None:
    """Write the array of all images of a scan, with the checksums of its rows beside it, and sync it.

    Args:
        staging: the staged images, which the caller holds; those that are missing are decoded.
        dtype: uint8, or uint16 if any image has more than 8 bits.

    Raises:
        DataError: an image changed since the scan.
        ResourceError: there is not enough space on the disk.
    """
    deep = dtype == np.uint16
    wanted = found.images.pixel_digests()
    slots = _complete(staging, found, config, wanted, path.parent, deep, progress)
    count = row_bytes(staging.target.size.side, staging.target.channels, deep=deep)
    shape = (len(slots), staging.target.size.side, staging.target.size.side, staging.target.channels)
    header = header_of(shape, dtype)
    if (slots == np.arange(len(slots))).all() and (staging.deep(slots) == deep).all():
        source, checks = staging.file(deep=deep), staging.checks(slots)
    else:
        _check_space(path.parent, len(slots) * count)
        source = path.with_name(f".{path.stem}.part")
        checks = np.zeros(len(slots), np.uint32)
        try:
            _copy(source, staging, slots, checks, deep=deep)
        except BaseException:
            source.unlink(missing_ok=True)
            raise
    with source.open("rb+") as stream:
        stream.write(header)
        stream.truncate(HEADER + len(slots) * count)
        stream.flush()
        os.fsync(stream.fileno())
    write_checks(path, header, checks)
    source.chmod(0o444)
    source.replace(path)


def _complete(
    staging: Staging,
    found: Scan,
    config: DataConfig,
    wanted: NDArray[np.uint8],
    folder: Path,
    deep: bool,
    progress: Progress | None,
) -> NDArray[np.int64]:
    """Return the slot of every image; decode those that are in none."""
    slots = staging.slots_of(found.rows, wanted)
    staging.damaged(slots[slots >= 0])
    slots = staging.slots_of(found.rows, wanted)
    missing = np.flatnonzero(slots < 0).tolist()
    if not missing:
        if progress is not None:
            progress(len(slots), len(slots))
        return slots
    _check_space(folder, len(missing) * row_bytes(staging.target.size.side, staging.target.channels, deep=deep))
    # Two images with the same pixels may share a slot, so there are always enough free slots.
    rows = assign_slots([found.rows[position] for position in missing], slots.tolist(), len(found.listing.samples))
    _decode(staging, found, config, rows, dict(zip(rows, missing, strict=True)), wanted, progress)
    return staging.slots_of(found.rows, wanted)


def _decode(
    staging: Staging,
    found: Scan,
    config: DataConfig,
    slots: Mapping[int, int],
    position_of: Mapping[int, int],
    wanted: NDArray[np.uint8],
    progress: Progress | None,
) -> None:
    """Decode the images of these rows into their slots; refuse any that is not what the scan saw."""
    recorder = Recorder([staging], slots)
    done = len(found.rows) - len(slots)

    def receive(row: int, answer: Answer) -> None:
        nonlocal done
        name = found.listing.samples[row].path
        if answer.bad is not None:
            raise DataError(f"{name} was readable during the scan, but now it {answer.bad}; start the study again.")
        if answer.values[1] != wanted[position_of[row]].tobytes().hex():
            raise DataError(
                f"{name} changed after it was scanned; start the study again when nothing changes its folder any more."
            )
        recorder.keep(row, answer)
        done += 1
        if progress is not None:
            progress(done, len(found.rows))

    try:
        read_images(found.listing, slots, config, [staging.target], receive)
    finally:
        recorder.flush()


def _copy(target: Path, staging: Staging, slots: NDArray[np.int64], checks: NDArray[np.uint32], *, deep: bool) -> None:
    """Copy the rows in order, and make 8-bit rows 16-bit ones if the array is `deep`."""
    with target.open("wb") as stream:
        stream.write(bytes(HEADER))
        for position, slot in enumerate(slots.tolist()):
            row = staging.row(slot)
            if row is None:
                raise ResourceError(
                    f"{staging.folder} changed while the images were put into order: start the study again."
                )
            if deep and not staging.is_deep(slot):
                row = (np.frombuffer(row, np.uint8).astype("<u2") * np.uint16(257)).tobytes()
            stream.write(row)
            checks[position] = zlib.crc32(row)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02 + (16 << 20):
        raise ResourceError(
            f"the images need {needed >> 20} MiB in {folder}, but {free >> 20} MiB are free: "
            "make room, choose a smaller data.image_size, or move the state with HARNESS_HOME."
        )
