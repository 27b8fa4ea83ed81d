"""Each backbone's cut: the very modules, once each, in the order of torchvision's own forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from harness.config.backbone_specs import backbone_spec, backbone_specs
from harness.config.trial import STAGES
from harness.model import backbones


def test_stages_and_head_are_the_whole_model_and_nothing_else(backbone: str, smallest: Callable[[str], int]) -> None:
    size = smallest(backbone)
    torch.manual_seed(1)
    model = backbones.build_backbone(backbone, size).eval()
    stages = backbones.stages(model, backbone)
    head = backbones.head(model, backbone)

    assert tuple(stages) == STAGES
    held = Counter(id(tensor) for part in (*stages.values(), head) for tensor in (*part.parameters(), *part.buffers()))
    assert held == Counter(id(tensor) for tensor in (*model.parameters(), *model.buffers()))
    assert all(any(True for _ in stage.parameters()) for stage in stages.values())
    # not only what learns: a lost dropout would show in no output of eval mode
    layers = Counter(id(layer) for part in (*stages.values(), head) for layer in part.modules())
    assert all(layers[id(layer)] == 1 for layer in model.modules() if not list(layer.children()))

    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        wanted = model(x.clone())
        for name, stage in stages.items():
            given = x.clone()
            x = stage(given_to := x)
            assert torch.equal(given, given_to), f"{name} writes into its input"
        assert torch.equal(head(x), wanted)


def test_stages_run_in_train_mode_without_writing_into_what_they_are_given() -> None:
    for name in ("mobilenet_v3_small", "densenet121", "squeezenet1_1"):
        model = backbones.build_backbone(name).train()
        x = torch.randn(2, 3, 64, 64)
        for stage in backbones.stages(model, name).values():
            given = x.detach().clone()
            output = stage(x)
            assert torch.equal(given, x)
            x = output.detach()


def test_auxiliary_heads_are_not_built() -> None:
    for name in ("googlenet", "inception_v3"):
        model = backbones.build_backbone(name)
        assert not any("aux" in parameter.lower() for parameter, _ in model.named_parameters())
        model.train()
        assert model(torch.randn(2, 3, 96, 96)).shape == (2, 1000)


def test_layers_before_the_last_linear_one_belong_to_the_last_stage() -> None:
    for name, layers in {"alexnet": 2, "mobilenet_v3_small": 1}.items():
        model = backbones.build_backbone(name)
        last = backbones.stages(model, name)["stage4"]
        classifier = {id(layer) for layer in model.get_submodule("classifier").modules()}
        dense = [part for part in last.modules() if isinstance(part, torch.nn.Linear) and id(part) in classifier]
        assert len(dense) == layers, name


def test_small_members_stand_for_every_family(small_members: tuple[str, ...]) -> None:
    assert {backbone_spec(name).family for name in small_members} == {
        entry.family for entry in backbone_specs().values()
    }
