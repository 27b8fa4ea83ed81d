"""A batch in parts: the same gradients, the same steps, and a warning where they cannot be the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.config.trial import TrialConfig
from harness.model.batchnorm import apply_policy
from harness.model.meta import build_shapes
from harness.model.transfer import TransferModel
from harness.results.records import TrialJob, TrialRecord
from harness.training import loop, trial
from harness.training.frozen_features.initial_models import InitialModels
from harness.training.frozen_features.input_pipeline import ImagePipeline, Normalise
from harness.training.loss import Loss
from harness.training.mixing import Mixed
from harness.training.optimizers import make_optimizer
from harness.training.out_of_memory import MemoryFallback, gradient_differences, split_batch
from harness.training.trial import enter_phase, run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted loss": {"imbalance": "weighted_loss"},
    "label smoothing": {"label_smoothing": 0.2},
    "mixup": {"mixup": 0.5},
    "CutMix": {"cutmix": 1.0},
    "gradient clipping": {"gradient_clip": 0.05},
    "all of them": {
        "imbalance": "weighted_loss",
        "label_smoothing": 0.1,
        "mixup": 0.5,
        "cutmix": 1.0,
        "gradient_clip": 0.05,
        "augmentation": "microscopy",
    },
}


@pytest.fixture
def exact(config: TrialConfig) -> TrialConfig:
    """Fixed statistics, no dropout, and one step an epoch."""
    return dataclasses.replace(
        config, backbone="shufflenet_v2_x0_5", batchnorm="fixed_stats", unfreeze_depth=3, batch_size=16, epochs=1
    )


@pytest.fixture
def lopsided(data: TrialData) -> TrialData:
    """Sixteen training images of unequal classes: one step."""
    labels = np.where(np.arange(60) % 4 == 0, np.arange(60) % 3, 0)
    return dataclasses.replace(data, labels=labels, train=np.arange(16))


class DoubleFeed(ImagePipeline):
    def inputs(self, *args: Any) -> tuple[Tensor, Mixed | None]:
        inputs, mixed = super().inputs(*args)
        return inputs.double(), mixed


def step(config: TrialConfig, data: TrialData, micro_batch: int | None, *, double: bool) -> dict[str, Any]:
    """One step from the start: the loss, the gradients that the optimizer was given, and how far each value moved."""
    model, _, _ = InitialModels().checkout(config, 0, data, "none" if double else "bundled", CPU)
    loss = Loss(config, data.labels[data.train], data.num_classes, CPU)
    if double:
        model.double()
        loss._weights = loss._weights.double() if loss._weights is not None else None
    names, _ = enter_phase(model, config, 1)
    optimizer = make_optimizer(model, config)
    feed = (DoubleFeed if double else ImagePipeline)(data, config, 0, Normalise(model.mean, model.std, CPU), CPU)
    trained = {name: p for name, p in model.named_parameters() if name in names}
    before = {name: p.detach().clone() for name, p in trained.items()}
    gradients: list[Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad.clone() for p in trained.values()))  # type: ignore[union-attr]
    value = loop.train_epoch(model, optimizer, loop.TrainingSetup(data, config, 0, loss, CPU, micro_batch), feed, 1)
    assert len(gradients) == len(trained)  # one step
    return {
        "loss": value,
        "gradient": torch.cat([g.flatten() for g in gradients]),
        "update": torch.cat([(p.detach() - before[name]).flatten() for name, p in trained.items()]),
    }


def apart(one: Tensor, other: Tensor) -> float:
    """Norm of the difference, relative to the norm of the first."""
    return float((one - other).norm() / one.norm())


def each_way_once() -> Iterator[Any]:
    """Each way with one optimizer and one size of a part, all of them with both; slowly each with each."""
    for number, way in enumerate(WAYS):
        for turn, values in enumerate((("adamw", 6), ("sgd", 2))):
            often = way == "all of them" or number % 2 == turn
            yield pytest.param(way, *values, marks=[] if often else [pytest.mark.slow])


@pytest.mark.parametrize(("way", "optimizer", "micro_batch"), [*each_way_once()])
def test_the_update_is_the_whole_batch_s(
    way: str, optimizer: Any, micro_batch: int, exact: TrialConfig, lopsided: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where rounding does not hide a wrong factor: AdamW's first step is hardly more than a sign."""
    real = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else real(x))
    config = dataclasses.replace(exact, optimizer=optimizer, **WAYS[way])
    whole, pieces = (step(config, lopsided, size, double=True) for size in (None, micro_batch))
    assert whole["update"].norm() > 1e-5
    assert apart(whole["update"], pieces["update"]) < 1e-6
    assert pieces["loss"] == pytest.approx(whole["loss"], rel=1e-6)


@pytest.mark.parametrize(
    "way", ["plain", "all of them", *(pytest.param(way, marks=pytest.mark.slow) for way in [*WAYS][1:-1])]
)
def test_in_float32_the_gradient_is_the_whole_batch_s_up_to_rounding(
    way: str, exact: TrialConfig, lopsided: TrialData
) -> None:
    config = dataclasses.replace(exact, backbone="resnet18", optimizer="sgd", **WAYS[way])
    whole, pieces = (step(config, lopsided, size, double=False) for size in (None, 4))
    assert apart(whole["gradient"], pieces["gradient"]) < 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_the_losses_of_the_parts_sum_up_to_the_whole_batch_s(way: str, config: TrialConfig) -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0, 0, 1, 0])
    loss = Loss(dataclasses.replace(config, **WAYS[way]), labels.numpy(), 3, CPU)
    logits, partner = torch.randn(11, 3), torch.randperm(11)
    for mixed in (None, Mixed(torch.empty(0), partner, 0.3)):
        summed = sum(loss.part(logits[here], labels, mixed, here) for here in split_batch(11, 3))
        assert float(summed) == pytest.approx(float(loss(logits, labels, mixed)), rel=1e-6)


@pytest.mark.parametrize(("images", "most", "sizes"), [(64, 32, [32, 32]), (10, 3, [2, 3, 2, 3]), (5, 5, [5])])
def test_parts_are_few_and_alike_and_make_up_the_batch(images: int, most: int, sizes: list[int]) -> None:
    found = split_batch(images, most)
    assert [here.stop - here.start for here in found] == sizes
    assert [row for here in found for row in range(images)[here]] == list(range(images))


def run(config: TrialConfig, data: TrialData, micro_batch: int | None, weights: str = "none") -> TrialRecord:
    job = TrialJob("x/0", "search", config.strategy, 0, config, 0, "search")
    return run_trial(
        job,
        data,
        lambda epoch: True,
        objective="accuracy",
        weights_name=weights,
        device=CPU,
        fallback=MemoryFallback(released=micro_batch is not None, micro_batch=micro_batch),
    )


def test_no_pass_holds_more_images_and_everything_else_happens_as_often(
    config: TrialConfig, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views are drawn for whole batches; clipping, steps and averaging come once a batch."""
    config = dataclasses.replace(config, gradient_clip=0.5, ema=0.9)
    seen: dict[str, list[int]] = {}

    def noted(owner: Any, name: str, size: Callable[..., int]) -> None:
        real = getattr(owner, name)

        def spy(*args: Any, **options: Any) -> Any:
            seen.setdefault(name, []).append(size(*args))
            return real(*args, **options)

        monkeypatch.setattr(owner, name, spy)

    noted(TransferModel, "forward", lambda model, x, *rest: len(x))
    noted(trial.loop, "derive", lambda *parts: 1)
    noted(torch.nn.utils, "clip_grad_norm_", lambda *args: 1)
    noted(torch.optim.AdamW, "step", lambda *args: 1)
    noted(trial.Average, "update", lambda *args: 1)
    noted(ImagePipeline, "inputs", lambda feed, epoch, step, rows, times: len(rows))
    assert run(config, data, None).state == "complete"
    whole, seen = seen, {}
    record = run(config, data, 4)
    assert set(whole.pop("forward")) == {8}
    assert set(seen.pop("forward")) == {4}
    assert seen == whole
    assert len(whole["clip_grad_norm_"]) == len(whole["inputs"]) == 10
    assert set(whole["inputs"]) == {8}
    assert (record.micro_batch, len(record.epochs)) == (4, 2)
    assert "micro-batches of 4; activations are shared for one batch shape only" in (record.cache_reason or "")


def test_a_whole_trial_comes_to_the_same_scores_where_nothing_depends_on_the_batch(
    exact: TrialConfig, data: TrialData
) -> None:
    exact = dataclasses.replace(exact, backbone="resnet18", unfreeze_depth=1, batch_size=8, epochs=2, optimizer="sgd")
    whole, pieces = (run(exact, data, size, "bundled") for size in (None, 4))
    assert whole.micro_batch is None
    assert whole.warnings == ()
    assert len(pieces.warnings) == 1  # of the rungs alone
    for one, other in zip(whole.epochs, pieces.epochs, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.validation["log_loss"] == pytest.approx(one.validation["log_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "batchnorm", "dropout"),
    [
        ({"batchnorm": "fixed_stats", "backbone": "shufflenet_v2_x0_5"}, False, False),
        ({"batchnorm": "updated_stats", "backbone": "shufflenet_v2_x0_5"}, True, False),
        ({"batchnorm": "train_mode", "unfreeze_depth": 0, "backbone_lr": None}, True, False),
        ({"batchnorm": "fixed_stats"}, False, True),  # MobileNetV3 drops before its last layer
        (
            {"batchnorm": "fixed_stats", "unfreeze_depth": 0, "backbone_lr": None},
            False,
            False,
        ),  # not where it is frozen
        ({"batchnorm": "frozen", "backbone": "shufflenet_v2_x0_5", "head_dropout": 0.2}, False, True),
    ],
)
def test_numbers_that_are_not_the_whole_batch_s_are_flagged(
    config: TrialConfig, data: TrialData, changes: dict[str, Any], batchnorm: bool, dropout: bool
) -> None:
    record = run(dataclasses.replace(config, epochs=1, **changes), data, 4)
    told = " ".join(record.warnings[1:])
    assert ("BatchNorm uses the statistics of each micro-batch" in told) is batchnorm
    assert ("dropout draws other numbers" in told) is dropout
    assert ("not those of whole batches" in told) is (batchnorm or dropout)


@pytest.mark.parametrize(
    ("backbone", "random"),
    [("efficientnet_b0", True), ("convnext_tiny", True), ("swin_t", True), ("resnet18", False), ("vit_b_16", False)],
)
def test_stochastic_depth_and_dropout_are_seen_where_they_are_active(backbone: str, random: bool) -> None:
    model = build_shapes(backbone, 3)
    apply_policy(model, "fixed_stats", ["stage4"])
    assert bool(gradient_differences(model.train())) is random
    assert gradient_differences(model.eval()) == []


def test_statistics_recalibrated_in_micro_batches_are_the_same_up_to_rounding(
    config: TrialConfig, data: TrialData
) -> None:
    config = dataclasses.replace(config, batchnorm="recalibrated")
    models = InitialModels()
    whole, _, _ = models.checkout(config, 0, data, "none", CPU)
    pieces, _, at_hand = models.checkout(config, 0, data, "none", CPU, 4)
    assert not at_hand
    for (name, one), (_, other) in zip(whole.named_buffers(), pieces.named_buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6), name
