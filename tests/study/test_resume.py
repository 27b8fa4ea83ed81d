"""What a study survives: signals, killed workers, more trials, other settings; and how it is taken away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from small_study import Watching, World, records, runs

from harness.errors import ConfigError, HarnessError, Interrupted, StudyHeldError
from harness.results.event_types import ModelLogged, TrialInterrupted, VerdictReached
from harness.search.optuna_journal import Location, open_storage
from harness.study import coordinator
from harness.study.lock import held


def test_an_interrupted_study_leaves_both_stores_consistent_and_continues(world: World) -> None:
    def stop(job: Any, record: Any) -> None:
        if job.trial_id == "fine_tuning/1":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        world.run(watching=Watching(on_epoch=stop))
    assert caught.value.exit_code == 130
    before = records(world)
    assert [r.trial_id for r in before] == ["feature_extraction/0", "fine_tuning/0", "feature_extraction/1"]
    assert held_in(world.folder().optuna_log) == ["fine_tuning/0#1"]  # none that would seem to run
    assert all(run.info.status in ("FINISHED", "KILLED") for run in runs("tiny", "search"))
    assert (world.root / "reports" / "tiny" / "index.html").exists()

    world.run()
    after = records(world)
    assert after[: len(before)] == before
    assert {r.attempt for r in after} == {1}
    ids = [r.trial_id for r in after]
    assert len(ids) == len(set(ids))
    assert {run.info.status for run in runs("tiny", "search")} <= {"FINISHED", "KILLED"}
    assert held_in(world.folder().optuna_log) == [f"fine_tuning/{slot}#1" for slot in range(3)]


def test_a_resumed_study_has_the_numbers_of_an_uninterrupted_one(
    at_home: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {r.trial_id: (r.config, r.score, [e.train_loss for e in r.epochs]) for r in records(at_home)}
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "again"))
    monkeypatch.setenv("HARNESS_REPORTS", str(tmp_path / "again-reports"))
    for stop_at in ("feature_extraction/0", "fine_tuning/1", "confirmation/"):

        def stop(job: Any, record: Any, stop_at: str = stop_at) -> None:
            if job.trial_id.startswith(stop_at):
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted) as caught:
            at_home.run(watching=Watching(on_epoch=stop))
        assert caught.value.exit_code == 143
    at_home.run()
    assert {r.trial_id: (r.config, r.score, [e.train_loss for e in r.epochs]) for r in records(at_home)} == whole


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_study_that_shares_frozen_work_has_the_numbers_of_one_that_does_not(world: World, executor: str) -> None:
    world.write("shared", executor=executor, epochs=3)
    world.write("alone", executor=executor, epochs=3, cache_gb=0)
    world.run("shared")
    world.run("alone")
    shared, alone = (
        {r.trial_id: (r.config, r.score, [e.train_loss for e in r.epochs]) for r in records(world, name)}
        for name in ("shared", "alone")
    )
    assert shared == alone
    reasons = {r.trial_id: r.cache_reason for r in records(world, "shared")}
    assert reasons["feature_extraction/0"] is None
    assert all("cache_gb" in (r.cache_reason or "") for r in records(world, "alone"))


def test_more_trials_continue_a_finished_study_and_the_first_verdict_stays(world: World) -> None:
    world.write(trials=1)
    world.run()
    world.write(trials=2)
    watching = Watching()
    world.run(watching=watching)
    searched = [r.trial_id for r in watching.records if r.kind == "search"]
    assert searched == ["feature_extraction/1", "fine_tuning/1"]
    looks = [verdict.look for verdict in world.of(VerdictReached)]
    assert looks == [1, 2]
    summary = json.loads((world.root / "reports" / "tiny" / "summary.json").read_text())
    assert summary["verdict"]["test_looks"] == 2


# What the study's file says instead, and what the refusal must say of it.
EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"epochs": 2}, "epochs: was 1, is 2"),
    "seed": ({"seed": 4}, "seed: was 0, is 4"),
    "objective": ({"objective": "accuracy"}, 'objective: was "balanced_accuracy", is "accuracy"'),
    "strategies": ({"strategies": ["fine_tuning"]}, "strategies: was"),
    "augmentation": ({"augmentation": "none"}, 'augmentation: was null, is "none"'),
    "try": ({"try": [{"strategy": "fine_tuning", "head_lr": 0.01}]}, "try: was [], is"),
    "image size": ({"image_size": 48}, "data.image_size: was 32, is 48"),
    "split": ({"split": {"group": r"slide(\d+)", "seed": 1}}, "data.split.seed: was 0, is 1"),
    "pruning": ({"pruning": False}, "pruning: was true, is false"),
    "confirmation": ({"confirmation": {"top": 2, "seeds": 2}}, "confirmation.top: was 1, is 2"),
    "threads": ({"threads": 2}, "threads: was 1, is 2"),
    "precision": ({"precision": "auto"}, 'precision: was "exact", is "auto"'),
    "weights": ({"weights": "bundled"}, "weights.mobilenet_v3_small: was"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_would_change_numbers_is_refused_by_field_and_nothing_is_written(at_home: World, edit: str) -> None:
    changes, told = EDITS[edit]
    data = {"source": {"folder": str(at_home.images)}, "image_size": 32, "split": {"group": r"slide(\d+)"}}
    own = {key: changes[key] for key in ("image_size", "split") if key in changes}
    before = {p: p.stat().st_mtime_ns for p in at_home.folder().path.rglob("*")}
    at_home.write(**({"data": data | own} if own else changes))
    try:
        with pytest.raises(ConfigError) as caught:
            at_home.run()
    finally:
        at_home.write()
    assert caught.value.exit_code == 2
    assert told in str(caught.value)
    assert len(caught.value.faults) == 1
    assert "AS=newname" in str(caught.value)
    assert {p: p.stat().st_mtime_ns for p in at_home.folder().path.rglob("*")} == before


def test_every_change_is_named_at_once(at_home: World) -> None:
    at_home.write(epochs=2, seed=4)
    try:
        with pytest.raises(ConfigError) as caught:
            at_home.run()
    finally:
        at_home.write()
    assert len(caught.value.faults) == 2


def test_what_the_page_shows_may_change_on_a_finished_study(world: World) -> None:
    world.write(trials=1)
    world.run()
    page = world.root / "reports" / "tiny" / "index.html"
    assert "data:image" in page.read_text()
    world.write(trials=1, description="Another question?", report={"images": False})
    assert world.run().already_finished
    assert "Another question?" in page.read_text()
    assert "data:image/" not in page.read_text()


def test_changed_bytes_of_the_data_are_another_study(world: World) -> None:
    world.write(trials=1)
    world.run()
    next(world.images.rglob("*.png")).unlink()
    with pytest.raises(ConfigError, match="data digest"):
        world.run()


def test_the_same_study_twice_is_refused_by_name(world: World) -> None:
    with held(world.folder()), pytest.raises(StudyHeldError, match=f"tiny is being run by process {os.getpid()}"):
        world.run()


def test_a_study_in_which_all_diverge_says_so_and_still_writes_its_report(world: World) -> None:
    world.write(search={"backbone": "mobilenet_v3_small", "head_lr": [1e30, 2e30], "batch_size": 16}, trials=2)
    with pytest.raises(HarnessError, match="smaller rates") as caught:
        world.run()
    assert caught.value.exit_code == 1
    assert {r.state for r in records(world)} == {"diverged"}
    assert (world.root / "reports" / "tiny" / "index.html").exists()


def test_the_list_shows_a_study_and_rm_takes_it_away_everywhere(world: World) -> None:
    from harness.study.studies import list_studies, remove_study

    world.write(trials=1)
    world.run()
    [entry] = list_studies()
    assert (entry.name, entry.state, entry.trials) == ("tiny", "finished", 2 + 4)
    with held(world.folder()):
        assert list_studies()[0].state == "running"
        with pytest.raises(StudyHeldError):
            remove_study(world.folder())
    remove_study(world.folder())
    assert list_studies() == []
    assert not (world.root / "reports" / "tiny").exists()
    assert not world.folder().path.exists()
    watching = Watching()
    world.run(watching=watching)  # the name is free again, in MLflow too
    assert len(watching.records) == 6
    assert len(runs("tiny", "search")) == 2


def test_a_study_copies_its_trials_to_a_database_of_its_user_and_rm_takes_them_away(world: World) -> None:
    from harness.study.studies import remove_study

    address = f"sqlite:///{world.root / 'mine.db'}"
    world.write(trials=1, storage=address)
    world.run()
    assert not world.folder().optuna_log.exists()
    assert held_in(address) == ["fine_tuning/0#1"]
    world.write(trials=1)  # another place for what is finished
    assert world.run().already_finished
    assert held_in(world.folder().optuna_log) == ["fine_tuning/0#1"]
    world.write(trials=1, storage=address)
    assert world.run().already_finished
    assert held_in(address) == ["fine_tuning/0#1"]
    remove_study(world.folder())
    with open_storage(address) as storage:
        assert optuna.get_all_study_names(storage) == []


def held_in(place: Location) -> list[str]:
    """Keys of the trials of fine-tuning in Optuna's storage."""
    with open_storage(place, create=False) as storage:
        trials = optuna.load_study(study_name="tiny/fine_tuning", storage=storage).trials
    return [trial.user_attrs["harness.key"] for trial in trials]


def test_a_killed_worker_costs_an_attempt_and_three_fail_the_slot(world: World) -> None:
    """Real workers: one killed once, one killed every time; every slot is filled, and no process is left."""
    world.write(executor="processes", trials=2, strategies=["fine_tuning"])

    def kill(job: Any, record: Any) -> None:
        once = job.trial_id == "fine_tuning/0" and job.attempt == 1
        if once or job.trial_id == "fine_tuning/1":
            for worker in workers():
                worker.kill()

    watching = Watching(on_epoch=kill)
    world.run(watching=watching)
    searched = {r.trial_id: r for r in watching.records if r.kind == "search"}
    assert (searched["fine_tuning/0"].state, searched["fine_tuning/0"].attempt) == ("complete", 2)
    assert (searched["fine_tuning/1"].state, searched["fine_tuning/1"].attempt) == ("failed", 3)
    assert "SIGKILL" in (searched["fine_tuning/1"].reason or "")
    assert [cut.attempt for cut in world.of(TrialInterrupted)] == [1, 1, 2]
    states = {run.data.tags["harness.key"]: run.info.status for run in runs("tiny", "search")}
    assert states == {
        "fine_tuning/0#1": "FAILED",
        "fine_tuning/0#2": "FINISHED",
        "fine_tuning/1#1": "FAILED",
        "fine_tuning/1#2": "FAILED",
        "fine_tuning/1#3": "FAILED",
    }
    assert workers() == []


def test_what_mlflow_missed_is_sent_when_the_finished_study_is_called_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(trials=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens on the discard port
    watching = Watching()
    world.run(watching=watching)
    assert sum("did not store everything" in text for text in watching.texts) == 1
    assert world.of(ModelLogged) == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert world.run().already_finished
    assert len(runs("tiny", "search")) == 2
    assert len(runs("tiny", "confirmation")) == 4
    assert len(world.of(ModelLogged)) == 1


def test_what_mlflow_has_no_time_for_after_a_signal_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(job: Any, record: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(coordinator, "STORES_SECONDS", -1.0)
    watching = Watching(on_epoch=stop)
    with pytest.raises(Interrupted):
        world.run(watching=watching)
    said = [text for text in watching.texts if "MLflow has not been given everything" in text]
    assert len(said) == 1
    assert "`harness sync tiny`" in said[0]
    again = Watching()
    world.run(watching=again)
    assert not any("MLflow has not been given" in text for text in again.texts)
    assert len(runs("tiny", "search")) == len([r for r in records(world) if r.kind == "search"])


def workers() -> list[psutil.Process]:
    """Worker processes of this one that live: the children of its fork server, or spawned ones."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if "spawn_main" in line or ("forkserver" in line and process.ppid() != os.getpid()):
                found.append(process)
    return found


def test_a_clock_that_is_set_back_makes_no_duration_negative(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class SetBack(datetime):
        calls = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            cls.calls += 1
            return datetime.now(tz) - timedelta(hours=cls.calls > 12)

    for module in ("harness.results.events", "harness.training.record_builder", "harness.study.session"):
        monkeypatch.setattr(f"{module}.datetime", SetBack)
    world.write(trials=2)
    world.run()
    assert SetBack.calls > 20
    times = [event.at for event in world.events()]
    assert times == sorted(times)
    for record in records(world):
        assert all(epoch.seconds > 0 for epoch in record.epochs)
        assert 0 < record.seconds_alone < 600
    for run in runs("tiny", "search"):
        assert run.info.end_time >= run.info.start_time
    assert 0 < json.loads((world.root / "reports" / "tiny" / "summary.json").read_text())["seconds_spent"] < 600
