"""Eviction: removes cached activations that no running study uses, when a new study needs the space."""

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
    """Keep other studies from removing activations of these images while the block runs.

    Args:
        study: name of the study.
        sources: names of the image arrays that the study uses.
    """
    pin = folder / "pins" / f"{study}.json"
    atomic_write(pin, json.dumps({"pid": os.getpid(), "sources": sources}).encode())
    try:
        yield
    finally:
        pin.unlink(missing_ok=True)


def evict(folder: Path, sources: list[str], planned: int, budget: int) -> int:
    """Remove activations, least recently used first, until the remaining ones and the planned ones fit the budget.

    Activations of this study's image arrays (`sources`) and those that running studies have pinned are never removed.

    Args:
        planned: bytes that this study is going to write.
        budget: bytes.

    Returns:
        The number of bytes removed.
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
    """Return the folders of all cache entries."""
    return [path for path in folder.iterdir() if path.is_dir() and path.name != "pins"]


def source(entry: Path) -> str | None:
    """Return the name of the image array that an entry was computed from; None if its metadata does not name one."""
    try:
        found: dict[str, Any] = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        return str(found["identity"]["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes(entry: Path) -> int:
    """Return the space that an entry takes on the disk. It is less than the files' lengths, because they are sparse."""
    return sum(file.stat().st_blocks * 512 for file in entry.iterdir())


def _last_used(entry: Path) -> float:
    """Return when an entry was last used: every process that opens an entry writes its metadata."""
    meta = entry / "meta.json"
    return meta.stat().st_mtime if meta.exists() else 0.0


def _pins(folder: Path) -> set[str]:
    """Return the names of the image arrays that running studies use."""
    found: set[str] = set()
    for pin in (folder / "pins").glob("*.json"):
        try:
            values = json.loads(pin.read_text(encoding="utf-8"))
            if psutil.pid_exists(int(values["pid"])):
                found.update(values["sources"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
