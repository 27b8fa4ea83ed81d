"""Studies with backbones of timm and of the user's own, from their file to their page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from small_study import World, draw_images, records
from timm import create_model

from harness.config import backbone_specs
from harness.errors import ConfigError
from harness.report.page import write_report
from harness.results.event_types import ModelLogged, VerdictReached
from harness.training.frozen_features import features

LAB = """
from torch import nn
from harness.model.own_source import Backbone


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def net():
    names = ("stem", "stage1", "stage2", "stage3")
    stages = {name: block(3 if name == "stem" else 6, 6) for name in names}
    last = nn.Sequential(block(6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Backbone(stages | {"stage4": last}, nn.Linear(6, 10), features=6, native_size=32, min_size=8)
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, draw_images(tmp_path / "cells"))


def search(*backbones: str) -> dict[str, object]:
    return {
        "backbone": list(backbones),
        "unfreeze_depth": {"low": 1, "high": 3},
        "head_lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "backbone_lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": 16,
    }


def test_a_study_of_timm_s_models_reaches_its_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[str | None] = []
    fault = features.FrozenFeatures.fault
    monkeypatch.setattr(
        features.FrozenFeatures, "fault", lambda self, cut: shared.append(fault(self, cut)) or fault(self, cut)
    )
    names = ("timm/test_vit", "timm/test_resnet", "resnet18")
    world.write(search=search(*names), trials=4)
    outcome = world.run()
    found = records(world)
    assert {record.state for record in found} == {"complete"}
    used = {record.config.backbone for record in found}
    assert "timm/test_vit" in used
    assert world.of(ModelLogged)
    assert world.of(VerdictReached)
    page = outcome.report.read_text(encoding="utf-8")
    assert "timm/test_vit" in page
    assert shared  # frozen work of some trials was shared, or refused with its reason
    assert all(reason is None or "activations" in reason or "model" in reason for reason in shared)


def test_a_timm_model_starts_from_a_file_of_weights(world: World) -> None:
    torch.manual_seed(0)
    path = world.root / "vit.pth"
    torch.save({"state_dict": create_model("test_vit").state_dict()}, path)
    world.write(search=search("timm/test_vit"), trials=1, weights=str(path))
    world.run()
    found = records(world)
    assert {record.state for record in found} == {"complete"}


def test_a_study_of_a_function_of_one_s_own_runs_in_workers_and_its_page_needs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_specs, "_permitted", set())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab_study_networks.py").write_text(LAB)
    world = World(tmp_path, draw_images(tmp_path / "cells"), executor="processes")
    world.write(search=search("own:lab_study_networks:net"), trials=2)
    outcome = world.run()
    assert {record.state for record in records(world)} == {"complete"}
    assert "own:lab_study_networks:net" in outcome.report.read_text(encoding="utf-8")

    # another file of the function is another study
    (tmp_path / "lab_study_networks.py").write_text(LAB + "\n# changed\n")
    with pytest.raises(ConfigError) as refused:
        world.run()
    assert "own code" in refused.value.faults[0]
    assert "has changed" in refused.value.faults[0]

    # as another process that reads the stored study: it runs nothing that the study names
    backbone_specs._permitted.clear()
    (tmp_path / "lab_study_networks.py").unlink()
    monkeypatch.delitem(sys.modules, "lab_study_networks", raising=False)
    page = write_report(world.folder()).read_text(encoding="utf-8")
    assert "own:lab_study_networks:net" in page
    assert "lab_study_networks" not in sys.modules
    with pytest.raises(ConfigError, match="names code"):
        backbone_specs.backbone_spec("own:lab_study_networks:net")
