"""The surest mistakes are picked from the stored predictions, and nothing else is opened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis.test_predictions import scored_predictions
from harness.config.fit import Fit
from harness.data.composite import composite
from harness.results.event_types import TestScored, VerdictReached
from harness.results.events import EventLog
from harness.results.metrics import all_metrics
from harness.results.paths import StudyFolder
from harness.results.study_state import StudyState
from harness.study.mistakes import recommended_winner, write_mistakes
from harness.study.session import Session


def recommending(strategy: str | None) -> VerdictReached:
    return VerdictReached(1, None, "a side is missing", [], None if strategy is None else {"strategy": strategy})


RECOMMENDED = recommending("fine_tuning")
ROWS = np.arange(100, 130)  # of the manifest
Floats = NDArray[np.float32]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "runs"))


def session(
    tmp_path: Path,
    labels: NDArray[np.int64],
    by_seed: list[Floats],
    *,
    images: bool = True,
    size: int = 8,
    dtype: type = np.uint8,
) -> Session:
    """A stand-in: a folder with a log and predictions, and an array of images whose shade is their row."""
    folder = StudyFolder("cells")
    folder.predictions.mkdir(parents=True)
    log = EventLog(folder.events)
    for strategy, offset in (("fine_tuning", 0), ("feature_extraction", 1)):
        for seed, probabilities in enumerate(by_seed):
            name, answers = f"{strategy}-key-{seed}.npz", np.roll(probabilities, offset, axis=1)
            np.savez(
                folder.predictions / name,
                probabilities=answers,
                labels=labels,
                groups=np.array([f"image{row}" for row in ROWS[: labels.size]]),
                rows=ROWS[: labels.size],
            )
            log.append(TestScored(1, strategy, "winner", "key", seed, all_metrics(answers, labels), name))
    state = StudyState.of(log)
    log.close()
    shades: NDArray[Any] = np.arange(130).astype(dtype)
    if dtype is np.uint16:
        shades = shades * 256 + 7  # the low byte says something else
    path = tmp_path / "images.npy"
    np.save(path, np.broadcast_to(shades[:, None, None, None], (130, size, size, 3)))
    study = SimpleNamespace(report=SimpleNamespace(images=images))
    context = SimpleNamespace(images={Fit(size): path})
    return cast(
        Session, SimpleNamespace(folder=folder, state=state, study=study, prepared=SimpleNamespace(context=context))
    )


def sure(given: list[int], probability: list[float], classes: int = 3) -> Floats:
    """Probabilities (N, C): `probability` for the given class, the rest shared evenly."""
    made = np.repeat((1 - np.array(probability))[:, None] / (classes - 1), classes, axis=1)
    made[np.arange(len(given)), given] = probability
    return made.astype(np.float32)


def write(made: Session, verdict: VerdictReached) -> None:
    """As confirmation does."""
    winners = scored_predictions(made.state, made.folder, "winner")
    write_mistakes(recommended_winner(winners, verdict, made.study), made.prepared.context.images, made.folder.mistakes)


def stored(made: Session) -> dict[str, Any]:
    with np.load(made.folder.mistakes, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_the_wrong_images_are_kept_the_surest_first(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 2, 1])
    given = [0, 1, 0, 2, 2]
    made = session(tmp_path, labels, [sure(given, [0.99, 0.6, 0.9, 0.5, 0.8]), sure(given, [0.99, 0.7, 0.8, 0.5, 0.7])])
    write(made, RECOMMENDED)
    found = stored(made)
    assert found["rows"].tolist() == [102, 104, 101]
    assert found["labels"].tolist() == [1, 1, 0]
    assert found["predicted"].tolist() == [0, 2, 1]
    assert found["probability"] == pytest.approx([0.85, 0.75, 0.65])
    assert found["probability_true"] == pytest.approx([0.075, 0.125, 0.175])
    assert found["images"][:, 0, 0, 0].tolist() == [102, 104, 101]
    assert (found["images"].dtype, found["images"].shape) == (np.uint8, (3, 8, 8, 3))
    assert (int(found["seeds"]), str(found["strategy"])) == (2, "fine_tuning")


@pytest.mark.parametrize("size", [8, 128])
def test_images_of_five_channels_are_kept_as_composites(tmp_path: Path, size: int) -> None:
    made = session(tmp_path, np.array([0, 0]), [sure([1, 0], [0.9, 0.9])], size=size)
    stacks = np.zeros((130, size, size, 5), np.uint8)
    stacks[..., 3] = 200
    np.save(made.prepared.context.images[Fit(size)], stacks)
    write(made, RECOMMENDED)
    found = stored(made)["images"]
    assert found.shape == (1, min(size, 96), min(size, 96), 3)
    assert np.array_equal(found[0, 0, 0], composite(stacks[:1, 0, 0])[0])


def test_an_image_counts_as_wrong_by_the_mean_over_the_seeds(tmp_path: Path) -> None:
    labels = np.array([0, 0])
    seeds = [sure([1, 1], [0.9, 0.4]), sure([1, 0], [0.9, 0.9]), sure([0, 0], [0.6, 0.9])]
    made = session(tmp_path, labels, seeds)
    write(made, RECOMMENDED)
    found = stored(made)
    assert found["rows"].tolist() == [100]
    assert found["seeds_wrong"].tolist() == [2]


def test_at_most_four_of_a_true_class_and_twelve_in_all_are_kept(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2, 3], [8, 8, 8, 6])
    falling = np.linspace(0.95, 0.6, 30).tolist()
    made = session(tmp_path, labels, [sure(((labels + 1) % 4).tolist(), falling, 4)] * 2)
    write(made, RECOMMENDED)
    assert stored(made)["rows"].tolist() == [*range(100, 104), *range(108, 112), *range(116, 120)]


def test_the_recommended_strategy_decides(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    made = session(tmp_path, labels, [sure([0, 0], [0.9, 0.8])])  # feature extraction answers 1, 1
    write(made, recommending("feature_extraction"))
    assert stored(made)["rows"].tolist() == [100]
    write(made, RECOMMENDED)
    assert stored(made)["rows"].tolist() == [101]


def test_large_and_deep_images_are_made_small(tmp_path: Path) -> None:
    made = session(tmp_path, np.array([0]), [sure([1], [0.9])], size=224, dtype=np.uint16)
    write(made, RECOMMENDED)
    images = stored(made)["images"]
    assert (images.shape, images.dtype) == ((1, 96, 96, 3), np.uint8)
    assert images.min() == images.max() == 100


@pytest.mark.parametrize("why", ["images stay off the page", "nothing is recommended", "nothing is wrong"])
def test_nothing_is_kept_and_what_was_kept_goes(tmp_path: Path, why: str) -> None:
    given = 0 if why == "nothing is wrong" else 1
    made = session(tmp_path, np.array([0]), [sure([given], [0.9])], images=why != "images stay off the page")
    made.folder.mistakes.write_bytes(b"of an earlier verdict")
    write(made, recommending(None if why == "nothing is recommended" else "fine_tuning"))
    assert not made.folder.mistakes.exists()
    assert not list(made.folder.path.glob("*partial*"))
