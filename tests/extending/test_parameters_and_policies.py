"""What it takes to add something: a line in a table, a field, and the place that uses it. Each test adds one thing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import FixedTrial
from torch import nn

from harness.config import keys
from harness.config.batchnorm_policy import POLICIES, Policy
from harness.config.load import parse
from harness.config.parameter import Parameter, Rule
from harness.config.parameters import PARAMETERS, idle, label
from harness.config.space import space
from harness.config.trial import TrialConfig
from harness.config.unfreezing import unfrozen_stages
from harness.errors import ConfigError
from harness.model.summary import parts
from harness.model.transfer import BATCHNORM
from harness.search.optuna_params import params_of, suggest
from harness.search.strategy_search import StrategySearch
from harness.training import trial
from harness.training.frozen_features.features import reason_against
from harness.training.trial import TrialJob, run_trial
from harness.training.trial_data import TrialData

SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small", "batch_size": 8}


def images() -> TrialData:
    """Sixty images of 32 px in three classes, each a colour."""
    rng = np.random.default_rng(0)
    rows, labels = np.arange(60), np.arange(60) % 3
    pixels = rng.integers(0, 120, (60, 32, 32, 3))
    pixels[rows, :, :, labels] += 90
    named = ("red", "green", "blue")
    return TrialData(pixels.astype(np.uint8), labels, rows.astype(np.uint64), rows[:43], rows[43:], named)


def trained(config: TrialConfig) -> Any:
    return run_trial(
        TrialJob("x/0", "search", config.strategy, 0, config, 0, "search"),
        images(),
        lambda epoch: True,
        objective="accuracy",
        weights_name="none",
        device=torch.device("cpu"),
    )


@dataclasses.dataclass(frozen=True)
class WithEpsilon(TrialConfig):
    """The field that a new search parameter needs."""

    epsilon: float = 1e-8


def test_a_search_parameter_needs_an_entry_a_field_and_the_place_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Parameter(
        "epsilon",
        "float",
        doc="added to the denominator of AdamW",
        label="epsilon of AdamW",
        default=1e-8,
        low=0,
        high=1,
        low_open=True,
        off=1e-8,
        active=Rule(("optimizer",), lambda optimizer: optimizer == "adamw"),
    )
    monkeypatch.setitem(PARAMETERS, "epsilon", entry)
    monkeypatch.setattr("harness.config.space.TrialConfig", WithEpsilon)
    used: list[float] = []
    plain = trial.make_optimizer

    def make_optimizer(model: Any, config: Any, *rest: Any, **named: Any) -> torch.optim.Optimizer:
        made = plain(model, config, *rest, **named)
        for group in made.param_groups:
            group["eps"] = config.epsilon
        used.append(config.epsilon)
        return made

    monkeypatch.setattr(trial, "make_optimizer", make_optimizer)

    assert "| `epsilon` | above 0 to 1 | added to the denominator of AdamW |" in keys.table()
    with pytest.raises(ConfigError, match="epsilon: must lie in"):
        parse({"search": {"epsilon": 3}}, "x.yaml")
    searched = {"epsilon": {"low": 1e-7, "high": 1e-2, "log": True}, "optimizer": ["adamw", "sgd"]}
    study = parse({"search": {**SMALL, **searched}, "epochs": 1, "data": {"image_size": 32}}, "x.yaml")
    here = space(study, "fine_tuning")
    search = StrategySearch(here, "accuracy", 0, 1)
    asked = [search.ask(slot, 0) for slot in range(8)]
    assert {one.params["optimizer"] for one in asked} == {"adamw", "sgd"}
    for one in asked:
        assert ("epsilon" in one.params) == (one.params["optimizer"] == "adamw")
        assert one.config.epsilon == one.params.get("epsilon", 1e-8 if one.params["optimizer"] == "sgd" else None)  # type: ignore[attr-defined]
        assert suggest(FixedTrial(params_of(one.config, here)), here) == one.config
    chosen = next(one.config for one in asked if one.params["optimizer"] == "adamw")
    assert chosen.key() != dataclasses.replace(chosen, epsilon=0.5).key()  # type: ignore[call-arg]
    record = trained(chosen)
    assert (record.state, record.reason) == ("complete", None)
    assert used == [chosen.epsilon]  # type: ignore[attr-defined]
    assert label("epsilon") == "epsilon of AdamW"
    assert "epsilon" not in idle(chosen.to_json())
    assert "epsilon" in idle(chosen.to_json() | {"optimizer": "sgd"})


def test_a_batchnorm_policy_needs_its_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    new: Any = "moving_stats"  # statistics follow the batches of unfrozen stages, weights and biases stay
    monkeypatch.setitem(POLICIES, new, Policy(trains_affine=False, statistics="updated_where_unfrozen"))
    entry = dataclasses.replace(PARAMETERS["batchnorm"], choices=tuple(POLICIES))
    monkeypatch.setitem(PARAMETERS, "batchnorm", entry)
    seen: dict[str, Any] = {}
    plain = trial.make_optimizer

    def make_optimizer(model: Any, *rest: Any, **named: Any) -> torch.optim.Optimizer:
        seen["model"] = model
        seen["before"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return plain(model, *rest, **named)

    monkeypatch.setattr(trial, "make_optimizer", make_optimizer)

    search = {**SMALL, "batchnorm": ["fixed_stats", "recalibrated", new], "unfreeze_depth": 2}
    study = parse({"search": search, "epochs": 1, "data": {"image_size": 32}}, "x.yaml")
    # While every stage is frozen it does what `frozen` does.
    assert space(study, "feature_extraction").ranges["batchnorm"].values() == ("frozen", "recalibrated")
    config = space(study, "fine_tuning").config({"batchnorm": new})
    assert config.batchnorm == new
    assert reason_against(config, 1, 3) is None
    record = trained(config)
    assert (record.state, record.reason) == ("complete", None)
    model, before = seen["model"], seen["before"]
    assert {part.statistics for part in parts(model, config) if part.name == "stage4"} == {
        "updated, normalises by the batch"
    }
    layers: list[tuple[str, nn.Module]] = [(n, m) for n, m in model.named_modules() if isinstance(m, BATCHNORM)]
    for name, _ in layers:
        after = {key: value for key, value in model.state_dict().items() if key.startswith(f"{name}.")}
        moved = {key.rpartition(".")[2] for key, value in after.items() if not torch.equal(value, before[key])}
        unfrozen = name.split(".")[1] in unfrozen_stages(config, 1)
        assert moved == ({"running_mean", "running_var", "num_batches_tracked"} if unfrozen else set()), name
