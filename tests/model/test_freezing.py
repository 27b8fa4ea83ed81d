"""What trains when, from depth, direction, schedule and policy."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch

from harness.config import unfreezing
from harness.config.trial import STAGES, TrialConfig
from harness.errors import ConfigError
from harness.model import freezing
from harness.model.transfer import TransferModel, build

CONFIG = TrialConfig("fine_tuning", "mobilenet_v3_small", 5, head_lr=0.1, backbone_lr=0.1, batchnorm="fixed_stats")


def config(**change: object) -> TrialConfig:
    return dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> TransferModel:
    return build("mobilenet_v3_small", 3)


def stages(names: frozenset[str]) -> set[str]:
    return {freezing.stage_of(name) for name in names}


def test_depth_zero_trains_only_the_head(model: TransferModel) -> None:
    for schedule in ("at_once", "head_first", "progressive"):
        names = freezing.trainable(model, config(unfreeze_depth=0, unfreeze_schedule=schedule), 10)
        assert names == {"head.weight", "head.bias"}


def test_full_depth_trains_every_parameter(model: TransferModel) -> None:
    assert freezing.trainable(model, CONFIG, 1) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("end", ["head", "stem"])
def test_deeper_trains_more_from_either_end(model: TransferModel, end: str) -> None:
    sets = [freezing.trainable(model, config(unfreeze_depth=d, unfreeze_from=end), 1) for d in range(6)]
    assert all(less < more for less, more in pairwise(sets))


@pytest.mark.parametrize(
    ("end", "wanted"), [("head", {"stage3", "stage4", "head"}), ("stem", {"stem", "stage1", "head"})]
)
def test_direction_says_which_stages(model: TransferModel, end: str, wanted: set[str]) -> None:
    assert stages(freezing.trainable(model, config(unfreeze_depth=2, unfreeze_from=end), 1)) == wanted


def test_head_first_keeps_the_backbone_for_its_share_of_the_epochs() -> None:
    plan = config(unfreeze_depth=2, unfreeze_schedule="head_first", head_fraction=0.3, epochs=10)
    assert [unfreezing.unfrozen_stages(plan, epoch) for epoch in range(1, 11)] == [()] * 3 + [("stage3", "stage4")] * 7


def test_head_first_gives_the_head_an_epoch_however_small_its_share() -> None:
    plan = config(unfreeze_depth=1, unfreeze_schedule="head_first", head_fraction=0.01, epochs=3)
    assert [unfreezing.unfrozen_stages(plan, epoch) for epoch in (1, 2, 3)] == [(), ("stage4",), ("stage4",)]


@pytest.mark.parametrize("end", ["head", "stem"])
@pytest.mark.parametrize("depth", [1, 3, 5])
@pytest.mark.parametrize("epochs", [6, 7, 12, 20])
def test_progressive_adds_one_stage_at_a_time_at_equal_steps(end: str, depth: int, epochs: int) -> None:
    plan = config(unfreeze_depth=depth, unfreeze_from=end, unfreeze_schedule="progressive", epochs=epochs)
    counts = [len(unfreezing.unfrozen_stages(plan, epoch)) for epoch in range(1, epochs + 1)]
    assert counts[0] == 0
    assert counts[-1] == depth
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(counts))
    lengths = [counts.count(count) for count in range(depth + 1)]
    assert max(lengths) - min(lengths) <= 1
    second = unfreezing.unfrozen_stages(plan, 1 + counts.index(1))
    assert second == (("stage4",) if end == "head" else ("stem",))


def test_stages_are_named_stem_first_and_next_to_each_other() -> None:
    for end in ("head", "stem"):
        for depth in range(6):
            found = unfreezing.unfrozen_stages(config(unfreeze_depth=depth, unfreeze_from=end), 1)
            assert found == (STAGES[5 - depth :] if end == "head" else STAGES[:depth])


def test_frozen_policy_never_trains_batchnorm_weights(model: TransferModel) -> None:
    norms = {
        f"{name}.{parameter}"
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        for parameter in ("weight", "bias")
    }
    every = {name for name, _ in model.named_parameters()}
    assert freezing.trainable(model, config(batchnorm="frozen"), 10) == every - norms
    for policy in ("fixed_stats", "updated_stats", "recalibrated", "train_mode"):
        assert freezing.trainable(model, config(batchnorm=policy), 10) == every


@pytest.mark.parametrize("schedule", ["at_once", "head_first", "progressive"])
@pytest.mark.parametrize("policy", ["frozen", "updated_stats"])
def test_names_of_any_epoch_are_the_union_of_all(model: TransferModel, schedule: str, policy: str) -> None:
    plan = config(unfreeze_depth=3, unfreeze_schedule=schedule, batchnorm=policy)
    union = frozenset().union(*(freezing.trainable(model, plan, epoch) for epoch in range(1, 11)))
    assert freezing.names_any_epoch(model, plan) == union


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unfreeze_schedule": "progressive", "epochs": 5}, "progressive needs.* 6 .*got 5"),
        ({"unfreeze_schedule": "head_first", "epochs": 1}, "head_first must leave an epoch.*1 of 1"),
        ({"unfreeze_schedule": "head_first", "head_fraction": 1.0}, "head_first must leave an epoch.*10 of 10"),
        ({"unfreeze_depth": 6}, "unfreeze_depth must lie in 0..5.*got 6.*stem, stage1"),
    ],
)
def test_schedule_that_leaves_a_phase_without_an_epoch_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        unfreezing.check_schedule(config(**change))


def test_schedules_that_fit_pass() -> None:
    unfreezing.check_schedule(config(unfreeze_schedule="progressive", epochs=6))
    unfreezing.check_schedule(config(unfreeze_schedule="head_first", epochs=2))
    unfreezing.check_schedule(config(unfreeze_depth=0, unfreeze_schedule="progressive", epochs=1))


def test_epoch_outside_the_run_is_refused() -> None:
    for epoch in (0, 11):
        with pytest.raises(ConfigError, match=f"1..10.*{epoch}"):
            unfreezing.unfrozen_stages(CONFIG, epoch)


def test_unfreeze_last_leaves_no_traces_of_an_earlier_call() -> None:
    model = build("mobilenet_v3_small", 3)
    wanted = {0: [], 1: ["stage4"], 2: ["stage3", "stage4"], 5: list(STAGES)}
    for depth in (5, 1, 2, 0, 5):
        assert freezing.unfreeze_last(model, depth) == wanted[depth]
        training = {freezing.stage_of(name) for name, p in model.named_parameters() if p.requires_grad}
        assert training == {*wanted[depth], "head"}


@pytest.mark.parametrize("depth", [-1, 6])
def test_unfreeze_last_refuses_a_depth_out_of_range(model: TransferModel, depth: int) -> None:
    with pytest.raises(ConfigError, match=f"0..5 for mobilenet_v3_small, but got {depth}"):
        freezing.unfreeze_last(model, depth)


def test_frozen_parameter_with_an_old_gradient_does_not_move() -> None:
    model = build("squeezenet1_1", 3, image_size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    freezing.unfreeze_last(model, 0)
    before = {name: value.clone() for name, value in model.stages.state_dict().items()}
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.stages.state_dict().items())


def test_name_that_no_parameter_has_is_an_error(model: TransferModel) -> None:
    with pytest.raises(KeyError, match=r"stages\.stem\.nothing"):
        freezing.apply(model, {"stages.stem.nothing"})
