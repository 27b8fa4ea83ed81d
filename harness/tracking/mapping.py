"""Translate events to what MLflow shows: run names, tags, parameters and metrics, as plain values.

This file does not import mlflow, so that the translation can be tested without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from harness.analysis.verdict_text import describe
from harness.results.event_types import (
    ModelLogged,
    SearchFinished,
    SessionEnded,
    SessionStarted,
    StudyCreated,
    TestScored,
    VerdictReached,
)
from harness.results.events import Event
from harness.results.metrics import direction
from harness.results.records import TrialJob, TrialRecord
from harness.results.study_state import StudyState
from harness.results.trial_id import TrialId
from harness.safe_text import escape_controls

PARAM_LIMIT = 6000  # characters; MLflow cuts longer values silently
TAG_LIMIT = 8000
EXPERIMENT_TAG_LIMIT = 5000

RUN_STATUS = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
SESSION_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


MODE = "workflowType=machine_learning"  # part of an address; without it the UI may show language models and no runs
VIEW = "harness"  # name of the saved view, in the address and in the experiment's tag
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = {  # columns of that view in order, with their width in pixels; the run's name has strategy and backbone too
    "tags.`state`": 100,
    "metrics.`score`": 90,
    "tags.`batchnorm`": 120,
    "params.`head_lr`": 110,
    "params.`backbone_lr`": 110,
    "tags.`depth`": 70,
    "tags.`backbone`": 150,
    "metrics.`seconds_alone`": 120,
    "metrics.`trainable_share`": 130,
    "metrics.`best_epoch`": 100,
    "tags.`strategy`": 150,
    "tags.`kind`": 110,
}
NAME_COLUMN = {"attributes.`Run Name`": 330}


@dataclass(frozen=True)
class Point:
    """One metric value. The step is the epoch, 0 for values of the whole run; the time is in ms since 1970."""

    name: str
    value: float
    time: int
    step: int = 0


@dataclass(frozen=True)
class Update:
    """What one event adds to a run. The status is one of MLflow's run states, or None to leave it unchanged."""

    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None


def milliseconds(at: str) -> int:
    """Convert an ISO 8601 time to whole milliseconds since 1970."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def study_id(study: str, first: Event) -> str:
    """Return an id that identifies a study forever.

    A later study of the same name, or one of another home folder, has another first event and so another id.
    """
    fingerprint = first.data.fingerprint if isinstance(first.data, StudyCreated) else None
    text = json.dumps([study, first.at, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shortened(text: str, limit: int) -> str:
    """Return the text without control characters, cut at `limit` with a note; MLflow itself would cut it silently.

    Every text that is sent to MLflow must pass through this function.
    """
    text = escape_controls(text)
    if len(text) <= limit:
        return text
    note = f" … (cut here; {len(text)} characters in all, whole in the event log)"
    return text[: limit - len(note)] + note


def slug(name: str) -> str:
    """Replace the characters that MLflow does not accept in the name of a metric or parameter."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)[:250]


def texts(values: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Convert values to parameters or tags: None is left out, lists and mappings become JSON."""
    return {
        slug(name): shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), limit)
        for name, value in values.items()
        if value is not None
    }


def points(values: Mapping[str, float | None], time: int, step: int = 0) -> list[Point]:
    """Convert values of one moment to metric values; None, infinity and NaN are left out."""
    return [
        Point(slug(name), float(value), time, step)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


# --- one trial --------------------------------------------------------------------------------------------------


def run_name(job: TrialJob, role: str | None) -> str:
    """Return the name of a run: `fine_tuning 03 · resnet18 · depth 3`, `confirmation · fine_tuning best · seed 2`.

    Trials after the verdict: `controlled · fine_tuning resnet18 depth 3 fixed_stats · seed 2`,
    `data size 0.25 · fine_tuning · seed 2`.

    Args:
        role: for a confirmation, why the configuration was confirmed; see `StudyState.role`.
    """
    again = f" · attempt {job.attempt}" if job.attempt > 1 else ""
    config = job.config
    if job.kind == "confirmation":
        return f"confirmation · {job.strategy} {role or config.backbone} · seed {job.slot}{again}"
    depth = config.unfreeze_depth
    if job.kind == "data_size":
        fraction = TrialId.parse(job.trial_id).fraction
        return f"data size {fraction:g} · {job.strategy} · seed {job.slot}{again}"
    if job.kind == "controlled":
        changed = f"{config.backbone} depth {depth} {config.batchnorm}"
        return f"controlled · {job.strategy} {changed} · seed {job.slot}{again}"
    return f"{job.strategy} {job.slot:02d} · {config.backbone} · depth {depth}{again}"


def trial_tags(job: TrialJob, role: str | None) -> dict[str, str]:
    """Return the tags to filter and group runs by; `role` as for `run_name`."""
    return texts(
        {
            "harness.key": job.key,
            "kind": job.kind,
            "strategy": job.strategy,
            "backbone": job.config.backbone,
            "depth": job.config.unfreeze_depth,
            "batchnorm": job.config.batchnorm,
            "role": role,
        },
        TAG_LIMIT,
    )


def trial_params(record: TrialRecord) -> dict[str, str]:
    """Return every field of the configuration, the seed, and the logarithms to base ten of the learning rates.

    The axes of MLflow's parallel coordinates are linear, so learning rates are readable only as logarithms.
    """
    values: dict[str, Any] = record.config.to_json()
    for name in ("head_lr", "backbone_lr"):
        rate = values[name]
        values[f"log10_{name}"] = round(math.log10(rate), 4) if rate else None
    return texts({**values, "seed": record.seed}, PARAM_LIMIT)


def trial_metrics(record: TrialRecord, finished_at: str) -> list[Point]:
    """Return the values of every epoch (step = epoch) and of the whole run (step 0).

    Their times depend only on the record and its end, so that a batch that is sent twice is the same batch.
    """
    clock = milliseconds(record.started_at)
    spent = record.seconds_alone if record.seconds_spent is None else record.seconds_spent
    # Shared work makes a trial faster than it would be alone.
    pace = 1000 * spent / record.seconds_alone if record.seconds_alone > 0 else 1000
    curve: list[Point] = []
    for epoch in record.epochs:
        clock += round(epoch.seconds * pace)
        values = {
            "train_loss": epoch.train_loss,
            **{f"validation_{name}": value for name, value in epoch.validation.items()},
            "epoch_seconds": epoch.seconds,
            "head_lr": epoch.head_lr,
            "backbone_lr": epoch.backbone_lr,
        }
        curve += points(values, clock, epoch.epoch)
    end = milliseconds(finished_at)
    totals = {
        "score": record.score,
        "best_epoch": record.best_epoch,
        "l2": record.l2,
        "duration_seconds": max(end - milliseconds(record.started_at), 0) / 1000,
        "seconds_alone": record.seconds_alone,
        "seconds_spent": record.seconds_spent,
        "trainable_parameters": record.trainable_parameters,
        "trainable_share": record.trainable_share,
        "device_memory_bytes": record.device_memory_bytes,
    }
    return curve + points(totals, end)


def outcome_tags(record: TrialRecord) -> dict[str, str]:
    """Return the tags that say how a trial ended, and on which device."""
    values = {
        "state": record.state,
        "reason": record.reason,
        "device": record.device,
        "cache_reason": record.cache_reason,
        "precision": record.precision,
        "micro_batch": record.micro_batch,
        "warnings": "\n".join(record.warnings) or None,
    }
    return texts(values, TAG_LIMIT)


# --- the study --------------------------------------------------------------------------------------------------


def study_params(created: StudyCreated, data_digest: str | None) -> dict[str, str]:
    """Return the study as it was created, one parameter for each key: `objective`, `trials`, `search.head_lr`, ...

    Later changes (more trials, more seeds) are not shown, because parameters in MLflow cannot be changed.
    """
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value and not {"low", "high"} <= value.keys():
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    study = {k: v for k, v in created.study.items() if k not in ("description", "tracking_uri", "storage")}
    add("", study)
    flat["data_digest"] = data_digest
    return texts(flat, PARAM_LIMIT)


def verdict_points(reached: VerdictReached, time: int) -> list[Point]:
    """Return the numbers of the verdict; the step is the look at the test split that they come from."""
    verdict = reached.verdict
    if not verdict:
        return []
    low, high = verdict.get("ci95") or (None, None)
    values = {
        "difference": verdict.get("difference"),
        "difference_ci95_low": low,
        "difference_ci95_high": high,
        "probability_fine_tuning_better": verdict.get("probability_fine_tuning_better"),
    }
    return points(values, time, reached.look)


def verdict_tags(reached: VerdictReached, sentence: str | None) -> dict[str, str]:
    """Return the tags of the verdict; `sentence` is the verdict in words."""
    return texts(
        {
            "outcome": (reached.verdict or {}).get("outcome") or "none",
            "verdict": sentence,
            "recommended_strategy": reached.recommended_strategy,
        },
        TAG_LIMIT,
    )


def last_verdict(state: StudyState) -> str | None:
    """Return the sentence of the study's last verdict, or why there is none; None before the first verdict."""
    return describe(state.verdicts[-1], state.objective or "") if state.verdicts else None


def note(description: str, verdict: str | None) -> str:
    """Return the text that MLflow shows above the parent run."""
    parts = (description, f"**{verdict}**" if verdict else "")
    return shortened("\n\n".join(part for part in parts if part), TAG_LIMIT)


def test_points(scored: TestScored, time: int) -> list[Point]:
    """Return a confirmed model's metrics on the test split; the step is the look. Lists (recalls) are left out."""
    values = {f"test_{name}": value for name, value in scored.metrics.items() if isinstance(value, int | float)}
    return points(values, time, scored.look)


def view_state(objective: str | None) -> str:
    """Return the saved view of MLflow's UI for a study: the best trials first, with the columns to compare.

    The table is sorted by a metric because it is flat then; sorted by date it would show one folded line without our
    columns.
    """
    widths = NAME_COLUMN | COLUMNS
    return json.dumps(
        {
            "orderByKey": "metrics.`score`",
            "orderByAsc": objective is not None and direction(objective) == "minimize",
            "selectedColumns": list(COLUMNS),
            "columnOrder": list(widths),
            "columnWidths": widths,
        }
    )


def study_update(event: Event, state: StudyState, description: str, data_digest: str | None) -> Update | None:
    """Return what an event changes in the parent run; None if it changes nothing there.

    Args:
        state: the state of the study after this event.
    """
    at = milliseconds(event.at)
    match event.data:
        case StudyCreated() as created:
            return Update(params=study_params(created, data_digest))
        case SessionStarted():
            tags = {"state": "running", "sessions": str(state.sessions_started)}
            tags["mlflow.note.content"] = note(description, last_verdict(state))
            return Update(tags=tags, status="RUNNING")
        case SearchFinished(reason):
            best = {f"best_validation_{strategy}": score for strategy, score in state.best_scores.items()}
            return Update(points(best, at, len(state.finished)), tags={"search_finished": reason})
        case VerdictReached() as reached:
            sentence = last_verdict(state)
            tags = {**verdict_tags(reached, sentence), "mlflow.note.content": note(description, sentence)}
            return Update(verdict_points(reached, at), tags=tags)
        case ModelLogged(uri):
            return Update(tags=texts({"model_uri": uri}, TAG_LIMIT))
        case SessionEnded(ending, seconds):
            spent = points({"session_seconds": seconds}, at, state.sessions_started)
            return Update(spent, tags={"state": ending}, status=SESSION_STATUS[ending])
    return None
