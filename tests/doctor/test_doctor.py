"""What doctor checks, repairs, and leaves alone; the damages that it knows are in `test_damages.py`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from damaging import confirmed, cut, diagnosed, flip, of_event, remove_database, trials
from filelock import FileLock
from small_study import Watching, World, records

from harness.errors import HarnessError, StudyHeldError
from harness.results.event_types import Explored, ModelLogged, SessionStarted
from harness.results.events import EventLog
from harness.results.paths import home
from harness.results.trial_id import file_stem
from harness.study.lock import held, owner
from harness.tracking.address import default_address
from harness.tracking.mlflow_models import load_model


def test_a_finished_study_is_well(copied: World) -> None:
    found = diagnosed()
    assert found.well, list(found.lines())
    assert found.trials == len(records(copied)) > 8
    assert any("checkpoints" in text for text in found.checked)
    assert list(found.lines())[-1] == f"tiny: all is well, {found.trials} finished trials."


def test_a_check_alone_changes_nothing(copied: World) -> None:
    confirmed(copied).unlink()
    cut(copied.folder().optuna_log, 5)
    before = contents(copied.folder().path)
    assert not diagnosed().well
    assert contents(copied.folder().path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_log_with_a_hole_is_told_and_left_as_it_is(copied: World) -> None:
    path = copied.folder().events
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"kind":"trial_finished"' in line)
    lines[place] = b"?" * 40 + b"\n"
    path.write_bytes(b"".join(lines))
    before = contents(copied.folder().path)
    found = diagnosed(fix=True)
    [finding] = found.left
    assert f"41 bytes from line {place + 1} on cannot be read" in str(finding)
    assert f"{len(trials(copied))} finished trials can still be read" in str(finding)
    assert finding.repair is None and not found.repaired
    assert contents(copied.folder().path) == before


def test_a_byte_of_the_log_that_changed_is_named_with_the_way_out(copied: World) -> None:
    flip(copied.folder().events)
    before = contents(copied.folder().path)
    found = diagnosed(fix=True)
    assert not found.repaired and contents(copied.folder().path) == before
    [said] = [str(finding) for finding in found.left]
    assert "and with them 1 of" in said and "Restore the file from a copy" in said and "AS=newname" in said
    with pytest.raises(HarnessError, match="is damaged in line"):
        copied.run()


def test_a_running_study_may_be_checked_and_is_not_repaired(copied: World) -> None:
    log = EventLog(copied.folder().events)
    log.append(SessionStarted(environment={}, resumed=True))
    log.close()
    with held(copied.folder()):
        found = diagnosed()
        assert found.well, list(found.lines())
        assert any("is running" in line for line in found.lines())
        with pytest.raises(StudyHeldError) as caught:
            diagnosed(fix=True)
    assert caught.value.exit_code == 75


def test_a_repair_that_cannot_be_made_is_told_with_its_reason_and_hinders_no_other(
    copied: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are gone; the leftover is removed all the same."""
    copied.folder().manifest.unlink()
    of_event(copied, "test").unlink()
    (copied.folder().path / ".x.partial").write_text("half")

    def gone(*words: Any, **options: Any) -> None:
        raise HarnessError("the folder of the images is not there")

    monkeypatch.setattr("harness.doctor.rebuild.prepare", gone)
    found = diagnosed(fix=True)
    assert len(found.left) == 2
    assert sum("Not repaired: the folder of the images is not there." in line for line in found.lines()) == 2
    assert len(found.repaired) == 1 and not (copied.folder().path / ".x.partial").exists()


def test_a_model_that_trains_to_another_score_is_not_taken(copied: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness.study.executors.run_task as doing

    confirmed(copied).unlink()
    real = doing.run_trial

    def other(*words: Any, **options: Any) -> Any:
        record = real(*words, **options)
        object.__setattr__(record, "score", 0.0123)
        return record

    monkeypatch.setattr(doing, "run_trial", other)
    before = trials(copied)
    found = diagnosed(fix=True)
    assert any("and scores 0.0123" in line for line in found.lines())
    assert not confirmed(copied).exists()
    assert trials(copied) == before


def test_a_database_that_others_use_is_not_moved_under_them(copied: World) -> None:
    remove_database("mlflow.db")
    (home() / "mlflow.db").write_bytes(b"no database")
    shutil.copytree(copied.folder().path, copied.folder("other").path)
    with held(copied.folder("other")):
        found = diagnosed(fix=True)
    assert any("the study other is running and uses it" in line for line in found.lines())
    assert (home() / "mlflow.db").read_bytes() == b"no database"
    repaired = diagnosed(fix=True)
    assert ["the model" in str(finding) for finding in repaired.left] == [True], list(repaired.lines())
    assert any("`harness sync` sends those of other" in text for text in repaired.repaired)


def test_staged_images_that_a_process_goes_on_with_are_left_alone(copied: World) -> None:
    folder = home() / "cache" / "staged" / "0f"
    folder.mkdir(parents=True)
    (folder / "uint8.npy").write_bytes(bytes(3_000_000))
    lock = FileLock(folder.with_suffix(".lock"))
    with lock:
        assert diagnosed(fix=True).well and folder.exists()
    [finding] = diagnosed().left
    assert "cache/staged/0f: " in str(finding) and "it takes 3.0 MB" in str(finding) and folder.exists()
    with lock:
        assert finding.repair is not None and "kept" in finding.repair() and folder.exists()
    assert diagnosed(fix=True).well and not folder.exists()


def test_what_the_study_needs_again_it_trains_again_by_itself(copied: World) -> None:
    """A confirmation's model is gone when its shifted images are asked for: the scores are the log's."""
    before = trials(copied)
    for path in copied.folder().checkpoints.glob("confirmation-*"):
        path.unlink()
    copied.write(shifts=["blur", "noise"], data_sizes=[0.5])
    watching = Watching()
    copied.run(watching=watching)
    assert trials(copied) == before
    again = [text for text in watching.texts if "it was trained again and got the same score" in text]
    shifts = [one for one in copied.of(Explored) if one.shift == "noise"]
    assert len(again) == len(shifts) == 4


def test_a_recommended_model_whose_checkpoint_is_gone_does_not_end_the_command(copied: World) -> None:
    [logged] = copied.of(ModelLogged)
    gone = copied.folder().checkpoints / f"{file_stem(logged.trial_id)}.safetensors"
    gone.unlink()
    remove_database("mlflow.db")
    watching = Watching()
    assert copied.run(watching=watching).already_finished
    assert any("was not logged" in text and "harness doctor tiny --fix" in text for text in watching.texts)
    assert diagnosed(fix=True).left  # the model itself is still not in MLflow
    copied.run()
    assert diagnosed().well, list(diagnosed().lines())


def test_a_moved_home_is_named_and_mended_and_its_model_can_be_loaded(
    copied: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = home()
    before.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "elsewhere"))
    database = (tmp_path / "elsewhere" / "mlflow.db").read_bytes()
    [finding] = diagnosed().left
    assert f"mlflow.db: it names {before}/artifacts as the folder of its artifacts, but the home is" in str(finding)
    assert (tmp_path / "elsewhere" / "mlflow.db").read_bytes() == database
    repaired = diagnosed(fix=True)
    assert repaired.well and len(repaired.repaired) == 1, list(repaired.lines())
    assert str(tmp_path / "elsewhere" / "artifacts") in repaired.repaired[0]
    assert diagnosed().well
    [logged] = copied.of(ModelLogged)
    images = torch.zeros(1, 3, 32, 32)
    assert load_model(default_address(), logged.uri)(images).shape == (1, 3)
    assert not before.exists()


def test_nobody_is_left_holding_the_study(copied: World) -> None:
    diagnosed(fix=True)
    with held(copied.folder()):
        assert owner(copied.folder()) == os.getpid()
