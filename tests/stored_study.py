"""`make_study`: a study folder written in code, with the log, records and predictions a real study leaves behind."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.study_data import StudyData
from harness.analysis.verdict import conclude
from harness.config.parameters import default_values
from harness.config.study import StudyConfig
from harness.config.trial import TrialConfig
from harness.report.page import write_report
from harness.results.event_types import (
    ConfirmationSelected,
    ModelLogged,
    SearchFinished,
    SelectedConfig,
    SessionEnded,
    SessionStarted,
    StudyCreated,
    TestScored,
    TrialFinished,
    VerdictReached,
)
from harness.results.events import EventLog
from harness.results.metrics import all_metrics, sign_of
from harness.results.paths import StudyFolder
from harness.results.records import EpochRecord, State, TrialJob, TrialRecord
from harness.results.study_state import StudyState
from harness.results.trial_id import TrialId

HOSTILE = ("<script>alert(1)</script>", "$x^2$", "interphase", 'a "quoted" & long class name', "=cmd()", "anaphase")
BACKBONES = ("resnet18", "mobilenet_v3_small")
POLICIES = ("frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode")
MakeStudy = Callable[..., StudyFolder]


@pytest.fixture
def make_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeStudy]:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_REPORTS", str(tmp_path / "reports"))
    yield build_study


@pytest.fixture(scope="session")
def finished_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report folder of a finished study with hostile class names: made once, for tests that only read it."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(root / "runs"))
        patch.setenv("HARNESS_REPORTS", str(root / "reports"))
        return write_report(build_study()).parent


def build_study(
    name: str = "microscopy",
    *,
    classes: tuple[str, ...] = HOSTILE,
    strategies: tuple[str, ...] = ("feature_extraction", "fine_tuning"),
    skill: dict[str, float] | None = None,  # mean gain of the right logit
    trials: int = 8,
    done: int | None = None,  # slots of each strategy finished; all of them where missing
    seeds: int = 3,
    images: int = 288,
    groups: int | None = 24,
    state: State | None = None,  # every search trial ends so
    until: str = "end",  # "search", "confirmation", "scored", "verdict", "end"
    looks: int = 1,
    study: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    session: bool = True,  # the session has ended
    vary: dict[str, tuple[Any, ...]] | None = None,  # parameters and the values that the slots take in turn
) -> StudyFolder:
    """Write a study under HARNESS_HOME and return its folder; the same arguments give the same numbers."""
    rng = np.random.default_rng(7)
    gain = {"feature_extraction": 1.6, "fine_tuning": 2.3, "from_scratch": 1.0} | (skill or {})
    config = StudyConfig.model_validate(
        {
            "description": "Which adaptation suits small images of stained cells?",
            "strategies": list(strategies),
            "search": {"backbone": list(BACKBONES), "unfreeze_depth": {"low": 1, "high": 5}},
            "trials": trials,
            "epochs": 6,
            "confirmation": {"top": 1, "seeds": seeds},
            **(study or {}),
        }
    )
    folder = StudyFolder(name)
    folder.predictions.mkdir(parents=True)
    resolved = config.model_dump(mode="json", by_alias=True)
    stored = {"study": resolved, "name": name, "fingerprint": FINGERPRINT}
    folder.study_json.write_text(json.dumps(stored))
    folder.data_card.write_text(json.dumps(_card(classes, images, groups) | (card or {})))
    thumbs = rng.integers(60, 255, (len(classes) * 4, 24, 24, 3)).astype(np.uint8)
    np.savez(folder.thumbnails, images=thumbs, labels=np.repeat(np.arange(len(classes)), 4))

    log = EventLog(folder.events)
    log.append(StudyCreated(resolved, FINGERPRINT))
    log.append(SessionStarted(ENVIRONMENT, resumed=False))
    best: dict[str, TrialRecord] = {}
    for slot in range(trials if done is None else done):
        for strategy in strategies:
            chosen = {name: values[slot % len(values)] for name, values in (vary or {}).items()}
            record = _search(rng, strategy, slot, gain[strategy], config, state, len(classes), chosen)
            log.append(TrialFinished(record))
            sign = sign_of(config.objective)
            if record.state == "complete" and record.score is not None:
                known = best.get(strategy)
                if known is None or sign * record.score > sign * (known.score or 0.0):
                    best[strategy] = record
    if until == "search" or not best:
        return _end(log, folder, (session and until != "search") or state is not None)

    log.append(SearchFinished("budget", trials))
    labels = np.arange(images) % len(classes)
    slides = np.array([f"slide{i * (groups or images) // images}" if groups else f"image{i}" for i in range(images)])
    shift = rng.normal(0, 0.7, images)  # some images are harder for everyone
    for look in range(1, looks + 1):
        log.append(ConfirmationSelected(look, trials, seeds, _selected(best)))
        if until == "confirmation":
            return _end(log, folder, session)
        for strategy in best:
            winner, default = best[strategy].config, _default(strategy)
            roles = {"winner+default": winner} if winner == default else {"winner": winner, "default": default}
            for role, chosen in roles.items():
                for seed in range(seeds):
                    known = gain[strategy] - (0.3 if role == "default" else 0.0) + rng.normal(0, 0.06)
                    log.append(TrialFinished(_confirmation(rng, strategy, chosen, seed, known, config)))
                    probabilities = _probabilities(rng, labels, known + shift, len(classes))
                    file = f"{strategy}-{chosen.key()}-{seed}.npz"
                    np.savez(
                        folder.predictions / file,
                        probabilities=probabilities,
                        labels=labels.astype(np.int64),
                        groups=slides,
                        rows=np.arange(images) * 5,
                    )
                    metrics = all_metrics(probabilities, labels)
                    log.append(TestScored(look, strategy, role, chosen.key(), seed, metrics, file))
    if until in ("verdict", "end"):
        verdict = VerdictReached(look=looks, **conclude(StudyState.of(log), StudyData.read(folder).winners, config))
        log.append(verdict)
        if until == "end" and verdict.recommended_trial:
            log.append(ModelLogged("models:/m-4c1f", verdict.recommended_trial, validation_score=0.8))
    return _end(log, folder, session)


FINGERPRINT = {"data": "3f2a9c51", "threads": 2}
ENVIRONMENT = {
    "torch": "2.15.0",
    "torchvision": "0.29.0",
    "optuna": "5.0.0",
    "mlflow": "3.17.0",
    "python": "3.11.9",
    "platform": "Linux-6.8-x86_64",
    "device": "cpu",
    "threads": 2,
    "workers": 1,
    "commit": "4d2e8b1",
    "harness": "0.1.0",
}


def _end(log: EventLog, folder: StudyFolder, ended: bool) -> StudyFolder:
    if ended:
        log.append(SessionEnded("finished", seconds=412.5))
    log.close()
    return folder


def _selected(best: dict[str, TrialRecord]) -> dict[str, tuple[SelectedConfig, ...]]:
    return {
        strategy: (
            SelectedConfig(record.config, "best", record.trial_id),
            SelectedConfig(_default(strategy), "default", f"{strategy}/0"),
        )
        for strategy, record in best.items()
    }


def _default(strategy: str) -> TrialConfig:
    return TrialConfig(strategy=strategy, epochs=6, **default_values(strategy))  # type: ignore[arg-type]


def _search(
    rng: np.random.Generator,
    strategy: str,
    slot: int,
    gain: float,
    study: StudyConfig,
    state: State | None,
    classes: int,
    chosen: dict[str, Any],
) -> TrialRecord:
    config = _default(strategy)
    if slot:
        depth = 0 if strategy == "feature_extraction" else int(rng.integers(1, 6))
        config = dataclasses.replace(
            config,
            backbone=str(rng.choice(BACKBONES)),
            unfreeze_depth=depth,
            head_lr=float(10 ** rng.uniform(-4, -1)),
            backbone_lr=float(10 ** rng.uniform(-6, -2)) if depth else None,
            batchnorm=str(rng.choice(POLICIES if depth else ("frozen", "recalibrated"))),  # type: ignore[arg-type]
        )
    config = dataclasses.replace(config, **chosen)
    off = abs(math.log10(config.head_lr) + 2.8) * 0.35 + rng.normal(0, 0.1) + (0.5 if slot == 0 else 0.0)
    if config.backbone_lr:
        off += abs(math.log10(config.backbone_lr) + 3.8) * 0.25
    fate: State = state or ("pruned" if slot % 5 == 3 else "diverged" if slot == 6 else "complete")
    return _record(rng, f"{strategy}/{slot}", "search", config, slot, gain - off, study, fate, classes)


def _confirmation(
    rng: np.random.Generator, strategy: str, config: TrialConfig, seed: int, gain: float, study: StudyConfig
) -> TrialRecord:
    name = str(TrialId("confirmation", strategy, seed, config.key()))
    return _record(rng, name, "confirmation", config, seed, gain, study, "complete", 6)


def _record(
    rng: np.random.Generator,
    trial_id: str,
    kind: Any,
    config: TrialConfig,
    slot: int,
    gain: float,
    study: StudyConfig,
    state: State,
    classes: int,
) -> TrialRecord:
    length = {"complete": config.epochs, "pruned": 2, "diverged": 1}.get(state, 0)
    labels = np.arange(240) % classes
    epochs = []
    for epoch in range(1, length + 1):
        reached = gain * (1 - 0.6 * math.exp(-epoch / 1.6))
        scores = all_metrics(_probabilities(rng, labels, np.full(240, reached), classes), labels)
        epochs.append(
            EpochRecord(epoch, 1.9 * math.exp(-epoch / 4), {"loss": scores["log_loss"], **scores}, 1e-3, None, 1.2)
        )
    ranked = [epoch.validation[study.objective] for epoch in epochs]
    best = int(np.argmax(sign_of(study.objective) * np.array(ranked))) if ranked and state != "diverged" else None
    share = {0: 0.0003, 1: 0.75, 2: 0.94, 3: 0.98, 4: 0.996, 5: 1.0}[config.unfreeze_depth]
    return TrialRecord(
        job=TrialJob(trial_id, kind, config.strategy, slot, config, slot, "search"),
        state=state,
        reason=None if state == "complete" else f"{state} at epoch {length}: see /home/someone/secret/trial.log",
        epochs=tuple(epochs),
        best_epoch=None if best is None else best + 1,
        score=None if best is None else ranked[best],
        seconds_alone=2.2 + 2.1 * config.unfreeze_depth + float(rng.uniform(0, 0.6)),
        trainable_parameters=int(11_000_000 * share),
        total_parameters=11_000_000,
        device="cpu",
        started_at="2026-11-21T09:00:00.000+00:00",
        batchnorm_layers=20,
    )


def _probabilities(rng: np.random.Generator, labels: Any, gain: Any, classes: int) -> Any:
    logits = rng.normal(size=(len(labels), classes)) + np.asarray(gain)[:, None] * np.eye(classes)[labels]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)


def _card(classes: tuple[str, ...], images: int, groups: int | None) -> dict[str, Any]:
    total = images * 5
    each = total // len(classes)
    part = {"train": total * 3 // 5, "validation": images, "test": images}
    return {
        "name": "rendered cells",
        "source": "rendered_cells",
        "rendered": True,
        "images": total,
        "classes": [
            {"name": name, "count": each, "train": each * 3 // 5, "validation": each // 5, "test": each // 5}
            for name in classes
        ],
        "groups": groups and groups * 5,
        "group_rule": "the slide" if groups else None,
        "digest": "3f2a9c51d0",
        "sizes": [{"width": 64, "height": 64, "count": total}],
        "kinds": {"PNG, 8-bit RGB": total},
        "left_aside": [{"reason": "hidden files", "label": "", "count": 2, "example": ".DS_Store"}],
        "split_from": "drawn",
        "skipped": [{"path": "b/broken<i>.png", "reason": "truncated"}],
        "converted": {"alpha composited": 3},
        "duplicates": 0,
        "image_size": 64,
        "resize": "stretch",
        "bit_depth": "dtype",
        "split": part | {"unused": 0},
        "split_groups": {"train": 72, "validation": 24, "test": 24} if groups else {},
        "near_duplicates": 2,
        "warnings": ["2 pairs of images show nearly the same (a.png and b.png; c.png and d.png)."],
        "notes": ["Rendered images, not real cells."],
    }
