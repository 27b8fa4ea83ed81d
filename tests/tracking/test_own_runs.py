"""A study knows its own runs in MLflow by the study's id, and each of them stands once, whatever others do there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.config.trial import TrialConfig
from harness.results.paths import StudyFolder
from harness.tracking import mlflow_own_runs, mlflow_runs
from harness.tracking.address import TrackingUnavailable
from harness.tracking.mapping import study_id
from harness.tracking.mlflow_store import delete_study, open_client, set_study_aside, study_runs

TRIAL = "fine_tuning 01 · resnet18 · depth 3"


def shown(address: str, deleted: bool = False) -> list[Any]:
    """The runs of all experiments that MLflow's page shows, or the deleted ones."""
    from mlflow.entities import ViewType

    client = open_client(address)
    kind = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    numbers = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(numbers, run_view_type=kind))


def names(address: str) -> Counter[str]:
    return Counter(run.info.run_name for run in shown(address))


def identity(study: Any) -> str:
    return study_id(study.folder.name, study.events[0])


@pytest.fixture
def sent(make_study: Callable[..., Any], make_bridge: Callable[..., Any], config_of: Callable[..., TrialConfig]) -> Any:
    """A finished study in MLflow: a parent run and two trials."""
    study = make_study()
    study.session()
    study.trial("fine_tuning/1", config_of())
    study.trial("fine_tuning/2", config_of(depth=1), slot=2)
    study.end()
    make_bridge(study).catch_up(study.events)
    return study


@pytest.fixture
def other_home(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    config_of: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Callable[[], Any]:
    """Sends a study of the same name from another home folder to the same database."""

    def send() -> Any:
        with monkeypatch.context() as patch:
            patch.setenv("HARNESS_HOME", str(tmp_path / "another home"))
            study = make_study()
            study.trial("fine_tuning/1", config_of(depth=2))
            study.end()
            make_bridge(study).catch_up(study.events)
            return study

    return send


def test_removing_a_study_leaves_the_runs_of_another_home_in_the_same_experiment(
    sent: Any, other_home: Callable[[], Any], database: str, make_bridge: Callable[..., Any]
) -> None:
    other = other_home()
    assert len(shown(database)) == 5
    delete_study(database, identity(sent))
    assert names(database) == Counter(["microscopy", "fine_tuning 01 · resnet18 · depth 2"])
    assert make_bridge(other).catch_up(other.events) == 0
    delete_study(database, identity(other))
    assert shown(database) == []
    assert open_client(database).get_experiment_by_name("microscopy") is None


def test_a_run_that_a_user_made_in_the_experiment_is_kept(sent: Any, database: str) -> None:
    client = open_client(database)
    experiment = client.get_experiment_by_name("microscopy").experiment_id
    own = client.create_run(experiment, run_name="my own").info.run_id
    client.set_terminated(own)
    delete_study(database, identity(sent))
    assert names(database) == Counter(["my own"])


def test_setting_aside_leaves_the_runs_of_another_home_and_makes_room(
    sent: Any, other_home: Callable[[], Any], database: str, make_bridge: Callable[..., Any]
) -> None:
    other_home()
    said = set_study_aside(database, "microscopy", identity(sent), "today")
    assert said == "among the deleted runs of the experiment 'microscopy'"
    assert names(database) == Counter(["microscopy", "fine_tuning 01 · resnet18 · depth 2"])
    assert make_bridge(sent).catch_up(sent.events) == len(sent.events)
    assert len(shown(database)) == 5


def test_a_renamed_experiment_stays_the_study_s(
    sent: Any, database: str, make_bridge: Callable[..., Any], config_of: Callable[..., TrialConfig]
) -> None:
    client = open_client(database)
    client.rename_experiment(client.get_experiment_by_name("microscopy").experiment_id, "for the paper")
    sent.session(resumed=True)
    sent.trial("fine_tuning/3", config_of(depth=2), slot=3)
    sent.end()
    assert make_bridge(sent).catch_up(sent.events) < len(sent.events)
    assert client.get_experiment_by_name("microscopy") is None
    assert set(names(database).values()) == {1} and len(shown(database)) == 4
    found = study_runs(database, "microscopy", identity(sent))
    assert found is not None and len(found.keys) == 3 and found.running == ()
    delete_study(database, identity(sent))
    assert shown(database) == []


def test_deleted_runs_come_back_although_nothing_new_is_sent(
    sent: Any, database: str, make_bridge: Callable[..., Any]
) -> None:
    client = open_client(database)
    before = names(database)
    for run in shown(database):
        client.delete_run(run.info.run_id)
    bridge = make_bridge(sent)
    assert bridge.catch_up(sent.events) == 0
    assert bridge.restored == 3
    assert names(database) == before


def test_a_run_that_was_removed_from_the_database_is_sent_again(
    sent: Any, database: str, make_bridge: Callable[..., Any]
) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    run = next(run for run in shown(database) if run.info.run_name == TRIAL)
    client = open_client(database)
    client.delete_run(run.info.run_id)
    SqlAlchemyStore(database, "unused")._hard_delete_run(run.info.run_id)  # what `mlflow gc` calls
    make_bridge(sent).catch_up(sent.events)
    again = next(run for run in shown(database) if run.info.run_name == TRIAL)
    assert again.info.run_id != run.info.run_id and again.info.status == "FINISHED"
    assert again.data.metrics == run.data.metrics
    assert len(shown(database)) == 3


# --- answers that are lost --------------------------------------------------------------------------------------


@pytest.fixture
def like_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge takes the database for a server."""
    monkeypatch.setattr(mlflow_own_runs, "is_remote", lambda address: True)
    monkeypatch.setattr(mlflow_runs, "is_remote", lambda address: True)
    monkeypatch.setattr(mlflow_runs, "answers", lambda address: True)


def repeating(times: int, lost: bool, calls: Iterator[bool]) -> Callable[..., Any]:
    """`MlflowClient.create_run` whose request is carried out several times; its answer may be lost in the end."""
    from mlflow import MlflowClient

    whole = MlflowClient.create_run

    def create(self: Any, *args: Any, **options: Any) -> Any:
        if not next(calls, False):
            return whole(self, *args, **options)
        made = [whole(self, *args, **options) for _ in range(times)]
        if lost:
            raise ConnectionResetError("the answer is lost")
        return made[-1]

    return create


@pytest.mark.parametrize("lost", [False, True], ids=["answered at last", "never answered"])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["the study's run", "a trial's run", "another trial's run"])
@pytest.mark.usefixtures("like_a_server")
def test_a_run_whose_creation_is_repeated_stands_once(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    config_of: Callable[..., TrialConfig],
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    which: int,
    lost: bool,
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(
        MlflowClient, "create_run", repeating(3, lost, iter([number == which for number in range(which + 1)]))
    )
    study = make_study()
    study.session()
    study.start("fine_tuning/1", config_of())
    study.start("fine_tuning/2", config_of(depth=1), slot=2)
    bridge = make_bridge(study)
    if lost:
        with pytest.raises(TrackingUnavailable):
            bridge.catch_up(study.events)
    bridge.catch_up(study.events, retry_now=True)
    assert set(names(database).values()) == {1} and len(shown(database)) == 3
    study.trial("fine_tuning/1", config_of())
    study.trial("fine_tuning/2", config_of(depth=1), slot=2)
    study.end()
    bridge.catch_up(study.events, retry_now=True)
    assert make_bridge(study).catch_up(study.events) == 0
    assert set(names(database).values()) == {1}
    assert {run.info.status for run in shown(database)} == {"FINISHED"}
    assert [run.info.status for run in shown(database, deleted=True)] == ["KILLED"] * 2
    delete_study(database, identity(study))
    assert shown(database) == []


@pytest.mark.usefixtures("like_a_server")
def test_a_run_that_a_given_up_request_creates_late_is_removed_at_the_end(
    sent: Any, make_bridge: Callable[..., Any], database: str, config_of: Callable[..., TrialConfig]
) -> None:
    bridge = make_bridge(sent)
    sent.session(resumed=True)
    bridge.catch_up(sent.events)
    late = next(run for run in shown(database) if run.info.run_name == TRIAL)
    client = open_client(database)
    tags = {name: late.data.tags[name] for name in ("harness.key", "mlflow.parentRunId")}
    client.create_run(late.info.experiment_id, tags=tags, run_name=TRIAL)
    assert names(database)[TRIAL] == 2
    sent.end()
    bridge.catch_up(sent.events)
    assert names(database)[TRIAL] == 1
    assert late.info.run_id in {run.info.run_id for run in shown(database)}


@pytest.mark.usefixtures("like_a_server")
def test_an_experiment_whose_creation_is_repeated_is_used(
    make_study: Callable[..., Any], make_bridge: Callable[..., Any], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    whole = MlflowClient.create_experiment

    def twice(self: Any, *args: Any, **options: Any) -> Any:
        options["artifact_location"] = (StudyFolder("microscopy").path / "artifacts").as_uri()
        whole(self, *args, **options)
        return whole(self, *args, **options)

    monkeypatch.setattr(MlflowClient, "create_experiment", twice)
    study = make_study()
    assert make_bridge(study).catch_up(study.events) == 1
    assert names(database) == Counter(["microscopy"])
