"""What a user may add, each with a module of its own and one line of a table: tried from the table to the result."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from canned_executor import CannedExecutor, Script
from small_study import World, draw_images, records
from torch import Tensor, nn

from harness.analysis.study_data import StudyData
from harness.config.backbone_specs import HALF, SOURCES, BackboneSpec, Cost, SourceEntry
from harness.config.executors import EXECUTORS, ExecutorEntry
from harness.config.trial import STAGES
from harness.errors import ConfigError
from harness.model.backbones import Step
from harness.report import page
from harness.report.section import Section, SectionEntry
from harness.results.event_types import ModelLogged, VerdictReached
from harness.study.executors.base import WorkerContext


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, draw_images(tmp_path / "cells"))


def add_module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> str:
    """Make a module that can be imported under this name, as a new file of the package could."""
    module = ModuleType(name)
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return name


# A source of backbones

TINY = BackboneSpec(
    name="tiny:net",
    family="tiny",
    native_size=32,
    min_size=8,
    multiple_of=1,
    normalisation=HALF,
    official_weights="none",
    licence="MIT",
    has_batchnorm=True,
    has_random_layers=False,
    feature_dim=6,
    cost=Cost((12, 240, 336, 336, 342), (9000, 70000, 90000, 90000, 90000), (12, 24, 36, 48, 60, 70), 5),
)


class TinySource:
    """One network of five convolutions with BatchNorm, and a file of weights whose names have a prefix."""

    def build(self, name: str, image_size: int) -> nn.Module:
        layers = []
        for inputs, outputs in ((3, 4), (4, 6), (6, 6), (6, 6), (6, 6)):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        return nn.ModuleDict({"layers": nn.Sequential(*layers), "pool": pool, "classifier": nn.Linear(6, 10)})

    def stages(self, model: nn.Module, name: str) -> Mapping[str, nn.Module]:
        layers = dict(zip(STAGES, model.get_submodule("layers").children(), strict=True))
        return layers | {STAGES[-1]: nn.Sequential(layers[STAGES[-1]], model.get_submodule("pool"))}

    def head(self, model: nn.Module, name: str) -> nn.Module:
        return model.get_submodule("classifier")

    def official_file(self, name: str) -> Path:
        raise ConfigError(f"{name} has no official weights")

    def translate(self, values: Mapping[str, Tensor], name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key.removeprefix("encoder."): value for key, value in values.items()}

    def steps(self, module: nn.Module) -> Iterator[Step] | None:
        return None

    def is_random(self, layer: nn.Module) -> bool:
        return False

    def version(self, name: str) -> str:
        return "tiny 1"


@pytest.fixture
def tiny_source(monkeypatch: pytest.MonkeyPatch) -> TinySource:
    source = TinySource()
    name = add_module(monkeypatch, "harness_tiny_source", SPECS={TINY.name: TINY}, SOURCE=source)
    monkeypatch.setitem(SOURCES, "tiny:", SourceEntry(specs=name, source=name))
    return source


def test_a_backbone_of_another_source_goes_through_a_study(world: World, tiny_source: TinySource) -> None:
    torch.manual_seed(0)
    values = tiny_source.build(TINY.name, 32).state_dict()
    checkpoint = world.root / "tiny.pt"
    torch.save({f"encoder.{key}": value for key, value in values.items()}, checkpoint)
    search = {
        "backbone": "tiny:net",
        "unfreeze_depth": {"low": 1, "high": 3},
        "batchnorm": ["frozen", "recalibrated"],
        "batch_size": 16,
    }
    world.write(search=search, trials=2, weights=str(checkpoint))
    outcome = world.run()
    found = records(world)
    # A trial whose freezing breaks the contract fails, and one whose weights do not fit never starts.
    assert {record.state for record in found} == {"complete"}
    assert {record.config.backbone for record in found} == {"tiny:net"}
    assert {record.batchnorm_layers for record in found} == {5}
    assert world.of(ModelLogged)
    assert "tiny:net" in outcome.report.read_text(encoding="utf-8")


def test_a_prefix_that_no_source_has_is_refused_with_the_ones_there_are(world: World, tiny_source: TinySource) -> None:
    world.write(search={"backbone": "other:net"})
    with pytest.raises(ConfigError) as error:
        world.load()
    assert "search.backbone" in error.value.faults[0]
    assert "tiny:" in error.value.faults[0]


# An executor


def own_executor(context: WorkerContext, devices: Sequence[str]) -> CannedExecutor:
    return CannedExecutor(context, Script(places=2))


def test_an_executor_of_one_s_own_runs_a_study_to_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = add_module(monkeypatch, "harness_own_executor", make=own_executor)
    monkeypatch.setitem(EXECUTORS, "own", ExecutorEntry(name, "makes its answers up"))
    world.write(executor="own")
    outcome = world.run()
    assert outcome.report.exists()
    assert world.of(VerdictReached)
    assert {record.device for record in records(world)} == {"made up"}


def test_an_executor_that_there_is_not_is_refused_with_the_ones_there_are(world: World) -> None:
    world.write(executor="cluster")
    with pytest.raises(ConfigError) as error:
        world.load()
    assert error.value.faults == ("executor: must be 'processes' or 'inline', but got 'cluster'",)


# A section of the page


def test_a_section_of_one_s_own_stands_on_the_page_in_its_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleepy_section(data: StudyData) -> Section:
        return Section("sleepy", f"{len(data.records)} trials <slept> well", note="A note of its own.")

    def silent_section(data: StudyData) -> None:
        return None

    added = (SectionEntry("test", sleepy_section), SectionEntry("answer", silent_section))
    monkeypatch.setattr(page, "SECTIONS", (*page.SECTIONS, *added))
    name = add_module(monkeypatch, "harness_own_executor", make=own_executor)
    monkeypatch.setitem(EXECUTORS, "own", ExecutorEntry(name, "makes its answers up"))
    world.write(executor="own")
    text = world.run().report.read_text(encoding="utf-8")
    assert f"{len(records(world))} trials &lt;slept&gt; well" in text
    assert "A note of its own." in text
    assert text.index('id="confusion"') < text.index('id="sleepy"') < text.index('id="costs"') < text.index('id="data"')
