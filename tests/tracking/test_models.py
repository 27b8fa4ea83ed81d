"""A logged model gives the same logits after loading, without a pickle, at every batch size."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from harness.config.trial import TrialConfig
from harness.tracking.address import TrackingError, TrackingUnavailable


def small_net() -> torch.nn.Module:
    """A convolution with BatchNorm whose statistics are not those of any batch."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )
    for _ in range(3):
        net(torch.rand(16, 3, 32, 32))
    return net


def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=6)


@pytest.fixture
def bridge(
    make_study: Callable[..., Any], make_bridge: Callable[..., Any], config_of: Callable[..., TrialConfig]
) -> Any:
    study = make_study()
    study.trial("fine_tuning/1", config_of(), score=0.8)
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    return bridge


def example(size: int = 32) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).random((2, 3, size, size), np.float32)


@pytest.mark.parametrize(("make", "classes"), [(small_net, 4), (resnet, 6)])
def test_the_loaded_model_gives_the_same_logits_at_every_batch_size(
    bridge: Any, make: Callable[[], torch.nn.Module], classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.tracking.mlflow_models import load_model

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = make()
    uri = bridge.log_model(model, example(), {"classes": ["a", "b"]}, "fine_tuning/1")
    loaded = load_model(bridge.address, uri)
    model.eval()
    with torch.no_grad():
        for batch in (1, 2, 7):
            images = torch.rand(batch, 3, 32, 32)
            wanted = model(images)
            assert wanted.shape == (batch, classes)
            assert torch.allclose(loaded(images), wanted, atol=1e-5), f"batch of {batch}"


def test_a_model_in_training_mode_is_logged_in_eval_mode_and_left_as_it_was(bridge: Any) -> None:
    from harness.tracking.mlflow_models import load_model

    model = small_net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = load_model(bridge.address, bridge.log_model(model, example(), {}, "fine_tuning/1"))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    one = torch.rand(1, 3, 32, 32)
    both = torch.cat([one, torch.zeros(1, 3, 32, 32)])
    with torch.no_grad():
        assert torch.allclose(loaded(both)[:1], loaded(torch.cat([one, one]))[:1], atol=1e-6)


def test_where_there_is_a_gpu_mlflow_tries_the_export_on_the_cpu_it_was_made_on(
    bridge: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", raising=False)
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)
    bridge.log_model(small_net(), example(), {}, "fine_tuning/1")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "MLFLOW_DEFAULT_PREDICTION_DEVICE" not in os.environ


def test_a_model_is_logged_once_and_found_again_after_a_restart(
    bridge: Any, make_study: Callable[..., Any], make_bridge: Callable[..., Any]
) -> None:
    from harness.tracking.mlflow_store import open_client

    first = bridge.log_model(small_net(), example(), {}, "fine_tuning/1")
    assert bridge.log_model(small_net(), example(), {}, "fine_tuning/1") == first
    study = make_study()
    restarted = make_bridge(study)
    restarted.catch_up(study.events)
    assert restarted.log_model(small_net(), example(), {}, "fine_tuning/1") == first
    client = open_client(bridge.address)
    experiment = client.get_experiment_by_name("microscopy").experiment_id
    assert len(client.search_logged_models([experiment])) == 1


def test_a_model_logged_just_before_a_crash_is_taken_and_a_torn_one_removed(
    bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from harness.tracking.mlflow_store import open_client

    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", gone)
        with pytest.raises(TrackingUnavailable):
            bridge.log_model(small_net(), example(), {}, "fine_tuning/1")
    with monkeypatch.context() as patch:
        patch.setattr(type(bridge), "log", gone)  # the tag that notes the address is never written
        with pytest.raises(TrackingUnavailable):
            _reconnect(bridge)
            bridge.log_model(small_net(), example(), {}, "fine_tuning/1")
    _reconnect(bridge)
    uri = bridge.log_model(small_net(), example(), {}, "fine_tuning/1")
    client = open_client(bridge.address)
    experiment = client.get_experiment_by_name("microscopy").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert model.model_uri == uri


def _reconnect(bridge: Any) -> None:
    from harness.results.events import read_events

    bridge.catch_up(read_events(bridge.folder.events), retry_now=True)


def test_no_pixel_of_the_user_is_stored_with_the_model(bridge: Any, state: Path) -> None:
    bridge.log_model(small_net(), np.full((2, 3, 32, 32), 0.123456, np.float32), {"score": 0.8}, "fine_tuning/1")
    (stored,) = state.rglob("input_example.json")
    assert "0.123" not in stored.read_text() and "0.5" in stored.read_text()
    (model_file,) = state.rglob("MLmodel")
    text = " ".join(model_file.read_text().split())
    assert "score: 0.8" in text
    assert "[-1, 3, 32, 32]" in text, "the signature leaves the batch open"


def test_the_process_wide_tracking_address_is_left_alone(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://the.user:1234")
    bridge.log_model(small_net(), example(), {}, "fine_tuning/1")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://the.user:1234"


def test_a_batch_of_one_and_an_unknown_trial_are_refused(bridge: Any) -> None:
    with pytest.raises(ValueError, match="at least two"):
        bridge.log_model(small_net(), example()[:1], {}, "fine_tuning/1")
    with pytest.raises(TrackingError, match="fine_tuning/9"):
        bridge.log_model(small_net(), example(), {}, "fine_tuning/9")


def test_a_model_that_cannot_be_traced_is_a_clear_error(bridge: Any) -> None:
    class Stubborn(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4] * float(x.sum().item() > 0) if x.sum().item() > 1 else x.flatten(1)[:, :4]

    with pytest.raises(TrackingError, match="cannot be exported"):
        bridge.log_model(Stubborn(), example(), {}, "fine_tuning/1")
