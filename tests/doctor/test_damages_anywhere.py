"""Files of a finished study that are cut off or changed at random places: no check stumbles."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from damaging import diagnosed, trials
from small_study import World

from harness.results.paths import home
from harness.tracking.address import default_address
from harness.tracking.mlflow_store import close_store


@pytest.mark.slow
def test_any_file_may_be_cut_off_or_changed_anywhere(copied: World, tmp_path: Path) -> None:
    """Seeded random places of every file in turn: no check stumbles, and what could be read stays."""
    hurt_anywhere(copied, tmp_path, every=True)


def test_some_files_may_be_cut_off_or_changed_anywhere(copied: World, tmp_path: Path) -> None:
    hurt_anywhere(copied, tmp_path, every=False)


def hurt_anywhere(world: World, tmp_path: Path, *, every: bool) -> None:
    rng = random.Random(5 if every else 7)
    whole = tmp_path / "whole"
    shutil.copytree(home(), whole)
    files = [path for path in world.folder().path.rglob("*") if path.is_file()]
    files.append(home() / "mlflow.db")
    harms = [(path, kind) for path in sorted(files) for kind in ("cut", "flip")]
    for path, kind in harms if every else rng.sample(harms, 8):
        size = path.stat().st_size
        data = bytearray(path.read_bytes())
        if kind == "cut":
            data = data[: rng.randrange(size)]
        else:
            data[rng.randrange(size)] ^= rng.randrange(1, 256)
        path.write_bytes(data)
        before = trials(world)
        what = f"{kind} {path.name}"
        checked, repaired = diagnosed(), diagnosed(fix=True)
        said = [str(finding) for finding in (*checked.left, *repaired.left)]
        assert not any("cannot be checked" in text for text in said), (what, said)
        assert not repaired.failed, (what, repaired.failed)
        assert before.items() <= trials(world).items(), what
        close_store(default_address())
        shutil.rmtree(home())
        shutil.copytree(whole, home(), dirs_exist_ok=True)  # home() makes the folder
