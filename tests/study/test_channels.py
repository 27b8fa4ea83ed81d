"""Studies of images with five channels, from the scan to the page; and what is said before one runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from channel_images import PER_SLIDE, SLIDES, listing_of, pixels_of
from small_study import Watching, World, records

from harness.data.composite import caption, composite
from harness.errors import ConfigError
from harness.report.sections.data import channels
from harness.results.event_types import Explored, ModelLogged, ReferenceScored, TestScored
from harness.study.estimate import memory
from harness.study.estimate.forecast import forecast
from harness.study.export import Deployable
from harness.study.prepare import prepare
from harness.tracking import mlflow_models, mlflow_runs
from harness.tracking.address import default_address
from harness.training.trial import restore

Stacks = Callable[..., None]
ALL: dict[str, Any] = {
    "source": {"folder": "."},
    "channels": "all",
    "image_size": 32,
    "split": {"group": r"slide(\d+)"},
}
SEARCH: dict[str, Any] = {
    "backbone": "mobilenet_v3_small",
    "unfreeze_depth": {"low": 1, "high": 5},
    "augmentation": ["microscopy", "flips"],
    "head_solver": ["adamw", "logistic"],
    "batch_size": 16,
}
CPU = torch.device("cpu")


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> Stacks:
    """stacks(channels, dtype): the source of every study is 108 images of so many channels from now on."""

    def become(channels: int, dtype: Any = np.uint8) -> None:
        listing = listing_of([pixels_of(number, channels, dtype) for number in range(SLIDES * PER_SLIDE)])
        monkeypatch.setattr("harness.data.scan.list_source", lambda config, *, cache: listing)

    return become


def test_a_study_of_five_channels_runs_to_its_page(
    world: World, stacks: Stacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_runs, "export_model", mlflow_models.export_model)
    stacks(5, np.uint16)
    strategies = ["feature_extraction", "fine_tuning", "from_scratch"]
    world.write(
        data=ALL, weights="bundled", search=SEARCH, strategies=strategies, shifts=["blur", "jpeg"], data_sizes=[0.5]
    )
    watching = Watching()
    result = world.run(watching=watching)
    assert result.sentence is not None, (result.reason, watching.texts)
    assert {(record.strategy, record.state) for record in records(world)} == {(s, "complete") for s in strategies}
    assert {explored.shift for explored in world.of(Explored) if explored.shift} == {"blur", "jpeg"}
    assert world.of(TestScored) and world.of(ReferenceScored)

    card = json.loads(world.folder().data_card.read_text())
    assert (card["channels"], card["kinds"]) == (5, {"16-bit image of 5 channels": 108})
    page = result.report.read_text() if result.report.is_file() else (result.report / "index.html").read_text()
    assert caption(5) in page
    assert "<dt>channels</dt><dd>5 channels</dd>" in page
    assert "red, green and blue, repeated and rescaled" in page
    shown = np.load(world.folder().thumbnails)["images"]
    assert any(np.array_equal(composite(pixels_of(number, 5, np.uint16)), shown[0]) for number in range(108))

    [logged] = world.of(ModelLogged)
    loaded = mlflow_models.load_model(default_address(), logged.uri)
    with mlflow_models.global_tracking(default_address()):
        info = mlflow.models.get_model_info(logged.uri)
    assert info.metadata["channels"] == 5
    assert info.metadata["input"].startswith("5 channels in the order of the files")
    assert info.signature.inputs.inputs[0].shape == (-1, 5, 32, 32)
    prepared = prepare(world.load(), ["cpu"], lambda *_: None)
    record = next(r for r in records(world) if r.trial_id == logged.trial_id)
    data = prepared.context.data(record.config.backbone, record.job.split)
    model = restore(record.job, data, "bundled", CPU, prepared.context.checkpoint(record.job))
    images = data.batch(data.validation[:3], CPU)
    assert images.shape == (3, 5, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded(images), Deployable(model).eval()(images), atol=1e-4)


def test_a_shift_that_needs_three_channels_is_refused_before_anything_runs(world: World, stacks: Stacks) -> None:
    stacks(2)
    world.write(data=ALL, shifts=["noise", "stain"])
    with pytest.raises(ConfigError, match=r"stain needs images of three channels.*these have 2"):
        world.run()
    assert not world.folder().events.exists()
    world.write(data=ALL, shifts=["noise"])
    prepare(world.load(), ["cpu"], lambda *_: None)


def test_estimates_and_the_cache_plan_know_the_channels(world: World, stacks: Stacks) -> None:
    prepared = {}
    for number in (3, 16):
        stacks(number)
        world.write(data=ALL, weights="bundled", search=SEARCH)
        prepared[number] = prepare(world.load(), ["cpu"], lambda *_: None)
    three, sixteen = (memory.estimate_memory(prepared[number], ["cpu"]) for number in (3, 16))
    assert sixteen.images == pytest.approx(three.images * 16 / 3, rel=0.01)
    assert sixteen.models > three.models
    assert sixteen.step > three.step
    assert forecast(prepared[16], ["cpu"]).search_seconds > 0
    # An image of sixteen channels has more bytes itself, so that larger activations are worth keeping.
    too_large = [len(p.context.plan.left_out) for p in (prepared[3], prepared[16])]
    assert too_large[1] < too_large[0]


def test_inspect_shows_the_stem_of_as_many_channels(world: World, harness: Callable[..., tuple[int, str, str]]) -> None:
    from harness.study.estimate.inspect import inspect_trial

    world.write(data=ALL)
    study = world.load().study
    chosen = {"backbone": "mobilenet_v3_small"}
    stems = [inspect_trial(study, chosen, 2, channels=number)[1][0].parameters for number in (1, 3, 5)]
    assert stems[0] == stems[1] == stems[2] - 2 * 16 * 9
    code, _, err = harness("inspect", "microscopy", "--channels", "5")
    assert code == 2
    assert "--channels must be 3 without `data.channels: all`" in err


def test_a_card_without_channels_or_with_nonsense_stands_for_three() -> None:
    assert [channels(card) for card in ({}, {"channels": 5}, {"channels": "5"}, {"channels": 99})] == [3, 5, 3, 3]
