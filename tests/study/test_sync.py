"""`harness sync`: what the stores have missed comes from the log alone."""

from __future__ import annotations

import shutil

import optuna
import pytest
from small_study import World, records, runs

from harness.errors import HarnessError, ResourceError, StudyHeldError
from harness.results.events import EventLog
from harness.results.paths import StudyFolder, home
from harness.search.optuna_journal import open_storage
from harness.study.lock import held
from harness.study.sync import sync

NOBODY = "http://127.0.0.1:9"  # the discard port


def quiet(text: str) -> None: ...


@pytest.fixture
def unsent(canned_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A finished study whose server was down all the time, and whose images have gone since."""
    canned_world.write(trials=1)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", NOBODY)
        canned_world.run()
    shutil.rmtree(canned_world.images)
    shutil.rmtree(home() / "cache")
    return canned_world


def test_what_a_server_missed_is_sent_from_the_log_alone_and_only_once(unsent: World) -> None:
    before = unsent.folder().events.read_bytes()
    _, mlflow_line, model = sync(unsent.folder(), quiet)
    count = len(unsent.events())
    assert f"got {count} of {count} events of tiny, among them {len(records(unsent))} finished trials" in mlflow_line
    assert "make study NAME=tiny" in model
    logged = {r.trial_id: r.score for r in records(unsent)}
    shown = runs("tiny", "search") + runs("tiny", "confirmation")
    assert {run.data.tags["harness.key"].split("#")[0]: run.data.metrics["score"] for run in shown} == logged
    assert len(shown) == len(logged)
    assert f"had all {count} events" in sync(unsent.folder(), quiet)[1]
    assert len(runs("tiny", "search") + runs("tiny", "confirmation")) == len(logged)
    assert unsent.folder().events.read_bytes() == before


def test_a_lost_journal_of_optuna_comes_back(unsent: World) -> None:
    before = {s: values(s) for s in ("feature_extraction", "fine_tuning")}
    unsent.folder().optuna_log.unlink()
    sync(unsent.folder(), quiet)
    assert {s: values(s) for s in before} == before


def values(strategy: str) -> list[float | None]:
    with open_storage(StudyFolder("tiny").optuna_log, create=False) as storage:
        return [trial.value for trial in optuna.load_study(study_name=f"tiny/{strategy}", storage=storage).trials]


def test_a_server_that_does_not_answer_is_one_line_and_exit_4(unsent: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(ResourceError) as caught:
        sync(unsent.folder(), quiet)
    assert caught.value.exit_code == 4
    said = str(caught.value)
    assert said.startswith("MLflow at http://me:***@127.0.0.1:9 does not answer (") and "secret" not in said
    assert "`harness sync tiny`" in said and "\n" not in said and "the study goes on" not in said


def test_a_running_study_and_one_without_events_are_refused(world: World) -> None:
    folder = StudyFolder("tiny")
    with pytest.raises(HarnessError, match="no event yet"):
        sync(folder, quiet)
    EventLog(folder.events).close()
    with held(folder), pytest.raises(StudyHeldError):
        sync(folder, quiet)
