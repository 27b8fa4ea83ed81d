"""What a study survives: signals, killed workers, more trials, other settings; and how it is taken away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from typing import Any

import optuna
import psutil
import pytest
from canned_executor import Script
from damaging import remove_database
from small_study import Watching, World, records, runs

from harness.errors import ConfigError, HarnessError, Interrupted, StudyHeldError
from harness.results.event_types import ModelLogged, TrialInterrupted, VerdictReached
from harness.search.optuna_journal import Location, open_storage
from harness.study import coordinator, export
from harness.study.lock import held


def test_an_interrupted_study_leaves_both_stores_consistent_and_continues(canned_world: World) -> None:
    def stop(job: Any, record: Any) -> None:
        if job.trial_id == "fine_tuning/1":
            os.kill(os.getpid(), signal.SIGINT)

    canned_world.write(trials=3)
    with pytest.raises(Interrupted) as caught:
        canned_world.run(watching=Watching(on_epoch=stop))
    assert caught.value.exit_code == 130
    before = records(canned_world)
    assert [r.trial_id for r in before] == ["feature_extraction/0", "fine_tuning/0", "feature_extraction/1"]
    assert held_in(canned_world.folder().optuna_log) == ["fine_tuning/0#1"]  # none that would seem to run
    assert all(run.info.status in ("FINISHED", "KILLED") for run in runs("tiny", "search"))
    assert (canned_world.root / "reports" / "tiny" / "index.html").exists()

    canned_world.run()
    after = records(canned_world)
    assert after[: len(before)] == before
    assert {r.attempt for r in after} == {1}
    ids = [r.trial_id for r in after]
    assert len(ids) == len(set(ids))
    assert {run.info.status for run in runs("tiny", "search")} <= {"FINISHED", "KILLED"}
    assert held_in(canned_world.folder().optuna_log) == [f"fine_tuning/{slot}#1" for slot in range(3)]


def numbers(world: World, name: str) -> dict[str, Any]:
    return {r.trial_id: (r.config, r.state, r.score, [e.train_loss for e in r.epochs]) for r in records(world, name)}


def test_a_resumed_study_has_the_numbers_of_an_uninterrupted_one(canned_world: World) -> None:
    """The same configurations are drawn, by TPE too, the same ones are pruned and confirmed."""
    for name in ("whole", "resumed"):
        canned_world.write(name, trials=9, epochs=4)
    canned_world.run("whole")
    for stop_at in ("fine_tuning/1", "fine_tuning/6", "confirmation/"):

        def stop(job: Any, record: Any, stop_at: str = stop_at) -> None:
            if job.trial_id.startswith(stop_at) and record.epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted) as caught:
            canned_world.run("resumed", watching=Watching(on_epoch=stop))
        assert caught.value.exit_code == 143
    canned_world.run("resumed")
    assert numbers(canned_world, "resumed") == numbers(canned_world, "whole")
    assert {r.state for r in records(canned_world, "whole")} == {"complete", "pruned"}


def test_a_study_in_another_thread_has_the_numbers_of_one_in_the_main_thread(canned_world: World) -> None:
    """A notebook or a server runs it there, where Python allows no signal handlers."""
    for name in ("main", "other"):
        canned_world.write(name, trials=3)
    canned_world.run("main")
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(canned_world.run, "other").result()
    assert result.report.exists()
    assert numbers(canned_world, "other") == numbers(canned_world, "main")
    assert all(run.info.status == "FINISHED" for run in runs("other", "search"))


@pytest.mark.parametrize(
    ("sharing", "alone"),
    [
        ("processes", "inline"),
        pytest.param("inline", "inline", marks=pytest.mark.slow),
        pytest.param("processes", "processes", marks=pytest.mark.slow),
    ],
)
def test_a_study_that_shares_frozen_work_has_the_numbers_of_one_that_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch, sharing: str, alone: str
) -> None:
    monkeypatch.setattr(export, "log_recommended", lambda session, trial_id: None)  # which takes seconds
    world.write("shared", executor=sharing, epochs=2)
    world.write("alone", executor=alone, epochs=2, cache_gb=0)
    world.run("shared")
    world.run("alone")
    assert numbers(world, "shared") == numbers(world, "alone")
    reasons = {r.trial_id: r.cache_reason for r in records(world, "shared")}
    assert reasons["feature_extraction/0"] is None
    assert all("cache_gb" in (r.cache_reason or "") for r in records(world, "alone"))


def test_more_trials_continue_a_finished_study_and_the_first_verdict_stays(canned_world: World) -> None:
    canned_world.write(trials=1)
    canned_world.run()
    canned_world.write(trials=2)
    watching = Watching()
    canned_world.run(watching=watching)
    searched = [r.trial_id for r in watching.records if r.kind == "search"]
    assert searched == ["feature_extraction/1", "fine_tuning/1"]
    looks = [verdict.look for verdict in canned_world.of(VerdictReached)]
    assert looks == [1, 2]
    summary = json.loads((canned_world.root / "reports" / "tiny" / "summary.json").read_text())
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


def test_what_the_page_shows_may_change_on_a_finished_study(copied: World) -> None:
    page = copied.root / "reports" / "tiny" / "index.html"
    assert "data:image" in page.read_text()
    copied.write(description="Another question?", report={"images": False})
    assert copied.run().already_finished
    assert "Another question?" in page.read_text()
    assert "data:image/" not in page.read_text()


def test_changed_bytes_of_the_data_are_another_study(copied: World) -> None:
    next(copied.images.rglob("*.png")).unlink()
    with pytest.raises(ConfigError, match="data digest"):
        copied.run()


def test_the_same_study_twice_is_refused_by_name(canned_world: World) -> None:
    with (
        held(canned_world.folder()),
        pytest.raises(StudyHeldError, match=f"tiny is being run by process {os.getpid()}"),
    ):
        canned_world.run()


def test_a_study_in_which_all_diverge_says_so_and_still_writes_its_report(canned_world: World, canned: Script) -> None:
    canned.ends = lambda job: "diverged"
    with pytest.raises(HarnessError, match="smaller rates") as caught:
        canned_world.run()
    assert caught.value.exit_code == 1
    assert {r.state for r in records(canned_world)} == {"diverged"}
    assert (canned_world.root / "reports" / "tiny" / "index.html").exists()


def test_the_list_shows_a_study_and_rm_takes_it_away_everywhere(canned_world: World) -> None:
    from harness.study.studies import list_studies, remove_study

    canned_world.write(trials=1)
    canned_world.run()
    [entry] = list_studies()
    assert (entry.name, entry.state, entry.trials) == ("tiny", "finished", 2 + 4)
    with held(canned_world.folder()):
        assert list_studies()[0].state == "running"
        with pytest.raises(StudyHeldError):
            remove_study(canned_world.folder())
    remove_study(canned_world.folder())
    assert list_studies() == []
    assert not (canned_world.root / "reports" / "tiny").exists()
    assert not canned_world.folder().path.exists()
    watching = Watching()
    canned_world.run(watching=watching)  # the name is free again, in MLflow too
    assert len(watching.records) == 6
    assert len(runs("tiny", "search")) == 2


def test_a_study_copies_its_trials_to_a_database_of_its_user_and_rm_takes_them_away(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.study.studies import remove_study

    monkeypatch.chdir(canned_world.root)  # where the user's files name the database
    address = f"sqlite:///{canned_world.root / 'mine.db'}"
    canned_world.write(trials=1, storage=address)
    canned_world.run()
    assert not canned_world.folder().optuna_log.exists()
    assert held_in(address) == ["fine_tuning/0#1"]
    canned_world.write(trials=1)  # another place for what is finished
    assert canned_world.run().already_finished
    assert held_in(canned_world.folder().optuna_log) == ["fine_tuning/0#1"]
    canned_world.write(trials=1, storage=address)
    assert canned_world.run().already_finished
    assert held_in(address) == ["fine_tuning/0#1"]
    remove_study(canned_world.folder())
    with open_storage(address) as storage:
        assert optuna.get_all_study_names(storage) == []


def held_in(place: Location) -> list[str]:
    """Keys of the trials of fine-tuning in Optuna's storage."""
    with open_storage(place, create=False) as storage:
        trials = optuna.load_study(study_name="tiny/fine_tuning", storage=storage).trials
    return [trial.user_attrs["harness.key"] for trial in trials]


def test_a_killed_worker_costs_an_attempt_and_three_fail_the_slot(canned_world: World, canned: Script) -> None:
    """One dies once, one every time; every slot is filled."""
    canned.deaths.update({"fine_tuning/0": 1, "fine_tuning/1": 99})
    canned_world.write(strategies=["fine_tuning"])
    watching = Watching()
    canned_world.run(watching=watching)
    searched = {r.trial_id: r for r in watching.records if r.kind == "search"}
    assert (searched["fine_tuning/0"].state, searched["fine_tuning/0"].attempt) == ("complete", 2)
    assert (searched["fine_tuning/1"].state, searched["fine_tuning/1"].attempt) == ("failed", 3)
    assert "SIGKILL" in (searched["fine_tuning/1"].reason or "")
    assert [cut.attempt for cut in canned_world.of(TrialInterrupted)] == [1, 1, 2]
    states = {run.data.tags["harness.key"]: run.info.status for run in runs("tiny", "search")}
    assert states == {
        "fine_tuning/0#1": "FAILED",
        "fine_tuning/0#2": "FINISHED",
        "fine_tuning/1#1": "FAILED",
        "fine_tuning/1#2": "FAILED",
        "fine_tuning/1#3": "FAILED",
    }


def test_a_killed_worker_is_replaced_and_none_is_left(world: World) -> None:
    """Real workers: the trial is tried again in another one, and no process outlives the study."""
    world.write(executor="processes", trials=1, strategies=["fine_tuning"])
    killed: list[int] = []

    def kill(job: Any, record: Any) -> None:
        if not killed:
            for worker in workers():
                killed.append(worker.pid)
                worker.kill()

    world.run(watching=Watching(on_epoch=kill))
    assert len(killed) == 1
    [searched] = [r for r in records(world) if r.kind == "search"]
    assert (searched.state, searched.attempt) == ("complete", 2)
    [cut] = world.of(TrialInterrupted)
    assert (cut.attempt, cut.cause) == (1, "worker_died")
    assert "SIGKILL" in cut.reason
    assert workers() == []


def test_what_mlflow_missed_is_sent_when_the_finished_study_is_called_again(
    canned_world: World, canned: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned.checkpoints = True
    canned_world.write(trials=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens on the discard port
    watching = Watching()
    canned_world.run(watching=watching)
    assert sum("did not store everything" in text for text in watching.texts) == 1
    assert any("`harness sync tiny` sends what is missing" in text for text in watching.texts)
    assert canned_world.of(ModelLogged) == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert canned_world.run().already_finished
    assert len(runs("tiny", "search")) == 2
    assert len(runs("tiny", "confirmation")) == 4
    assert len(canned_world.of(ModelLogged)) == 1


def test_what_mlflow_has_no_time_for_after_a_signal_is_said(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(job: Any, record: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    remove_database("mlflow.db")  # a new one takes seconds, in which nothing is sent
    monkeypatch.setattr(coordinator, "STORES_SECONDS", -1.0)
    watching = Watching(on_epoch=stop)
    with pytest.raises(Interrupted):
        canned_world.run(watching=watching)
    said = [text for text in watching.texts if "MLflow does not have all events yet" in text]
    assert len(said) == 1
    assert "`harness sync tiny`" in said[0]
    again = Watching()
    canned_world.run(watching=again)
    assert not any("MLflow does not have" in text for text in again.texts)
    assert len(runs("tiny", "search")) == len([r for r in records(canned_world) if r.kind == "search"])


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
    world.write(trials=1, strategies=["fine_tuning"])
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


def test_more_seeds_on_the_command_line_continue_a_finished_study(canned_world: World) -> None:
    canned_world.run()
    canned_world.run(seeds=3)
    first, second = canned_world.of(VerdictReached)
    assert first.verdict is not None and second.verdict is not None
    assert (first.verdict["seeds"], second.verdict["seeds"]) == (2, 3)
