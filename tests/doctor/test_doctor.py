"""A finished study is damaged in every way we know; doctor names it, repairs it, and no finished trial is lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from damages import DAMAGES, Damage
from damaging import confirmed, cut, flip, of_event, remove_database, remove_journal
from small_study import Watching, World, draw_images, records

from harness.doctor.check import Diagnosis, examine
from harness.errors import HarnessError, StudyHeldError
from harness.results.event_types import Explored, ModelLogged, SessionStarted
from harness.results.events import EventLog, scan_log
from harness.results.paths import home
from harness.results.study_state import StudyState
from harness.results.trial_id import file_stem
from harness.study.lock import held
from harness.tracking.address import default_address
from harness.tracking.mlflow_store import close_store


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A small study with all that a study can leave behind, as it ended."""
    root = tmp_path_factory.mktemp("ran")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(root / "home"))
        patch.setenv("HARNESS_REPORTS", str(root / "reports"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made = World(root, draw_images(root / "cells"))
        made.write(trials=2, shifts=["blur"], data_sizes=[0.5])
        made.run()
    yield made


@pytest.fixture
def hurt(ran: World, tmp_path: Path) -> World:
    """A copy of its home, to be damaged."""
    shutil.copytree(ran.root / "home", home(), dirs_exist_ok=True)
    remove_journal(home() / "mlflow.db")
    shutil.copytree(ran.root / "studies", tmp_path / "studies")
    return World(tmp_path, ran.images)


def diagnosed(*, fix: bool = False) -> Diagnosis:
    return examine(World(Path(), Path()).folder(), fix=fix)


def trials(world: World) -> dict[str, Any]:
    """Every finished trial that can be read."""
    events = scan_log(world.folder().events).events
    return StudyState.of(events).by_id


def test_a_finished_study_is_well(hurt: World) -> None:
    found = diagnosed()
    assert found.well, list(found.lines())
    assert found.trials == len(records(hurt)) > 8
    assert any("checkpoints" in text for text in found.checked)
    assert list(found.lines())[-1] == f"tiny: all is well, {found.trials} finished trials."


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_damage_is_named_repaired_and_costs_no_trial(hurt: World, damage: Damage) -> None:
    before = trials(hurt)
    damage.do(hurt)
    found = diagnosed()
    assert any(damage.said in str(finding) for finding in found.left), [str(f) for f in found.left]
    assert not found.repaired
    repaired = diagnosed(fix=True)
    assert repaired.repaired and not repaired.failed, list(repaired.lines())
    if damage.needs_images:  # no log can hold a model
        assert ["the model" in str(finding) for finding in repaired.left] == [True], list(repaired.lines())
        assert hurt.run().already_finished
    else:
        assert repaired.well, list(repaired.lines())
    assert diagnosed().well, list(diagnosed().lines())
    assert trials(hurt) == before


def test_a_check_alone_changes_nothing(hurt: World) -> None:
    confirmed(hurt).unlink()
    cut(hurt.folder().optuna_log, 5)
    before = contents(hurt.folder().path)
    assert not diagnosed().well
    assert contents(hurt.folder().path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_log_with_a_hole_is_told_and_left_as_it_is(hurt: World) -> None:
    path = hurt.folder().events
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"kind":"trial_finished"' in line)
    lines[place] = b"?" * 40 + b"\n"
    path.write_bytes(b"".join(lines))
    before = contents(hurt.folder().path)
    found = diagnosed(fix=True)
    [finding] = found.left
    assert f"41 bytes from line {place + 1} on cannot be read" in str(finding)
    assert f"{len(trials(hurt))} finished trials can still be read" in str(finding)
    assert finding.repair is None and not found.repaired
    assert contents(hurt.folder().path) == before


def test_a_byte_of_the_log_that_changed_is_named_with_the_way_out(hurt: World) -> None:
    flip(hurt.folder().events)
    before = contents(hurt.folder().path)
    found = diagnosed(fix=True)
    assert not found.repaired and contents(hurt.folder().path) == before
    [said] = [str(finding) for finding in found.left]
    assert "and with them 1 of" in said and "Restore the file from a copy" in said and "AS=newname" in said
    with pytest.raises(HarnessError, match="is damaged in line"):
        hurt.run()


def test_a_running_study_may_be_checked_and_is_not_repaired(hurt: World) -> None:
    log = EventLog(hurt.folder().events)
    log.append(SessionStarted(environment={}, resumed=True))
    log.close()
    with held(hurt.folder()):
        found = diagnosed()
        assert found.well, list(found.lines())
        assert any("is running" in line for line in found.lines())
        with pytest.raises(StudyHeldError) as caught:
            diagnosed(fix=True)
    assert caught.value.exit_code == 75


def test_a_repair_that_cannot_be_made_is_told_with_its_reason_and_hinders_no_other(
    hurt: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are gone; the leftover is removed all the same."""
    hurt.folder().manifest.unlink()
    of_event(hurt, "test").unlink()
    (hurt.folder().path / ".x.partial").write_text("half")

    def gone(*words: Any, **options: Any) -> None:
        raise HarnessError("the folder of the images is not there")

    monkeypatch.setattr("harness.doctor.rebuild.prepare", gone)
    found = diagnosed(fix=True)
    assert len(found.left) == 2
    assert sum("Not repaired: the folder of the images is not there." in line for line in found.lines()) == 2
    assert len(found.repaired) == 1 and not (hurt.folder().path / ".x.partial").exists()


def test_a_model_that_trains_to_another_score_is_not_taken(hurt: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness.study.executors.run_task as doing

    confirmed(hurt).unlink()
    real = doing.run_trial

    def other(*words: Any, **options: Any) -> Any:
        record = real(*words, **options)
        object.__setattr__(record, "score", 0.0123)
        return record

    monkeypatch.setattr(doing, "run_trial", other)
    before = trials(hurt)
    found = diagnosed(fix=True)
    assert any("scores 0.0123 instead of" in line for line in found.lines())
    assert not confirmed(hurt).exists()
    assert trials(hurt) == before


def test_a_database_that_others_use_is_not_moved_under_them(hurt: World) -> None:
    remove_database("mlflow.db")
    (home() / "mlflow.db").write_bytes(b"no database")
    shutil.copytree(hurt.folder().path, hurt.folder("other").path)
    with held(hurt.folder("other")):
        found = diagnosed(fix=True)
    assert any("other runs and has it open" in line for line in found.lines())
    assert (home() / "mlflow.db").read_bytes() == b"no database"
    repaired = diagnosed(fix=True)
    assert ["the model" in str(finding) for finding in repaired.left] == [True], list(repaired.lines())
    assert any("`harness sync` sends those of other" in text for text in repaired.repaired)


def test_what_the_study_needs_again_it_trains_again_by_itself(hurt: World) -> None:
    """A confirmation's model is gone when its shifted images are asked for: the scores are the log's."""
    before = trials(hurt)
    for path in hurt.folder().checkpoints.glob("confirmation-*"):
        path.unlink()
    hurt.write(trials=2, shifts=["blur", "noise"], data_sizes=[0.5])
    watching = Watching()
    hurt.run(watching=watching)
    assert trials(hurt) == before
    again = [text for text in watching.texts if "it was trained again and got the same score" in text]
    shifts = [one for one in hurt.of(Explored) if one.shift == "noise"]
    assert len(again) == len(shifts) == 4


def test_a_recomrepaired_model_whose_checkpoint_is_gone_does_not_end_the_command(hurt: World) -> None:
    [logged] = hurt.of(ModelLogged)
    gone = hurt.folder().checkpoints / f"{file_stem(logged.trial_id)}.safetensors"
    gone.unlink()
    remove_database("mlflow.db")
    watching = Watching()
    assert hurt.run(watching=watching).already_finished
    assert any("was not logged" in text and "harness doctor tiny --fix" in text for text in watching.texts)
    assert diagnosed(fix=True).left  # the model itself is still not in MLflow
    hurt.run()
    assert diagnosed().well, list(diagnosed().lines())


@pytest.mark.slow
def test_any_file_may_be_cut_off_or_changed_anywhere(hurt: World, tmp_path: Path) -> None:
    """Seeded random places of every file in turn: no check stumbles, and what could be read stays."""
    hurt_anywhere(hurt, tmp_path, every=True)


def test_some_files_may_be_cut_off_or_changed_anywhere(hurt: World, tmp_path: Path) -> None:
    hurt_anywhere(hurt, tmp_path, every=False)


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


def test_nobody_is_left_holding_the_study(hurt: World) -> None:
    diagnosed(fix=True)
    with held(hurt.folder()):
        assert hurt.folder().owner.read_text() == str(os.getpid())
        assert psutil.pid_exists(os.getpid())
