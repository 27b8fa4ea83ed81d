"""Every parameter: an unusual value goes in at the YAML and is found where the training step happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.config.load import load_study
from harness.config.parameters import PARAMETERS
from harness.config.space import space
from harness.results.records import TrialJob
from harness.training import ema, trial
from harness.training.frozen_features import input_pipeline
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData


@dataclass
class Seen:
    """What reached the steps of a trial."""

    model: Any = None
    optimizer: Any = None
    rates: list[dict[str, float]] = field(default_factory=list)  # of each step, by stage
    norms: list[float] = field(default_factory=list)  # of all gradients together, at each step
    stages: list[set[str]] = field(default_factory=list)  # that had a gradient, at each step
    inputs: list[torch.Tensor] = field(default_factory=list)
    labels: list[torch.Tensor] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)  # keywords of cross_entropy
    recipes: set[str] = field(default_factory=set)
    decays: set[float] = field(default_factory=set)  # of the moving average
    mixed: list[Any] = field(default_factory=list)
    epochs: int = 0


def trained(search: str, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int = 4) -> Seen:
    """Train the default configuration of a study file whose `search` holds these lines."""
    lines = "".join(f"  {line}\n" for line in ("backbone: mobilenet_v3_small", "batch_size: 8", *search.splitlines()))
    text = f"epochs: {epochs}\ndata: {{image_size: 32}}\nsearch:\n{_once(lines)}"
    (tmp_path / "one.yaml").write_text(text)
    study = load_study("one", studies=tmp_path).study
    config = space(study, "feature_extraction" if "head_solver" in search else "fine_tuning").default()
    seen = Seen()
    real_optimizer, real_entropy, real_views = trial.make_optimizer, F.cross_entropy, input_pipeline.draw_views
    real_mix, real_average = input_pipeline.mix, ema.Average

    def optimizer(model: Any, config: Any, *_: Any, **__: Any) -> Any:
        seen.model, seen.optimizer = model, real_optimizer(model, config)
        model.register_forward_pre_hook(lambda m, args: seen.inputs.append(args[0].clone()) if m.training else None)
        seen.optimizer.register_step_pre_hook(lambda o, *_: note(o))
        return seen.optimizer

    def note(optimizer: Any) -> None:
        stepped = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        seen.rates.append({group["stage"]: group["lr"] for group in optimizer.param_groups})
        seen.norms.append(float(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in stepped]))))
        seen.stages.append({g["stage"] for g in optimizer.param_groups if any(p.grad is not None for p in g["params"])})

    def entropy(logits: Any, labels: Any, **options: Any) -> Any:
        seen.labels.append(labels)
        seen.losses.append(options)
        return real_entropy(logits, labels, **options)

    def views(data: Any, recipe: str, *rest: Any) -> Any:
        seen.recipes.add(recipe)
        return real_views(data, recipe, *rest)  # type: ignore[arg-type]

    def mix(*args: Any) -> Any:
        seen.mixed.append((args[0], real_mix(*args)))
        return seen.mixed[-1][1]

    def averaged(tensors: Any, decay: float) -> Any:
        seen.decays.add(decay)
        return real_average(tensors, decay)

    monkeypatch.setattr(trial, "make_optimizer", optimizer)
    monkeypatch.setattr(F, "cross_entropy", entropy)
    monkeypatch.setattr(input_pipeline, "draw_views", views)
    monkeypatch.setattr(input_pipeline, "mix", mix)
    monkeypatch.setattr(trial, "Average", averaged)
    record = run_trial(
        TrialJob("x/0", "search", config.strategy, 0, config, 0, "search"),
        data,
        lambda epoch: True,
        objective="accuracy",
        weights_name="none",
        device=torch.device("cpu"),
    )
    assert (record.state, record.reason) == ("complete", None)
    seen.epochs = len(record.epochs)
    return seen


def _once(lines: str) -> str:
    """The later of two lines for the same parameter counts."""
    return "".join({line.partition(":")[0]: f"{line}\n" for line in lines.splitlines()}.values())


def modules(part: Any, kind: Any) -> list[Any]:
    return [layer for layer in part.modules() if isinstance(layer, kind)]


def first_epochs(seen: Seen) -> list[set[str]]:
    """The stages that trained, of the first step of each epoch (5 steps each)."""
    return [stages - {"head"} for stages in seen.stages[::5]]


LAST3 = {"stage2", "stage3", "stage4"}
PROBES: dict[str, tuple[str, Callable[[Seen], bool]]] = {
    "backbone": ("backbone: squeezenet1_1", lambda s: s.model.backbone_name == "squeezenet1_1"),
    "unfreeze_depth": ("unfreeze_depth: 3", lambda s: s.stages[0] == LAST3 | {"head"}),
    "unfreeze_from": ("unfreeze_from: stem\nunfreeze_depth: 2", lambda s: s.stages[0] == {"stem", "stage1", "head"}),
    "unfreeze_schedule": (
        "unfreeze_schedule: progressive\nunfreeze_depth: 3",
        lambda s: [len(stages) for stages in first_epochs(s)] == [0, 1, 2, 3],
    ),
    "head_fraction": (
        "head_fraction: 0.5\nunfreeze_schedule: head_first",
        lambda s: [len(stages) for stages in first_epochs(s)] == [0, 0, 5, 5],
    ),
    "head_solver": ("head_solver: logistic", lambda s: not s.rates),  # the optimizer made no step
    "head_lr": ("head_lr: 0.0123", lambda s: max(rates["head"] for rates in s.rates) == pytest.approx(0.0123)),
    "backbone_lr": ("backbone_lr: 0.0045", lambda s: max(r["stem"] for r in s.rates) == pytest.approx(0.0045)),
    "layer_decay": (
        "layer_decay: 0.5\nbackbone_lr: 0.0032",
        lambda s: max(r["stage2"] for r in s.rates) == pytest.approx(0.0008),
    ),
    "batchnorm": ("batchnorm: train_mode\nunfreeze_depth: 1", lambda s: s.model.batchnorm_policy == "train_mode"),
    "optimizer": ("optimizer: sgd", lambda s: isinstance(s.optimizer, torch.optim.SGD)),
    "weight_decay": (
        "weight_decay: 0.0321",
        lambda s: {g["weight_decay"] for g in s.optimizer.param_groups} == {0.0321, 0.0},
    ),
    "label_smoothing": ("label_smoothing: 0.17", lambda s: {o["label_smoothing"] for o in s.losses} == {0.17}),
    "warmup_fraction": (
        "warmup_fraction: 0.5\nhead_lr: 0.01",
        lambda s: [r["head"] for r in s.rates].index(max(r["head"] for r in s.rates)) == 10,
    ),
    "gradient_clip": ("gradient_clip: 0.031", lambda s: max(s.norms) == pytest.approx(0.031, rel=1e-4)),
    "ema": ("ema: 0.77", lambda s: s.decays == {0.77}),
    "early_stopping": ("early_stopping: 1\nhead_lr: 1e-9\nbackbone_lr: 1e-9", lambda s: s.epochs == 2),
    "head": ("head: mlp", lambda s: len(modules(s.model.head, nn.Linear)) == 2),
    "head_hidden": ("head_hidden: 37\nhead: mlp", lambda s: modules(s.model.head, nn.Linear)[0].out_features == 37),
    "head_dropout": ("head_dropout: 0.35", lambda s: [d.p for d in modules(s.model.head, nn.Dropout)] == [0.35]),
    "head_init": (
        "head_init: zero\nhead_lr: 1e-30\nweight_decay: 0",
        lambda s: float(s.model.head.weight.detach().abs().max()) < 1e-20,
    ),
    "imbalance": ("imbalance: weighted_loss", lambda s: all(len(o["weight"]) == 3 for o in s.losses)),
    "augmentation": ("augmentation: microscopy", lambda s: s.recipes == {"microscopy"}),
    "mixup": ("mixup: 0.4", lambda s: all(m.share < 1 and not torch.equal(m.images, i) for i, m in s.mixed)),
    "cutmix": ("cutmix: 1.0", lambda s: any((m.images != i).flatten(1).any(1).any() for i, m in s.mixed)),
    "batch_size": ("batch_size: 11", lambda s: {len(images) for images in s.inputs} == {11}),
}


def test_every_parameter_has_a_probe() -> None:
    # a worker finds the weights by their label in the study: see tests/study/test_search_weights.py
    assert set(PROBES) == set(PARAMETERS) - {"weights"}


@pytest.mark.parametrize("parameter", PROBES)
def test_a_value_in_the_file_reaches_the_training_step(
    parameter: str, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, found = PROBES[parameter]
    over_time = parameter in ("unfreeze_schedule", "head_fraction", "warmup_fraction", "early_stopping")
    assert found(trained(search, data, tmp_path, monkeypatch, epochs=4 if over_time else 1))


def test_no_probe_finds_its_value_where_the_file_says_nothing(
    data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = trained("", data, tmp_path, monkeypatch)
    for parameter, (_, found) in PROBES.items():
        with contextlib.suppress(KeyError, TypeError, AttributeError, IndexError):  # what it looks at is not there
            assert not found(seen), parameter


def test_balanced_sampling_reaches_the_step(data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = np.where(np.arange(60) % 10 == 0, 1, 0)
    lopsided = TrialData(data.images, rare, data.keys, data.train, data.validation, ("common", "rare"))
    seen = trained("imbalance: balanced_sampling", lopsided, tmp_path, monkeypatch, epochs=1)
    assert torch.cat(seen.labels).float().mean() == 0.5
