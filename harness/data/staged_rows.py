"""Write resized images, row by row, into the files from which an array is made.

Processes that decode images import this file, so it must not import anything slow.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.fit import Fit
from harness.data.decoding import decode
from harness.data.decoding.decode import Pixels, Resize
from harness.data.decoding.rules import Colour

HEADER = 128  # bytes before the first row: room for the header of a .npy file


def row_bytes(size: int, channels: int = 3, *, deep: bool) -> int:
    """Return the bytes of one square image with 8 bits a sample, or with 16 if it is `deep`."""
    return size * size * channels * (2 if deep else 1)


def file_of(folder: Path, *, deep: bool) -> Path:
    """Return the file of a folder that holds the images with 8 bits a sample, or those with 16."""
    return folder / ("uint16.npy" if deep else "uint8.npy")


@dataclass
class Target:
    """Where and how images of one size are written. Threads may write different slots at the same time."""

    folder: Path
    size: Fit
    resize: Resize
    background: Colour
    channels: int = 3
    value_range: tuple[float, float] | None = None  # of sample values, for `bit_depth: used`
    _open: dict[bool, int] = field(default_factory=dict, repr=False)

    def write(self, slot: int, pixels: Pixels) -> int:
        """Resize an image (height, width, channels), write it as row `slot`, and return the CRC-32 of the row.

        Raises:
            OSError: it cannot be written. The error names the file.
        """
        fitted = decode.fit(pixels, self.size, self.resize, self.background)
        deep = fitted.dtype == np.uint16
        row = np.ascontiguousarray(fitted, "<u2" if deep else np.uint8).tobytes()
        path = file_of(self.folder, deep=deep)
        try:
            if deep not in self._open:
                self._open[deep] = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            written, start = 0, HEADER + slot * len(row)
            while written < len(row):
                written += os.pwrite(self._open[deep], row[written:], start + written)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        return zlib.crc32(row)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` needs to make an equal target in another process."""
        return {
            "folder": os.fsencode(self.folder).hex(),
            "size": [self.size.side, self.size.shorter, self.size.interpolation],
            "resize": self.resize,
            "background": list(self.background),
            "channels": self.channels,
            "value_range": self.value_range,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Target:
        red, green, blue = values["background"]
        low_high = None if values["value_range"] is None else tuple(values["value_range"])
        folder = Path(os.fsdecode(bytes.fromhex(values["folder"])))
        return cls(folder, Fit(*values["size"]), values["resize"], (red, green, blue), values["channels"], low_high)
