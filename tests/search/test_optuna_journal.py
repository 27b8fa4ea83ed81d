"""Optuna's copy of a search: each trial once, whatever was left behind, in a journal or in a database."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from harness.config.load import parse
from harness.config.space import space
from harness.errors import ConfigError
from harness.results.records import TrialJob, TrialRecord
from harness.results.study_state import EndedTrial
from harness.search.optuna_journal import ID, OptunaMirror, Place, fault, opened, remove

Told = list[tuple[str, EndedTrial]]
OWN = {ID: "ours"}
SPACE = space(
    parse({"search": {"head_lr": {"low": 1e-4, "high": 1e-1}, "backbone": "resnet18"}, "weights": "none"}, "test"),
    "fine_tuning",
)


def told(count: int) -> Told:
    """So many ended trials of a search; each began at a full minute and took ten seconds."""
    ended: Told = []
    for slot in range(count):
        params = {"head_lr": 0.001 * (slot + 1)}
        done = TrialRecord(
            job=TrialJob(
                f"fine_tuning/{slot}", "search", "fine_tuning", slot, SPACE.config(params), seed=0, split="search"
            ),
            state="complete",
            reason=None,
            epochs=(),
            best_epoch=1,
            score=0.1 * slot,
            seconds_alone=1.0,
            trainable_parameters=1,
            total_parameters=2,
            device="cpu",
            started_at="2026-01-01T00:00:00+00:00",
        )
        began, at = (f"2026-03-01T10:{slot:02d}:{second}.250+00:00" for second in ("00", "10"))
        ended.append(("fine_tuning", EndedTrial.of(f"fine_tuning/{slot}#1", params, done, began, at)))
    return ended


def mirror(place: Place, say: Any = pytest.fail, **options: Any) -> OptunaMirror:
    return OptunaMirror(place, "s", [SPACE], "balanced_accuracy", say, **{"attributes": OWN} | options)


def write(place: Place, ended: Told, **options: Any) -> None:
    """One session that has these trials from the log."""
    copy = mirror(place, **options)
    copy.start(ended)
    copy.finish()


def stored(place: Place) -> list[FrozenTrial]:
    with opened(place, create=False) as storage:
        return list(optuna.load_study(study_name="s/fine_tuning", storage=storage).trials)


def names(place: Place) -> list[str]:
    return [trial.user_attrs["harness.key"] for trial in stored(place)]


@pytest.fixture(params=["journal", "database"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path / "optuna.log" if request.param == "journal" else f"sqlite:///{tmp_path / 'optuna.db'}"


def test_each_trial_is_written_once_over_all_sessions(place: Place) -> None:
    ended = told(5)
    first = mirror(place)
    first.start([])
    for strategy, one in ended[:3]:
        first.add(strategy, one)
    first.finish()
    assert names(place) == [one.key for _, one in ended[:3]]
    write(place, ended)
    trials = stored(place)
    assert [trial.user_attrs["harness.key"] for trial in trials] == [one.key for _, one in ended]
    assert [trial.value for trial in trials] == [one.score for _, one in ended]
    assert [trial.params for trial in trials] == [one.params for _, one in ended]
    assert {trial.duration.total_seconds() for trial in trials if trial.duration} == {10.0}
    assert trials[1].datetime_start is not None
    assert trials[1].datetime_start.astimezone().timestamp() == 1772359260.25


def test_a_session_that_has_nothing_new_writes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    write(path, told(3))
    before = path.read_bytes()
    write(path, told(3))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("optuna")] == ["optuna.log"]


def test_what_an_ended_study_has_no_time_to_write_is_written_by_the_next(place: Place) -> None:
    ended = told(5)
    hurried = mirror(place)
    hurried.start(ended)
    hurried.finish(within=-1)
    assert len(stored(place)) < len(ended)
    write(place, ended)
    assert names(place) == [one.key for _, one in ended]


def test_a_kill_in_the_middle_of_a_line_costs_that_line(tmp_path: Path) -> None:
    path, ended = tmp_path / "optuna.log", told(4)
    write(path, ended[:3])
    os.truncate(path, path.stat().st_size - 40)
    assert names(path) == [one.key for _, one in ended[:2]]
    write(path, ended)
    assert names(path) == [one.key for _, one in ended]


@pytest.mark.parametrize("content", [b"no journal\n", b"{}\n", b'{"op_code":4}\n', b"\0" * 100, b""])
def test_a_journal_that_cannot_be_read_is_made_again(tmp_path: Path, content: bytes) -> None:
    path, ended = tmp_path / "optuna.log", told(3)
    write(path, ended)
    path.write_bytes(content)
    write(path, ended)
    assert names(path) == [one.key for _, one in ended]


def test_a_byte_that_changed_anywhere_ends_nothing(tmp_path: Path) -> None:
    path, ended = tmp_path / "optuna.log", told(3)
    write(path, ended)
    whole = path.read_bytes()
    for place in range(3, len(whole), 211):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        write(path, ended)
        assert names(path) == [one.key for _, one in ended], place


def test_a_lock_that_a_killed_process_left_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    write(path, told(1))
    lock = tmp_path / "optuna.log.lock"
    lock.symlink_to(path)
    os.utime(lock, (time.time() - 60,) * 2, follow_symlinks=False)
    began = time.monotonic()
    write(path, told(2))
    assert time.monotonic() - began < 10
    assert len(stored(path)) == 2 and not lock.is_symlink()


def test_a_copy_that_holds_what_the_log_does_not_is_made_again(place: Place) -> None:
    ended = told(3)
    write(place, ended)
    with opened(place) as storage:
        optuna.load_study(study_name="s/fine_tuning", storage=storage).ask()  # would seem to run for ever
    assert "a trial without a name" in str(fault(place, "s", {"fine_tuning": [one.key for _, one in ended]}))
    write(place, ended[:2])
    assert names(place) == [one.key for _, one in ended[:2]]
    assert fault(place, "s", {"fine_tuning": [one.key for _, one in ended[:2]]}) is None


def test_a_study_of_somebody_else_in_the_same_database_is_left_alone(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'optuna.db'}"
    write(database, told(3), attributes={ID: "another's"})
    said: list[str] = []
    write(database, told(2), say=said.append)
    assert "it holds another study named s/fine_tuning" in said[0]
    remove(database, "s", "ours")
    assert len(stored(database)) == 3
    remove(database, "s", "another's")
    with opened(database) as storage:
        assert optuna.get_all_study_names(storage) == []


def test_a_storage_that_cannot_be_written_is_said_without_its_password_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("this is no database")
    said: list[str] = []
    write(f"sqlite:///{tmp_path / 'optuna.db'}", [], say=said.append)
    write("postgresql+nothing://me:s3cret-word@127.0.0.1:9/db", [], say=said.append)
    assert all("did not take everything" in text and "`harness sync s`" in text for text in said)
    assert len(said) == 2 and "s3cret-word" not in said[1]


def test_the_mlflow_run_of_a_trial_is_noted_where_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    write(path, told(2), run_of={"fine_tuning/1#1": "f00"}.get)
    assert [trial.user_attrs.get("mlflow_run_id") for trial in stored(path)] == [None, "f00"]


@pytest.mark.parametrize("address", ["optuna.log", "me:s3cret-word@somewhere", "SQLITE:///x.db"])
def test_a_storage_that_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(ConfigError, match="storage: must be the address of a database"):
        parse({"storage": address}, "test")
