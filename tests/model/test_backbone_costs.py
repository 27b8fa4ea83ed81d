"""The table of costs against the backbones, and what an inspection says against what trains."""

from __future__ import annotations

import pytest

from harness.config.backbone_costs import cost
from harness.config.backbone_specs import backbone_spec, backbone_specs
from harness.config.trial import TrialConfig
from harness.model import batchnorm, freezing
from harness.model.flops import measure
from harness.model.meta import build_shapes
from harness.model.param_groups import param_groups
from harness.model.summary import parts
from harness.model.transfer import build

QUICK = ("resnet18", "squeezenet1_1", "vit_b_32", "regnet_y_400mf")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in backbone_specs()]
)
def test_the_table_holds_what_is_measured(name: str) -> None:
    measured, stored = measure(name), cost(name)
    assert list(stored.parameters) == measured["parameters"]
    assert list(stored.forward) == measured["forward"]
    assert list(stored.backward) == measured["backward"]
    assert stored.batchnorm_layers == measured["batchnorm_layers"]


def test_work_of_resnet18_is_the_well_known_one() -> None:
    # torchvision states 1.814 G multiply-adds with the 1,000-class head, which is 0.5 M of them
    assert cost("resnet18").gflops == pytest.approx(2 * 1.8135, rel=1e-3)
    assert sum(cost("resnet18").parameters) == 11_689_512 - 513_000


def test_shares_rise_with_depth_to_the_whole() -> None:
    for name in backbone_specs():
        known = cost(name)
        for share in (known.parameter_share, known.backward_share):
            values = [share(depth) for depth in range(6)]
            assert values == sorted(values), name
            assert values[5] == 1.0
        assert known.parameter_share(0) == 0.0
        assert (known.batchnorm_layers > 0) == backbone_spec(name).has_batchnorm


def test_a_model_of_shapes_has_the_parameters_of_the_real_one() -> None:
    real, shapes = build("regnet_y_400mf", 4), build_shapes("regnet_y_400mf", 4)
    assert {n: p.shape for n, p in real.named_parameters()} == {n: p.shape for n, p in shapes.named_parameters()}
    assert all(p.is_meta for p in shapes.parameters())
    assert batchnorm.count(real) == batchnorm.count(shapes)


@pytest.mark.parametrize("policy", ["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"])
@pytest.mark.parametrize("schedule", ["at_once", "head_first", "progressive"])
def test_an_inspection_says_what_trains_when_and_at_which_rate(policy: str, schedule: str) -> None:
    config = TrialConfig(
        "fine_tuning",
        "mobilenet_v3_small",
        3,
        1e-2,
        1e-3,
        batchnorm=policy,
        unfreeze_schedule=schedule,
        layer_decay=0.5,
        epochs=8,
    )  # type: ignore[arg-type]
    model = build("mobilenet_v3_small", 4)
    said = {part.name: part for part in parts(build_shapes("mobilenet_v3_small", 4), config)}
    rates = {
        group["stage"]: group["lr"]
        for group in param_groups(
            model,
            head_lr=1e-2,
            backbone_lr=1e-3,
            layer_decay=0.5,
            weight_decay=0,
            names=freezing.names_any_epoch(model, config),
        )
    }
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for name, part in said.items():
        epochs = [
            epoch
            for epoch in range(1, 9)
            if any(freezing.stage_of(n) == name for n in freezing.trainable(model, config, epoch))
        ]
        ends = part.epochs.split("-")
        assert part.epochs == "never" if not epochs else (int(ends[0]), int(ends[-1])) == (epochs[0], epochs[-1])
        training = freezing.names_any_epoch(model, config)
        assert part.training == sum(sizes[n] for n in training if freezing.stage_of(n) == name)
        assert part.lr == rates.get(name)
    moving = {name for name, part in said.items() if "updated" in part.statistics}
    wanted = {"updated_stats": {"stage2", "stage3", "stage4"}, "train_mode": {"stem", *list(said)[1:5]}}
    assert moving == wanted.get(policy, set())
