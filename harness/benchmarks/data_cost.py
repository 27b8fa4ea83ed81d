"""Time and memory an image of reading a folder: `python -m harness.benchmarks.data_cost [IMAGES …]`.

For each number of images and each size of the array: a first start (scan and array), a restart, and a restart in which
the array must be made for another size. Each is a process of its own, in an empty home. The images are distinct JPEG
files, made here.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.atomic import atomic_write
from harness.config.data import DataConfig
from harness.data.dataset import arrays, open_dataset
from harness.data.parallel import cores

COUNTS = (1_000, 10_000)
SIDES = (64, 224)
FILE_SIDE = 256  # pixels a side of a file
CLASSES = 4
RESULT = Path("reports/benchmarks/data_cost.json")


def make_images(root: Path, count: int) -> None:
    """Write distinct JPEG files of FILE_SIDE pixels into class folders, on all cores."""
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(cores()) as pool:
        pool.starmap(_make, [(root, start, min(start + 500, count)) for start in range(0, count, 500)])


def _make(root: Path, start: int, end: int) -> None:
    random = np.random.default_rng(start)
    coarse = random.integers(0, 256, (FILE_SIDE // 8, FILE_SIDE // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((FILE_SIDE, FILE_SIDE), Image.Resampling.BICUBIC))
    long_ago = time.time() - 3600
    for number in range(start, end):
        pixels = np.roll(smooth, (number * 7) % FILE_SIDE, axis=1).copy()
        bits = (number >> np.arange(24)) & 1
        pixels[:8, : 8 * 24] = np.repeat(bits * 255, 8)[None, :, None].astype(np.uint8)  # so that no two are equal
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        path = root / f"class{number % CLASSES}" / f"image{number:07d}.jpg"
        path.write_bytes(stream.getvalue())
        os.utime(path, (long_ago, long_ago))


def start(root: Path, cache: Path, side: int) -> dict[str, float]:
    """Read a folder in a process of its own, as a study does before its first trial.

    Returns:
        `seconds` and, in bytes, `memory`: the growth of the process's peak memory over what its imports took.
    """
    command = [sys.executable, "-m", "harness.benchmarks.data_cost", "--one", str(root), str(cache), str(side)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _one(root: str, cache: str, side: int) -> None:
    config = DataConfig.model_validate({"source": {"folder": root}})
    before, started = _peak_memory(), time.perf_counter()
    dataset = open_dataset(config, cache=Path(cache), sizes=(side,))
    arrays(dataset, config, side, cache=Path(cache))
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started, "memory": _peak_memory() - before}))


def _peak_memory() -> int:
    """Return the peak memory of this process in bytes. It is not `ru_maxrss`, which counts a parent's, too."""
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def measure(count: int) -> dict[str, dict[str, float]]:
    """Return the seconds an image, and the bytes of memory an image, of each kind of start."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="data_cost") as folder:
        root = Path(folder) / "images"
        make_images(root, count)
        for side in SIDES:
            cache = Path(folder) / f"cache{side}"
            cache.mkdir()
            for kind, wanted in (("first start", side), ("restart", side), ("another size", 32)):
                one = start(root, cache, wanted)
                found[f"{kind}, {side} px"] = {
                    "seconds": round(one["seconds"], 3),
                    "milliseconds an image": round(1000 * one["seconds"] / count, 4),
                    "bytes an image": round(one["memory"] / count),
                }
            for path in cache.rglob("*"):
                if path.is_file():
                    path.unlink()
    return found


def _main(words: list[str]) -> None:
    if words[:1] == ["--one"]:
        _one(words[1], words[2], int(words[3]))
        return
    from harness.benchmarks.task import machine  # imports torch, which the processes that are measured do not need

    images: dict[str, Any] = {}
    result = {"machine": machine(), "cores": cores(), "file": f"JPEG of {FILE_SIDE} px", "images": images}
    for count in [int(word) for word in words] or COUNTS:
        images[str(count)] = measure(count)
        atomic_write(RESULT, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
