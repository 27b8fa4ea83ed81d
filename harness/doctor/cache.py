"""Check the part of the cache that the study uses: image arrays and shared activations. All can be made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness.config.space import fits
from harness.data.array_file import is_whole
from harness.data.dataset import array_path
from harness.doctor.case import Case, Finding
from harness.results.paths import home
from harness.training.frozen_features.eviction import entries, source
from harness.training.frozen_features.store import damaged_rows, forget_rows

SAMPLE = 200  # rows of each file of activations that are checked


def check(case: Case) -> Iterator[Finding]:
    """Check the checksums of the study's image arrays and of a sample of the activations made from them."""
    digest = case.fingerprint.get("data digest")
    cache = home() / "cache"
    if case.study is None or not isinstance(digest, str):
        return
    used = case.fingerprint.get("value range")
    value_range = (used[0], used[1]) if isinstance(used, list | tuple) and len(used) == 2 else None
    arrays = [array_path(digest, case.study.data, one, value_range, cache=cache) for one in fits(case.study)]
    for path in arrays:
        if path.exists() and not is_whole(path):
            yield Finding(
                f"cache/images/{path.name}",
                "its checksum does not fit",
                "the next study decodes the images again",
                "--fix removes it.",
                partial(_removed, path),
            )
    yield from _precision_notes(cache / "precision.json")
    folder = cache / "prefix"
    if not folder.is_dir() or case.running:
        return
    checked = 0
    for entry in entries(folder):
        images = source(entry)
        if images is None and (entry / "meta.json").exists():  # without that file it may be in the making
            yield Finding(
                f"cache/prefix/{entry.name}",
                "its meta.json cannot be read",
                "its activations cannot be used",
                "--fix removes it.",
                partial(_entry_removed, entry),
            )
        elif images in {path.stem for path in arrays}:
            found, rows = damaged_rows(entry, SAMPLE)
            checked += rows
            for file, bad in found.items():
                yield Finding(
                    f"cache/prefix/{entry.name}/{file}",
                    f"{bad} of the rows that were checked fail their checksum",
                    "they are computed again when they are needed",
                    "--fix marks all such rows as missing.",
                    partial(_forgotten, entry),
                )
    case.checked.append(f"{checked} rows of shared activations (at most {SAMPLE} of a file)")


def _precision_notes(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    try:
        if isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
            return
    except (OSError, ValueError):
        pass
    yield Finding(
        "cache/precision.json",
        "it cannot be read",
        "the next study times the machine's arithmetic again",
        "--fix removes it.",
        partial(_removed, path),
    )


def _removed(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "removed; it is made again when it is needed"


def _entry_removed(entry: Path) -> str:
    shutil.rmtree(entry)
    return "removed; it is computed again when it is needed"


def _forgotten(entry: Path) -> str:
    return f"{forget_rows(entry)} rows are marked as missing, and are computed again when they are needed"
