"""What a study says where nothing can be learned, and where everything is easy: as much as the images show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_study import CLASSES, World

pytestmark = pytest.mark.slow


def draw(root: Path, easy: bool) -> Path:
    """144 images of 32 px in 12 slides: a square in the colour of its class, or noise without any class."""
    rng = np.random.default_rng(0)
    for number in range(144):
        label = number % 3
        pixels = rng.integers(0, 255, (32, 32, 3))
        if easy:
            pixels[4:28, 4:28] = 255 * np.eye(3)[label]
        path = root / CLASSES[label] / f"slide{number // 12:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def concluded(world: World, easy: bool) -> tuple[dict[str, Any], str, str]:
    """The verdict in summary.json, its sentence, and the page."""
    world.images = draw(world.root / "drawn", easy)
    search = {
        "backbone": "resnet18",
        "unfreeze_depth": 2,
        "head_lr": {"low": 5e-3, "high": 5e-2, "log": True},
        "backbone_lr": 1e-3,
        "batch_size": 16,
    }
    world.write(weights="bundled", search=search, epochs=6, trials=2, confirmation={"top": 1, "seeds": 3})
    result = world.run()
    report = world.root / "reports" / "tiny"
    summary = json.loads((report / "summary.json").read_text())
    assert result.sentence == summary["verdict"]["sentence"]
    return summary, str(result.sentence), (report / "index.html").read_text()


def test_where_nothing_can_be_learned_nothing_is_recommended(world: World) -> None:
    summary, sentence, page = concluded(world, easy=False)
    assert summary["verdict"]["outcome"] == "undecided"
    assert not any(score["learned"] for score in summary["verdict"]["scores"].values())
    assert summary["recommendation"]["basis"] == "guessing"
    assert "Use " not in sentence
    assert "guessing gives 33.3 %" in sentence
    assert "not told from guessing" in page


def test_where_everything_is_easy_few_images_do_not_make_the_sides_equal(world: World) -> None:
    summary, sentence, page = concluded(world, easy=True)
    scores = summary["verdict"]["scores"]
    assert any(score["mean"] > 0.9 for score in scores.values())
    low, high = summary["verdict"]["ci95"]
    assert high - low > 0.02  # 29 test images
    assert summary["verdict"]["outcome"] != "equal"
    for score in scores.values():
        assert score["ci95"][1] - score["ci95"][0] > 0.02
    assert "practically equal" not in sentence
    assert "0.0 to 0.0" not in page
