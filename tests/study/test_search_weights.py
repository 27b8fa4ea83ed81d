"""Several weights compared in one study, from the file to the page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from small_study import World, records, runs
from torchvision.models import get_weight

from harness.config.backbone_specs import IMAGENET
from harness.config.space import space
from harness.errors import ConfigError
from harness.model import backbones
from harness.results.event_types import ReferenceScored, SessionStarted
from harness.study.estimate.inspect import checkpoint_text
from harness.study.prepare import check_weights, prepare

BACKBONE = "mobilenet_v3_small"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file of another network than the bundled one, as a self-supervised training would leave it."""
    torch.manual_seed(5)
    state = backbones.build_backbone(BACKBONE).state_dict()
    path = tmp_path / "private-folder" / "dino.pth"
    path.parent.mkdir()
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, path)
    return path


def search(*weights: object) -> dict[str, object]:
    return {"backbone": BACKBONE, "weights": list(weights), "unfreeze_depth": 1, "batch_size": 16}


def test_a_study_of_two_weights_runs_to_its_page_which_names_both(world: World, checkpoint: Path) -> None:
    world.write(weights=None, search=search("bundled", str(checkpoint)), trials=2, strategies=["feature_extraction"])
    result = world.run()
    found = records(world)
    searched = [record for record in found if record.job.kind == "search"]
    assert {record.config.weights for record in searched} == {"bundled", "dino.pth"}
    losses = {record.config.weights: record.epochs[0].train_loss for record in searched}
    assert losses["bundled"] != losses["dino.pth"], "other features"
    assert {record.state for record in found} == {"complete"}
    assert {event.weights for event in world.of(ReferenceScored)} == {"bundled", "dino.pth"}

    page = result.report.read_text()
    assert "dino.pth" in page
    assert "Nearest neighbours on mobilenet_v3_small (bundled)" in page
    assert "prefix `teacher.backbone.` removed" in page
    assert "private-folder" not in page
    assert {run.data.params["weights"] for run in runs("tiny", "search")} == {"bundled", "dino.pth"}
    [started] = world.of(SessionStarted)
    assert started.weights[0].startswith("dino.pth: all 208 tensors")

    assert world.run().already_finished
    state = torch.load(checkpoint, weights_only=True)
    torch.save({"teacher": {key: value + 1 for key, value in state["teacher"].items()}}, checkpoint)
    with pytest.raises(ConfigError, match=r"weights\.dino\.pth\.mobilenet_v3_small: was"):
        world.run()


def test_every_trial_starts_from_its_own_weights_and_scratch_from_none(world: World, checkpoint: Path) -> None:
    mine = {"path": str(checkpoint), "name": "mine", "normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    world.write(weights=None, search=search("none", mine), strategies=["feature_extraction", "from_scratch"])
    prepared = prepare(world.load(), ["cpu"], lambda *a: None)
    context = prepared.context
    assert [entry.label for entry in context.weights.entries] == ["none", "mine"]
    assert context.weights.named("mine").normalisation is not None
    assert {key.weights for key in context.plan.kept} <= {"none", "mine"}
    assert prepared.fingerprint["search"]["weights"] == ["none", "mine"]
    assert set(prepared.fingerprint["weights"]) == {"none", "mine"}
    assert str(checkpoint.parent) not in str(prepared.fingerprint)
    assert [report.weights for report in check_weights(prepared.study)] == ["mine"]
    configs = {config.weights: config for config in space(prepared.study, "feature_extraction").defaults()}
    scratch = space(prepared.study, "from_scratch").default()
    assert context.weights_of(configs["mine"]) == context.weights.named("mine")
    assert context.weights_of(configs["none"]).is_random
    assert context.weights_of(scratch).is_random
    assert checkpoint_text(prepared.study, configs["none"]) is None
    assert checkpoint_text(prepared.study, scratch) is None
    assert "normalised by mean 0.5" in (checkpoint_text(prepared.study, configs["mine"]) or "")


def test_a_study_s_images_are_resized_as_its_weights_say(world: World) -> None:
    data = {"source": {"folder": str(world.images)}, "resize": "weights", "image_size": "native"}
    world.write(data=data, search={"backbone": BACKBONE, "batch_size": 16})
    prepared = prepare(world.load(), ["cpu"], lambda *a: None)
    images = prepared.context.data(BACKBONE, "search").images
    path = world.images / prepared.dataset.table["path"][5]
    with Image.open(path) as image:
        theirs = get_weight("MobileNet_V3_Small_Weights.IMAGENET1K_V1").transforms()(image)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    assert torch.equal((torch.from_numpy(images[5].copy()).permute(2, 0, 1) / 255 - mean) / std, theirs)
