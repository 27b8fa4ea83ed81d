"""`harness backbones` beyond torchvision: what is installed, how many there are, and how to see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version

import pytest

from harness.config import backbone_specs

Harness = Callable[..., tuple[int, str, str]]


def test_the_other_sources_have_a_line_each(harness: Harness) -> None:
    lines = harness("backbones")[1].splitlines()
    timm = next(line for line in lines if line.startswith("timm/NAME"))
    count = len(backbone_specs.backbone_specs("timm/"))
    assert f"timm {version('timm')}, {count} names" in timm
    assert count > 400
    assert any(line.startswith("own:package.module:function") for line in lines)


def test_a_source_that_is_not_installed_says_how_to_install_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_specs, "is_installed", lambda entry: not entry.package)
    out = harness("backbones")[1]
    assert "timm/NAME: models of timm, not installed; pip install 'finetune-harness[timm]'" in out
    code, _, err = harness("backbones", "--source", "timm")
    assert code == 2
    assert "finetune-harness[timm]" in err


def test_names_are_listed_for_people_and_for_machines(harness: Harness) -> None:
    names = harness("backbones", "--source", "timm")[1].split()
    assert "timm/vit_small_patch16_224" in names
    assert all(name.startswith("timm/") for name in names)
    assert json.loads(harness("backbones", "--source", "timm", "--json")[1]) == names
    assert "docs/extending.md" in harness("backbones", "--source", "own")[1]
    code, _, err = harness("backbones", "--source", "keras")
    assert code == 2
    assert "torchvision, timm, own" in err


def test_one_backbone_of_another_source_is_shown_with_its_costs(harness: Harness) -> None:
    code, out, _ = harness("backbones", "--name", "timm/test_vit")
    assert code == 0
    assert next(line.split()[:2] for line in out.splitlines() if "test_vit" in line) == ["timm/test_vit", "160"]
    (row,) = json.loads(harness("backbones", "--name", "timm/test_vit", "--json")[1])
    assert row["feature_dim"] == 64
    assert row["parameter_share"][5] == 1.0
    assert harness("backbones", "--name", "timm/resnetv2_50")[0] == 2
