"""What `harness plan` says before a study runs."""

from __future__ import annotations

from small_study import World

from harness.study.estimate.forecast import forecast
from harness.study.prepare import prepare


def test_a_forecast_names_memory_disk_and_time_by_depth(world: World) -> None:
    world.write(epochs=4)
    prepared = prepare(world.load(), ["cpu"], lambda *a: None)
    found = forecast(prepared, ["cpu"])
    assert [(d.strategy, d.depth) for d in found.depths] == [
        ("feature_extraction", 0),
        ("fine_tuning", 1),
        ("fine_tuning", 2),
        ("fine_tuning", 3),
    ]
    assert all(0 <= d.seconds_shared <= d.seconds_alone for d in found.depths)
    alone = [d.seconds_alone for d in found.depths]
    assert alone == sorted(alone)
    assert found.memory.images == sum(path.stat().st_size for path in prepared.context.images.values())
    assert found.activations == prepared.context.plan.bytes <= found.budget
    assert found.memory.step > 0
    assert found.search_seconds > 0


def test_every_worker_needs_its_own_models_and_steps(world: World) -> None:
    world.write()
    prepared = prepare(world.load(), ["cpu", "cpu"], lambda *a: None)
    one, two = forecast(prepared, ["cpu"]), forecast(prepared, ["cpu", "cpu"])
    assert two.memory.resident - two.memory.images == 2 * (one.memory.resident - one.memory.images)


def test_a_step_of_a_larger_batch_holds_more(world: World) -> None:
    steps = []
    for batch_size in (8, 16):
        world.write(search={"backbone": "mobilenet_v3_small", "batch_size": batch_size})
        steps.append(forecast(prepare(world.load(), ["cpu"], lambda *a: None), ["cpu"]).memory.step)
    assert steps[0] < steps[1]
