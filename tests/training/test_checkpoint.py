"""A file in the study's folder is data: one whose loading would run code is refused, or not taken, and runs nothing."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.config.trial import TrialConfig
from harness.errors import ResourceError
from harness.results.records import TrialJob
from harness.training.checkpoint import load_best, save_best
from harness.training.resume import ResumePoint
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


class KilledError(Exception):
    """Stands for the end of the process."""


def run(config: TrialConfig, data: TrialData, folder: Path, kill_at: int = 0) -> Any:
    def on_epoch(record: Any) -> bool:
        if record.epoch == kill_at:
            raise KilledError
        return True

    return run_trial(
        TrialJob("fine_tuning/0", "search", config.strategy, 0, config, 0, "search"),
        data,
        on_epoch,
        objective="accuracy",
        weights_name="none",
        device=CPU,
        checkpoint=folder / "best.safetensors",
        resume=folder / "trial.resume",
        resume_every=0,
    )


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_a_best_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, how: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "best.safetensors"
    save_best(path, {"head.weight": torch.zeros(2)}, ("a", "b"))
    assert load_best(path)[1] == ("a", "b")
    content = {"head.weight": torch.zeros(2), "more": Payload(trace)}
    torch.save(content, path) if how == "torch.save" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(ResourceError, match=r"best\.safetensors cannot be read"):
        load_best(path)
    assert not trace.exists()


def test_a_note_that_would_run_code_is_not_taken_and_the_trial_starts_anew(
    data: TrialData, config: TrialConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, epochs=3)
    whole = run(config, data, tmp_path / "whole")
    with pytest.raises(KilledError):
        run(config, data, tmp_path, kill_at=3)
    note, trace = tmp_path / "trial.resume", tmp_path / "trace"
    content = torch.load(note, map_location="cpu", weights_only=True)
    assert ResumePoint.load(note, content["identity"]) is not None
    content["warnings"] = [Payload(trace)]
    torch.save(content, note)
    assert torch.load(note, map_location="cpu", weights_only=False) and trace.exists(), "it would have run"
    trace.unlink()

    resumed = run(config, data, tmp_path)
    assert not trace.exists()
    assert [epoch.train_loss for epoch in resumed.epochs] == [epoch.train_loss for epoch in whole.epochs]
    one, other = (load_file(folder / "best.safetensors") for folder in (tmp_path / "whole", tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)
