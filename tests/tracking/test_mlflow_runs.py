"""The bridge against real MLflow on SQLite: what lies there afterwards, and that nothing lies there twice."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.trial import TrialConfig
from harness.results.event_types import ConfirmationSelected, SearchFinished, SelectedConfig, TestScored
from harness.results.records import EpochRecord, TrialRecord
from harness.tracking.address import TrackingError, TrackingUnavailable, default_address
from harness.tracking.mapping import study_id

METRICS_AN_EPOCH = 8  # train_loss, four of validation, epoch_seconds, two rates


def runs_of(address: str, name: str = "microscopy") -> dict[str, Any]:
    """Every run of a study by its name."""
    from harness.tracking.mlflow_store import open_client

    client = open_client(address)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(set(names)) == len(names), f"a run was made twice: {sorted(names)}"
    return dict(zip(names, runs, strict=True))


def rows(address: str, query: str) -> list[tuple[Any, ...]]:
    """The database's own rows: what MLflow's interface would hide."""
    connection = sqlite3.connect(address.removeprefix("sqlite:///"))
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def repeated_metrics(address: str) -> list[tuple[Any, ...]]:
    return rows(address, "SELECT key, step, COUNT(*) FROM metrics GROUP BY run_uuid, key, step HAVING COUNT(*) > 1")


def test_a_trial_is_a_child_run_with_its_curve_parameters_and_tags(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    study = make_study()
    study.session()
    study.trial("fine_tuning/3", config_of(depth=2), slot=3, score=0.8, device_memory_bytes=123)
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    runs = runs_of(database)
    parent, run = runs["microscopy"], runs["fine_tuning 03 · resnet18 · depth 2"]
    assert bridge.run_ids == {"fine_tuning/3#1": run.info.run_id}
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    wanted = {"strategy": "fine_tuning", "backbone": "resnet18", "depth": "2", "batchnorm": "fixed_stats"}
    wanted |= {"state": "complete", "kind": "search", "harness.key": "fine_tuning/3#1"}
    assert wanted.items() <= run.data.tags.items()
    assert run.info.status == "FINISHED"
    assert run.data.params["unfreeze_depth"] == "2" and float(run.data.params["log10_head_lr"]) == -3
    wanted_metrics = {"score": 0.8, "trainable_share": 0.25, "device_memory_bytes": 123.0, "seconds_alone": 4.5}
    assert wanted_metrics.items() <= run.data.metrics.items()
    curve = rows(database, "SELECT step, value FROM metrics WHERE key = 'validation_accuracy' ORDER BY step")
    assert curve == [(1, pytest.approx(0.6)), (2, pytest.approx(0.7)), (3, pytest.approx(0.8))]
    assert repeated_metrics(database) == []


@pytest.mark.parametrize(
    ("ending", "status"),
    [("complete", "FINISHED"), ("pruned", "FINISHED"), ("diverged", "FAILED"), ("out_of_memory", "FAILED")],
)
def test_states_are_run_states(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    ending: str,
    status: str,
) -> None:
    study = make_study()
    study.trial("fine_tuning/1", config_of(), state=ending, score=None if status == "FAILED" else 0.6)
    make_bridge(study).catch_up(study.events)
    run = runs_of(database)["fine_tuning 01 · resnet18 · depth 3"]
    assert (run.info.status, run.data.tags["state"]) == (status, ending)
    assert ("reason" in run.data.tags) == (ending != "complete")


def test_a_running_trial_is_shown_as_running_and_an_interrupted_one_as_killed(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    study, name = make_study(), "fine_tuning 01 · resnet18 · depth 3"
    study.session()
    study.start("fine_tuning/1", config_of())
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    assert runs_of(database)[name].info.status == "RUNNING"
    study.interrupt("fine_tuning/1")
    study.end("interrupted")
    bridge.catch_up(study.events)
    runs = runs_of(database)
    assert (runs[name].info.status, runs["microscopy"].info.status) == ("KILLED", "KILLED")

    study.session(resumed=True)
    study.start("fine_tuning/1", config_of())
    again = make_bridge(study)
    again.catch_up(study.events)
    runs = runs_of(database)
    assert (runs[name].info.status, runs["microscopy"].info.status) == ("RUNNING", "RUNNING")


def whole_study(study: Any, config_of: Callable[..., TrialConfig]) -> None:
    study.session()
    study.trial("feature_extraction/1", config_of("feature_extraction"), score=0.7)
    study.trial("fine_tuning/1", config_of(), score=0.75)
    study.trial("fine_tuning/2", config_of(depth=1), slot=2, score=0.72)
    study.log.append(SearchFinished("budget", trials=2))
    key = config_of().key()
    chosen = SelectedConfig(config_of(), "best", "fine_tuning/1")
    study.log.append(ConfirmationSelected(look=1, trials=2, seeds=2, configs={"fine_tuning": (chosen,)}))
    for seed in range(2):
        study.trial(f"confirmation/fine_tuning/{key}/{seed}", config_of(), kind="confirmation", slot=seed)
        metrics = {"accuracy": 0.71, "recall": [0.5, 0.6]}
        study.log.append(TestScored(1, "fine_tuning", "winner", key, seed, metrics, "p.npz"))
    study.verdict(outcome="fine_tuning", difference=0.05, ci95=[0.01, 0.09], probability_fine_tuning_better=0.98)
    study.end()


def test_the_parent_run_holds_question_verdict_and_data(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    write_data_files: Callable[..., None],
) -> None:
    study = make_study()
    write_data_files(study.folder)
    whole_study(study, config_of)
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    bridge.catch_up(study.events)
    parent = runs_of(database)["microscopy"]
    assert parent.info.status == "FINISHED"
    wanted = {"objective": "balanced_accuracy", "trials": "8", "epochs": "6", "seed": "0", "weights": "bundled"}
    assert (wanted | {"data_digest": "d" * 64}).items() <= parent.data.params.items()
    metrics = {"difference": 0.05, "difference_ci95_low": 0.01, "best_validation_fine_tuning": 0.75}
    assert metrics.items() <= parent.data.metrics.items()
    assert "Fine-tuning is better by 5.0 points of balanced accuracy" in parent.data.tags["mlflow.note.content"]
    (entry,) = parent.inputs.dataset_inputs
    assert entry.dataset.name == "rendered_cells"
    assert json.loads(entry.dataset.profile)["num_rows"] == 12
    assert str(study.folder.path) not in entry.dataset.source


def test_confirmation_runs_are_marked_and_carry_their_test_scores(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    study = make_study()
    whole_study(study, config_of)
    make_bridge(study).catch_up(study.events)
    run = runs_of(database)["confirmation · fine_tuning best · seed 1"]
    assert {"kind": "confirmation", "role": "best", "test_role": "winner"}.items() <= run.data.tags.items()
    assert run.data.metrics["test_accuracy"] == 0.71


def test_a_crash_after_half_of_a_batch_leaves_every_metric_once(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MLflow writes parameters, metrics and tags in separate transactions; a crash may fall between them."""
    from mlflow import MlflowClient

    study = make_study()
    study.trial("fine_tuning/1", config_of(), epochs=5)
    whole = MlflowClient.log_batch

    def torn(self: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = (), **rest: Any) -> None:
        if len(metrics) > 10:
            whole(self, run_id, metrics[: len(metrics) // 2], params)
            raise ConnectionResetError("gone")
        whole(self, run_id, metrics, params, tags, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", torn)
        with pytest.raises(TrackingUnavailable, match="brought up to date"):
            make_bridge(study).catch_up(study.events)
    make_bridge(study).catch_up(study.events)
    assert repeated_metrics(database) == []
    assert len(rows(database, "SELECT 1 FROM metrics WHERE step > 0")) == 5 * METRICS_AN_EPOCH
    assert runs_of(database)["fine_tuning 01 · resnet18 · depth 3"].info.status == "FINISHED"


def test_replaying_a_log_whose_note_was_lost_sends_nothing_twice(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    study = make_study()
    whole_study(study, config_of)
    make_bridge(study).catch_up(study.events)
    before = rows(database, "SELECT run_uuid, key, step, value, timestamp FROM metrics ORDER BY 1, 2, 3")
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    connection.execute("DELETE FROM tags WHERE key = 'harness.position'")
    connection.commit()
    connection.close()
    assert make_bridge(study).catch_up(study.events) == len(study.events)
    assert rows(database, "SELECT run_uuid, key, step, value, timestamp FROM metrics ORDER BY 1, 2, 3") == before
    assert len(runs_of(database)) == 6


def test_a_study_with_the_name_of_a_removed_one_gets_a_parent_run_of_its_own(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    study = make_study()
    study.trial("fine_tuning/1", config_of())
    make_bridge(study).catch_up(study.events)
    study.log.close()
    study.folder.events.unlink()
    time.sleep(0.01)
    second = make_study()
    second.trial("fine_tuning/1", config_of())
    make_bridge(second).catch_up(second.events)
    parents = rows(database, "SELECT COUNT(*) FROM tags WHERE key = 'kind' AND value = 'study'")
    assert parents == [(2,)]
    assert repeated_metrics(database) == []


def test_more_metrics_than_one_batch_takes_all_arrive(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    study = make_study()
    study.trial("fine_tuning/1", config_of(), epochs=150)
    make_bridge(study).catch_up(study.events)
    assert len(rows(database, "SELECT 1 FROM metrics WHERE step > 0")) == 150 * METRICS_AN_EPOCH


def test_odd_metric_names_and_long_reasons_are_taken(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    record_of: Callable[..., TrialRecord],
) -> None:
    study = make_study()
    record = record_of("fine_tuning/1", config_of(), state="failed", score=None)
    epoch: EpochRecord = dataclasses.replace(record.epochs[0], validation={"rückruf <b>$x$": 0.5})
    study.finish(dataclasses.replace(record, epochs=(epoch,), reason="no memory " * 2000))
    make_bridge(study).catch_up(study.events)
    run = runs_of(database)["fine_tuning 01 · resnet18 · depth 3"]
    assert 0.5 in run.data.metrics.values()
    assert "20000 characters" in run.data.tags["reason"]


def test_a_deleted_experiment_is_named_with_the_way_back_and_can_be_restored(
    make_study: Callable[..., Any], make_bridge: Callable[..., Any], database: str
) -> None:
    from harness.tracking.mlflow_store import open_client

    study = make_study()
    make_bridge(study).catch_up(study.events)
    client = open_client(database)
    experiment = client.get_experiment_by_name("microscopy").experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match="experiments restore") as refused:
        make_bridge(study).catch_up(study.events)
    assert not isinstance(refused.value, TrackingUnavailable)
    client.restore_experiment(experiment)
    make_bridge(study).catch_up(study.events)


def test_a_run_deleted_by_hand_comes_back_with_the_next_replay(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    from harness.tracking.mlflow_store import open_client

    study = make_study()
    study.start("fine_tuning/1", config_of())
    make_bridge(study).catch_up(study.events)
    open_client(database).delete_run(runs_of(database)["fine_tuning 01 · resnet18 · depth 3"].info.run_id)
    study.trial("fine_tuning/1", config_of())
    make_bridge(study).catch_up(study.events)
    assert runs_of(database)["fine_tuning 01 · resnet18 · depth 3"].info.status == "FINISHED"


def test_a_server_that_refuses_costs_no_time_and_loses_nothing(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    config_of: Callable[..., TrialConfig],
    free_port: int,
) -> None:
    study = make_study()
    study.trial("fine_tuning/1", config_of())
    bridge = make_bridge(study, f"http://me:secret@127.0.0.1:{free_port}")
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(TrackingUnavailable) as refused:
            bridge.catch_up(study.events)
    assert time.monotonic() - began < 5
    assert "secret" not in str(refused.value)
    with pytest.raises(TrackingUnavailable):
        bridge.log_artifacts([study.folder.events])


def test_after_a_slow_failure_the_next_calls_do_not_try_at_once(
    make_study: Callable[..., Any], make_bridge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def hang(*_: Any, **__: Any) -> None:
        calls.append(1)
        time.sleep(0.2)
        raise TimeoutError("no answer")

    calls: list[int] = []
    study = make_study()
    bridge = make_bridge(study)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_experiment_by_name", hang)
        for _ in range(5):
            with pytest.raises(TrackingUnavailable):
                bridge.catch_up(study.events)
        assert len(calls) == 1
        with pytest.raises(TrackingUnavailable):
            bridge.catch_up(study.events, retry_now=True)
        assert len(calls) == 2
    assert bridge.catch_up(study.events, retry_now=True) == 1


def test_artifacts_lie_at_the_parent_run_and_may_be_logged_again(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    write_data_files: Callable[..., None],
) -> None:
    from harness.tracking.mlflow_store import open_client

    study = make_study()
    write_data_files(study.folder)
    study.folder.study_json.write_text("{}")
    study.folder.report.mkdir(parents=True)
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    for text in ("old", "new"):
        (study.folder.report / "index.html").write_text(text)
        bridge.log_artifacts()
    client, parent = open_client(database), runs_of(database)["microscopy"].info.run_id
    assert {file.path for file in client.list_artifacts(parent)} == {"report", "study.json", "data_card.json"}
    page = Path(client.download_artifacts(parent, "report/index.html"))
    assert page.read_text() == "new"


def test_three_processes_may_make_the_database_at_once(state: Path) -> None:
    script = """
import os, sys, threading
from harness.tracking import mlflow_store
from harness.tracking.address import default_address

mlflow_store.import_mlflow()  # once, for all three: it is what costs time
start, go = os.pipe()
children = []
for i in range(3):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(start, 1)  # returns for all at the same moment, when the parent closes its end
        mlflow_store.prepare_store(default_address())
        mlflow_store.open_client(default_address()).create_experiment(f"study{i}")
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    path = state / "mlflow.db"
    assert rows(f"sqlite:///{path}", "PRAGMA journal_mode") == [("wal",)]
    assert rows(f"sqlite:///{path}", "PRAGMA integrity_check") == [("ok",)]
    assert {name for (name,) in rows(default_address(), "SELECT name FROM experiments")} >= {
        "study0",
        "study1",
        "study2",
    }
    assert [file.name for file in state.glob(".mlflow*")] == []


def test_a_removed_study_frees_its_name(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
) -> None:
    from harness.tracking.mlflow_store import delete_study

    study = make_study()
    study.trial("fine_tuning/1", config_of())
    make_bridge(study).catch_up(study.events)
    identity = study_id("microscopy", study.events[0])
    delete_study(database, identity)
    delete_study(database, identity)
    make_bridge(study).catch_up(study.events)
    assert len(runs_of(database)) == 2


def test_removing_a_study_makes_no_database_and_says_where_a_server_is_down(state: Path, free_port: int) -> None:
    from harness.tracking.mlflow_store import delete_study

    delete_study(default_address(), "0" * 16)
    assert not (state / "mlflow.db").exists()
    with pytest.raises(TrackingUnavailable):
        delete_study(f"http://127.0.0.1:{free_port}", "0" * 16)


def test_artifacts_are_logged_after_a_failure_without_another_call_to_catch_up(
    make_study: Callable[..., Any], make_bridge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("gone")

    study = make_study()
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", gone)
        with pytest.raises(TrackingUnavailable):
            bridge.log_artifacts([study.folder.events])
    bridge.log_artifacts([study.folder.events])


def test_a_very_long_description_is_taken(make_study: Callable[..., Any], database: str) -> None:
    from harness.tracking.mlflow_runs import MlflowBridge

    study = make_study()
    MlflowBridge("microscopy", "why " * 4000, database, study.folder).catch_up(study.events)
    assert "characters in all" in runs_of(database)["microscopy"].data.tags["mlflow.note.content"]
