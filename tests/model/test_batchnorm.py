"""The five policies by what they do to outputs and statistics, and recalibration against a plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.config.backbone_specs import backbone_specs
from harness.config.trial import STAGES
from harness.errors import DataError
from harness.model import batchnorm, freezing
from harness.model.transfer import TransferModel, build

POLICIES = ("frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode")
Snapshot = Callable[[nn.Module], dict[str, Tensor]]


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The stages in which running statistics are not what they were."""
    return {
        freezing.stage_of(name)
        for name, value in model.state_dict().items()
        if ("running" in name or "num_batches" in name) and not torch.equal(value, before[name])
    }


@pytest.fixture
def model() -> TransferModel:
    return build("resnet18", 3, "bundled", image_size=32)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("unfrozen", [(), ("stage4",), ("stem", "stage1"), STAGES])
def test_statistics_move_only_where_the_policy_says(
    model: TransferModel, snapshot: Snapshot, policy: Any, unfrozen: tuple[str, ...]
) -> None:
    batchnorm.apply_policy(model, policy, unfrozen)
    before = snapshot(model)
    for _ in range(2):
        model.train()
        model(torch.randn(4, 3, 32, 32))
        model.eval()
        model(torch.randn(4, 3, 32, 32))
    wanted = {"train_mode": set(STAGES), "updated_stats": set(unfrozen)}.get(policy, set())
    assert moved(model, before) == wanted


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_s_answer_depends_on_its_batch_only_where_the_policy_says(model: TransferModel, policy: Any) -> None:
    batchnorm.apply_policy(model, policy, ("stage4",))
    model.train()
    images = torch.randn(4, 3, 32, 32)
    others = torch.cat([images[:1], torch.rand(3, 3, 32, 32) * 5])
    with torch.no_grad():
        x = y = None
        for name, stage in model.stages.items():
            x, y = (stage(images), stage(others)) if x is None else (stage(x), stage(y))
            by_batch = policy == "train_mode" or (policy == "updated_stats" and name == "stage4")
            assert torch.allclose(x[0], y[0], atol=1e-5) != by_batch, name


def test_policy_holds_through_every_train_and_gives_way_to_the_next(model: TransferModel, snapshot: Snapshot) -> None:
    for policy, wanted in (("updated_stats", {"stage4"}), ("frozen", set()), ("train_mode", set(STAGES))):
        batchnorm.apply_policy(model, policy, ["stage4"])  # type: ignore[arg-type]
        before = snapshot(model)
        model.eval().train()
        model.train()
        model(torch.randn(4, 3, 32, 32))
        assert moved(model, before) == wanted


def test_policy_applies_at_once_to_a_model_in_train_mode(model: TransferModel, snapshot: Snapshot) -> None:
    model.train()
    batchnorm.apply_policy(model, "frozen", STAGES)
    before = snapshot(model)
    model(torch.randn(4, 3, 32, 32))
    assert moved(model, before) == set()
    model.eval()
    batchnorm.apply_policy(model, "train_mode", STAGES)
    assert not model.training


def test_without_names_the_stages_that_require_gradients_are_unfrozen(model: TransferModel, snapshot: Snapshot) -> None:
    freezing.unfreeze_last(model, 2)
    batchnorm.apply_policy(model, "updated_stats")
    before = snapshot(model)
    model.train()(torch.randn(4, 3, 32, 32))
    assert moved(model, before) == {"stage3", "stage4"}


def test_nothing_random_is_active_in_frozen_stages() -> None:
    model = build("efficientnet_b0", 3, image_size=32)
    images = torch.randn(4, 3, 32, 32)
    for policy in POLICIES:
        batchnorm.apply_policy(model, policy, ())  # type: ignore[arg-type]
        model.train()
        torch.manual_seed(0)
        first = model.features(images)
        torch.manual_seed(1)
        assert torch.equal(model.features(images), first), policy
    batchnorm.apply_policy(model, "fixed_stats", ("stage4",))
    model.train()
    assert not torch.equal(model.features(images), model.features(images))


def test_stage_that_there_is_not_is_an_error(model: TransferModel) -> None:
    with pytest.raises(KeyError, match="stage9"):
        batchnorm.apply_policy(model, "frozen", ["stage9"])


def test_layers_are_counted() -> None:
    assert batchnorm.count(build("resnet18", 2)) == 20
    assert not batchnorm.has_batchnorm(build("squeezenet1_1", 2))


# Recalibration


def plainly(model: TransferModel, images: Tensor) -> dict[str, Tensor]:
    """Statistics layer by layer in the order of the forward pass, each from one pass over all images as one batch."""
    order: list[nn.Module] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(lambda layer, _: order.append(layer)) for layer in layers]
    model.eval()
    with torch.no_grad():
        model(images)
        for hook in hooks:
            hook.remove()
        for layer in order:
            seen: list[Tensor] = []
            hook = layer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].double()))
            model(images)
            hook.remove()
            layer.get_buffer("running_mean").copy_(seen[0].mean((0, 2, 3)))
            layer.get_buffer("running_var").copy_(seen[0].var((0, 2, 3)))
    return dict(model.named_buffers())


def far(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference as normalisation feels it: of means in standard deviations, of variances as a share."""
    worst = 0.0
    for name, value in ours.items():
        if not name.endswith(("running_mean", "running_var")):
            continue
        variance = theirs[name.replace("running_mean", "running_var")] + 1e-5  # BatchNorm's own epsilon
        scale = variance.sqrt() if name.endswith("running_mean") else variance
        worst = max(worst, float(((value - theirs[name]).abs() / scale).max()))
    return worst


@pytest.fixture
def sorted_images() -> Tensor:
    """24 images from dark to bright: every small batch is unlike the whole."""
    generator = torch.Generator().manual_seed(0)
    brightness = torch.linspace(-2, 2, 24).view(-1, 1, 1, 1)
    return torch.randn(24, 3, 32, 32, generator=generator) * (2.5 + brightness) + brightness


FAMILIES = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5")
MORE = ("densenet121", "googlenet", "regnet_y_400mf", "efficientnet_b0", "mobilenet_v2", "vgg11_bn")


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_recalibration_equals_one_pass_a_layer_over_one_whole_batch(name: str, sorted_images: Tensor) -> None:
    model, reference = build(name, 2), build(name, 2)
    batchnorm.recalibrate(model, sorted_images, batch_size=len(sorted_images))
    assert far(dict(model.named_buffers()), plainly(reference, sorted_images)) < 1e-6


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_recalibration_does_not_depend_on_the_batch_shape(name: str, sorted_images: Tensor) -> None:
    found = []
    for size in (24, 5):
        model = build(name, 2, "bundled")
        batchnorm.recalibrate(model, sorted_images, batch_size=size)
        found.append(dict(model.named_buffers()))
    assert far(found[1], found[0]) < 1e-5


@pytest.mark.parametrize("name", ["resnet18", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_recalibration_does_not_depend_on_the_caller_s_batches_or_order(name: str, sorted_images: Tensor) -> None:
    found = []
    for images in (sorted_images, iter(sorted_images.split([1, 20, 3])), sorted_images.flip(0)):
        model = build(name, 2)
        batchnorm.recalibrate(model, images, batch_size=16)
        found.append(dict(model.named_buffers()))
    assert far(found[1], found[0]) == 0
    assert far(found[2], found[0]) < 1e-5


def test_recalibration_is_the_same_when_nothing_may_be_kept(
    sorted_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy, tight = (build("resnet18", 2, "bundled") for _ in range(2))
    batchnorm.recalibrate(roomy, sorted_images, batch_size=12)
    monkeypatch.setattr(batchnorm, "KEPT_BYTES", 500_000)
    batchnorm.recalibrate(tight, sorted_images, batch_size=12)
    assert far(dict(tight.named_buffers()), dict(roomy.named_buffers())) == 0


def test_recalibration_changes_running_statistics_and_nothing_else(
    model: TransferModel, snapshot: Snapshot, sorted_images: Tensor
) -> None:
    batchnorm.apply_policy(model, "updated_stats", ("stage4",))
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    before, images = snapshot(model), sorted_images.clone()
    generator = torch.get_rng_state()
    batchnorm.recalibrate(model, sorted_images, batch_size=24)
    for name, value in model.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == ("running" in name), name
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(sorted_images, images)
    assert torch.equal(torch.get_rng_state(), generator)


def test_recalibrated_layers_give_centred_values(sorted_images: Tensor) -> None:
    model = build("resnet18", 2, "bundled")
    batchnorm.recalibrate(model, sorted_images, batch_size=24)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    model.eval()
    norm = model.stages.get_submodule("stage2.layer2.1.bn2")
    norm.register_forward_hook(lambda layer, given, output: seen.append((output.clone(), layer.weight, layer.bias)))
    with torch.no_grad():
        model(sorted_images)
    output, weight, bias = seen[0]
    assert torch.allclose(output.mean((0, 2, 3)), bias, atol=1e-4)
    assert torch.allclose(output.std((0, 2, 3)), weight.abs(), rtol=1e-2, atol=1e-3)


def test_recalibration_without_images_is_refused(model: TransferModel) -> None:
    for nothing in (torch.zeros(0, 3, 32, 32), []):
        with pytest.raises(DataError, match="at least one image"):
            batchnorm.recalibrate(model, nothing)


def test_recalibration_of_a_backbone_without_batchnorm_changes_nothing(snapshot: Snapshot) -> None:
    model = build("squeezenet1_1", 2)
    before = snapshot(model)
    batchnorm.recalibrate(model, torch.randn(4, 3, 64, 64), batch_size=4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in backbone_specs().items() if entry.has_batchnorm])
def test_recalibration_reaches_every_layer(name: str, smallest: Callable[[str], int]) -> None:
    size = max(64, smallest(name))
    model = build(name, 2, image_size=size)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.get_buffer("running_var").fill_(-1)
    batchnorm.recalibrate(model, torch.randn(2, 3, size, size), batch_size=2)
    assert all((layer.get_buffer("running_var") >= 0).all() for layer in layers)
