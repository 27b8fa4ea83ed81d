"""The folder of shared activations: who uses what, and what goes when a new study needs the room."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from harness.atomic import atomic_write


@contextmanager
def pinned(folder: Path, study: str, sources: list[str]) -> Iterator[None]:
    """While the block runs, no other study removes activations of these images."""
    pin = folder / "pins" / f"{study}.json"
    atomic_write(pin, json.dumps({"pid": os.getpid(), "sources": sources}).encode())
    try:
        yield
    finally:
        pin.unlink(missing_ok=True)


def evict(folder: Path, sources: list[str], planned: int, budget: int) -> int:
    """Remove activations, those longest unused first, until what is left and what is planned fit the budget.

    Those of `sources` (image arrays) are this study's to use again, and those of running studies are pinned: they stay.

    Returns:
        Bytes that were removed.
    """
    if not folder.exists():
        return 0
    kept = set(sources) | _pins(folder)
    others = [entry for entry in entries(folder) if source(entry) not in kept]
    total = sum(_bytes(entry) for entry in others)
    removed = 0
    for entry in sorted(others, key=_last_used):
        if total - removed + planned <= budget:
            break
        removed += _bytes(entry)
        shutil.rmtree(entry, ignore_errors=True)
    return removed


def entries(folder: Path) -> list[Path]:
    """The folders of all shared activations."""
    return [path for path in folder.iterdir() if path.is_dir() and path.name != "pins"]


def source(entry: Path) -> str | None:
    """Name of the image array that an entry was made of; None where its note does not say."""
    try:
        found: dict[str, Any] = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        return str(found["identity"]["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes(entry: Path) -> int:
    """What it takes on the disk: the files are sparse."""
    return sum(file.stat().st_blocks * 512 for file in entry.iterdir())


def _last_used(entry: Path) -> float:
    """Every process that opens an entry writes its note."""
    note = entry / "meta.json"
    return note.stat().st_mtime if note.exists() else 0.0


def _pins(folder: Path) -> set[str]:
    """Image arrays that running studies use."""
    found: set[str] = set()
    for pin in (folder / "pins").glob("*.json"):
        try:
            values = json.loads(pin.read_text(encoding="utf-8"))
            if psutil.pid_exists(int(values["pid"])):
                found.update(values["sources"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
