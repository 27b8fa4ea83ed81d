"""A real server behind a proxy that loses answers: MLflow's client repeats what was carried out already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from losing_proxy import LosingProxy, Loss, losing_proxy
from mlflow import MlflowClient
from mlflow.entities import ViewType
from ui_server import serving

from harness.config.trial import TrialConfig
from harness.tracking import mlflow_runs
from harness.tracking.address import TrackingUnavailable
from harness.tracking.mlflow_store import open_client


def finalize(model: object, example: object, metadata: object, run_id: str, model_id: str) -> None:
    """As `mlflow_models.export_model`, without any file."""
    MlflowClient().finalize_logged_model(model_id, "READY")


def send(study: Any, bridge: Any, config_of: Callable[..., TrialConfig], proxy: LosingProxy) -> str:
    """Send a study whose creations are answered at the second try, and one of whose trials never is; log a model."""
    study.session()
    study.start("fine_tuning/1", config_of())
    bridge.catch_up(study.events)
    proxy.times = 99
    study.start("fine_tuning/2", config_of(depth=1), slot=2)
    with pytest.raises(TrackingUnavailable):
        bridge.catch_up(study.events)
    proxy.times = 1
    study.trial("fine_tuning/1", config_of())
    study.trial("fine_tuning/2", config_of(depth=1), slot=2)
    study.trial("fine_tuning/3", config_of(depth=2), slot=3)  # created and finished in one call
    bridge.catch_up(study.events, retry_now=True)
    example = np.zeros((2, 3, 8, 8), np.float32)
    uri: str = bridge.log_model(object(), example, {}, "fine_tuning/3")
    study.end()
    bridge.catch_up(study.events, retry_now=True)
    return uri


def test_whatever_answers_to_creations_are_lost_everything_stands_once_and_nothing_runs_for_ever(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    database: str,
    config_of: Callable[..., TrialConfig],
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_runs, "export_model", finalize)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    losses: tuple[Loss, ...] = ("500", "reset")
    with serving(database, free_port):
        for loss in losses:
            study = make_study(f"cells-{loss}")
            with losing_proxy(free_port, loss) as (proxy, address):
                uri = send(study, make_bridge(study, address), config_of, proxy)
                assert proxy.lost["experiment"] == 1 and proxy.lost["run"] > 4 and proxy.lost["model"] == 1
                again = make_bridge(study, address)  # as `harness sync` does
                assert again.catch_up(study.events, retry_now=True) == 0
                check(database, study.folder.name, uri)


def check(database: str, name: str, uri: str) -> None:
    """In the server's database, parent and trials stand once and have ended, what was made twice is deleted."""
    client = open_client(database)
    [experiment] = [each for each in client.search_experiments(ViewType.ALL) if each.name == name]
    runs = client.search_runs([experiment.experiment_id])
    keys = Counter(run.data.tags.get("harness.key", "the study") for run in runs)
    assert keys == Counter(["the study", "fine_tuning/1#1", "fine_tuning/2#1", "fine_tuning/3#1"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(
        len(client.get_metric_history(run.info.run_id, "score")) == 1 for run in runs if "score" in run.data.metrics
    )
    doubles = client.search_runs([experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert len(doubles) >= 4 and {run.info.status for run in doubles} == {"KILLED"}
    [model] = client.search_logged_models([experiment.experiment_id])
    assert model.model_uri == uri
    [owner] = [run for run in runs if run.info.run_id == model.source_run_id]
    assert owner.data.tags["model_uri"] == uri and owner.data.tags["harness.key"] == "fine_tuning/3#1"
