"""What a study will hold in memory: reckoned on shapes as measured on values, and refused where it is not there."""

from __future__ import annotations

import dataclasses

import psutil
import pytest
import torch
from small_study import World

from harness.errors import ResourceError
from harness.model.freezing import unfreeze_last
from harness.model.transfer import build
from harness.results.event_types import SessionStarted
from harness.study.estimate import memory
from harness.study.prepare import prepare


@pytest.mark.parametrize("depth", [0, 2, 5])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_shapes_tell_what_values_take(backbone: str, depth: int) -> None:
    model = build(backbone, 3, "none", image_size=64).eval()
    unfreeze_last(model, depth)
    reckoned = memory.step_bytes(backbone, 3, 64, 16, depth)
    held = memory.kept_bytes(model, torch.rand(16, 3, 64, 64))
    assert held <= reckoned <= 1.02 * held  # shapes keep BatchNorm's batch statistics too, which eval mode leaves empty


def test_a_step_keeps_more_the_more_it_unfreezes_and_in_proportion_to_the_batch() -> None:
    kept = [memory.step_bytes("resnet18", 3, 64, 8, depth) for depth in range(6)]
    assert kept == sorted(set(kept))
    assert memory.step_bytes("resnet18", 3, 64, 16, 5) == pytest.approx(2 * kept[5], rel=0.01)


def test_what_cannot_fit_is_refused_before_the_study_begins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write()
    few = dataclasses.replace(
        memory.estimate_memory(prepare(world.load(), ["cpu"], lambda *a: None), ["cpu"]), free=10**6
    )
    monkeypatch.setattr(memory, "estimate_memory", lambda prepared, devices: few)
    with pytest.raises(ResourceError, match=r"needs about .* GB of memory .* but 0\.0 GB are free; lower batch_size"):
        world.run()
    assert world.of(SessionStarted) == []


def test_a_gpu_that_is_too_small_for_some_trials_is_said_and_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()
    prepared = prepare(world.load(), ["cpu"], lambda *a: None)
    few = dataclasses.replace(memory.estimate_memory(prepared, ["cpu"]), free=10**6)
    monkeypatch.setattr(memory, "estimate_memory", lambda prepared, devices: few)
    told: list[str] = []
    memory.check_memory(prepared, ["cuda:0"], told.append)
    assert len(told) == 1
    assert "will end as out of memory" in told[0]


def test_the_free_memory_is_the_machine_s(world: World) -> None:
    world.write()
    found = memory.estimate_memory(prepare(world.load(), ["cpu", "cpu"], lambda *a: None), ["cpu", "cpu"])
    assert found.workers == 2
    assert found.free == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert found.resident == found.images + 2 * found.worker
