"""From events to what MLflow shows: run names, tags, parameters and metrics as plain values. No mlflow here."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from harness.data.names import neutral
from harness.results.events import Event
from harness.results.metrics import direction
from harness.results.records import TrialRecord
from harness.tracking.ledger import Ledger, run_key

PARAM_LIMIT = 6000  # characters; MLflow cuts longer values without a word
TAG_LIMIT = 8000
EXPERIMENT_TAG_LIMIT = 5000

RUN_STATUS = {
    "complete": "FINISHED", "pruned": "FINISHED",
    "diverged": "FAILED", "out_of_memory": "FAILED", "failed": "FAILED",
    "interrupted": "KILLED",
}  # fmt: skip
SESSION_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


MODE = "workflowType=machine_learning"  # in an address: without it the UI may show language models, and no runs
VIEW = "harness"  # name of the saved view: the address asks for it, the experiment's tag holds it
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = {  # of that view, in order, with their width in pixels; the run's name says strategy, backbone and depth
    "tags.`state`": 100, "metrics.`score`": 90, "tags.`batchnorm`": 120, "params.`head_lr`": 110,
    "params.`backbone_lr`": 110, "tags.`depth`": 70, "tags.`backbone`": 150, "metrics.`seconds_alone`": 120,
    "metrics.`trainable_share`": 130, "metrics.`best_epoch`": 100, "tags.`strategy`": 150, "tags.`kind`": 110,
}  # fmt: skip
NAME_COLUMN = {"attributes.`Run Name`": 330}


@dataclass(frozen=True)
class Point:
    """One metric value: the step is the epoch, 0 for values of the whole run; the time is in ms since 1970."""

    name: str
    value: float
    time: int
    step: int = 0


@dataclass(frozen=True)
class Update:
    """What one event adds to a run; the status is the run's own, in MLflow's word."""

    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None


def milliseconds(at: str) -> int:
    """An ISO 8601 time as whole milliseconds since 1970."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def study_id(study: str, first: Event) -> str:
    """Names one study for good: another study of the same name, of another home, has another first event."""
    text = json.dumps([study, first.at, first.data.get("fingerprint")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning with a note of how much is missing; MLflow itself would cut it silently.

    All texts of ours that MLflow shows or stores pass here: without control characters, and fit for UTF-8.
    """
    text = neutral(text)
    if len(text) <= limit:
        return text
    note = f" … (cut here; {len(text)} characters in all, whole in the event log)"
    return text[: limit - len(note)] + note


def slug(name: str) -> str:
    """The name in the characters MLflow takes for a metric or parameter."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)[:250]


def texts(values: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Parameters or tags as MLflow wants them: None is left out, lists and mappings are JSON."""
    return {
        slug(name): shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), limit)
        for name, value in values.items()
        if value is not None
    }


def points(values: Mapping[str, float | None], time: int, step: int = 0) -> list[Point]:
    """Metric values of one moment; what is None, infinite or no number is left out."""
    return [
        Point(slug(name), float(value), time, step)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


# --- one trial --------------------------------------------------------------------------------------------------


def run_name(data: Mapping[str, Any], role: str | None) -> str:
    """What the runs table shows: `fine_tuning 03 · resnet18 · depth 3`, `confirmation · fine_tuning best · seed 2`.

    Trials after the verdict: `controlled · fine_tuning resnet18 depth 3 fixed_stats · seed 2`,
    `data size 0.25 · fine_tuning · seed 2`.

    Args:
        data: a `trial_started` event's, or a TrialRecord as JSON.
        role: best or default, for a confirmation.
    """
    again = f" · attempt {data['attempt']}" if data.get("attempt", 1) > 1 else ""
    config = data["config"]
    if data["kind"] == "confirmation":
        side = f"{data['strategy']} {role}" if role else f"{data['strategy']} {config['backbone']}"
        return f"confirmation · {side} · seed {data['slot']}{again}"
    depth = config["unfreeze_depth"]
    if data["kind"] == "data_size":
        fraction = data["trial_id"].rpartition("@")[2]
        return f"data size {fraction} · {data['strategy']} · seed {data['slot']}{again}"
    if data["kind"] == "controlled":
        changed = f"{config['backbone']} depth {depth} {config['batchnorm']}"
        return f"controlled · {data['strategy']} {changed} · seed {data['slot']}{again}"
    return f"{data['strategy']} {data['slot']:02d} · {config['backbone']} · depth {depth}{again}"


def trial_tags(data: Mapping[str, Any], role: str | None) -> dict[str, str]:
    """The columns one filters and groups by; `data` as for `run_name`."""
    config = data["config"]
    return texts(
        {
            "harness.key": run_key(data["trial_id"], data.get("attempt", 1)),
            "kind": data["kind"],
            "strategy": data["strategy"],
            "backbone": config["backbone"],
            "depth": config["unfreeze_depth"],
            "batchnorm": config["batchnorm"],
            "role": role,
        },
        TAG_LIMIT,
    )


def trial_params(record: TrialRecord) -> dict[str, str]:
    """Every field of the configuration under its own name, the seed, and the rates' logarithms to base ten.

    Parallel coordinates are linear, so that a rate over decades is read from its logarithm.
    """
    values: dict[str, Any] = record.config.to_json()
    for name in ("head_lr", "backbone_lr"):
        rate = values[name]
        values[f"log10_{name}"] = round(math.log10(rate), 4) if rate else None
    return texts({**values, "seed": record.seed}, PARAM_LIMIT)


def trial_metrics(record: TrialRecord, finished_at: str) -> list[Point]:
    """Every epoch's values (step = epoch) and the whole run's (step 0).

    Their times follow from the record alone, so that a batch sent twice is the same batch.
    """
    clock = milliseconds(record.started_at)
    spent = record.seconds_alone if record.seconds_spent is None else record.seconds_spent
    pace = 1000 * spent / record.seconds_alone if record.seconds_alone > 0 else 1000  # work was shared: it went faster
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
    whole = {
        "score": record.score,
        "best_epoch": record.best_epoch,
        "duration_seconds": max(end - milliseconds(record.started_at), 0) / 1000,
        "seconds_alone": record.seconds_alone,
        "seconds_spent": record.seconds_spent,
        "trainable_parameters": record.trainable_parameters,
        "trainable_share": record.trainable_share,
        "device_memory_bytes": record.device_memory_bytes,
    }
    return curve + points(whole, end)


def outcome_tags(record: TrialRecord) -> dict[str, str]:
    """How a trial ended, and on what it ran."""
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


def study_params(data: Mapping[str, Any], data_digest: str | None) -> dict[str, str]:
    """The question as it was first asked, one parameter a key: `objective`, `trials`, `search.head_lr`, ...

    What may change later (more trials, more seeds) is not followed: MLflow's parameters never change.
    """
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value and not {"low", "high"} <= value.keys():
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    study = {k: v for k, v in data.get("study", {}).items() if k not in ("description", "tracking_uri", "storage")}
    add("", study)
    fingerprint = data.get("fingerprint")
    flat["data_digest"] = data_digest
    flat["fingerprint"] = fingerprint if isinstance(fingerprint, str) else None
    return texts(flat, PARAM_LIMIT)


def verdict_points(data: Mapping[str, Any], time: int) -> list[Point]:
    """The verdict's numbers; the step is the look at the test split they come from."""
    verdict = data.get("verdict")
    if not verdict:
        return []
    low, high = verdict.get("ci95") or (None, None)
    values = {
        "difference": verdict.get("difference"),
        "difference_ci95_low": low,
        "difference_ci95_high": high,
        "probability_fine_tuning_better": verdict.get("probability_fine_tuning_better"),
    }
    return points(values, time, data.get("look") or 0)


def verdict_tags(data: Mapping[str, Any]) -> dict[str, str]:
    """The verdict in words."""
    verdict, advice = data.get("verdict") or {}, data.get("recommendation") or {}
    return texts(
        {
            "outcome": verdict.get("outcome") or "none",
            "verdict": verdict.get("sentence") or data.get("verdict_reason"),
            "recommended_strategy": advice.get("strategy"),
        },
        TAG_LIMIT,
    )


def note(description: str, verdict: str | None) -> str:
    """The text MLflow shows above the parent run."""
    parts = (description, f"**{verdict}**" if verdict else "")
    return shortened("\n\n".join(part for part in parts if part), TAG_LIMIT)


def test_points(data: Mapping[str, Any], time: int) -> list[Point]:
    """A `test_scored` event's metrics, at the look they belong to; lists (recall of each class) are left out."""
    values = {f"test_{name}": value for name, value in data["metrics"].items() if isinstance(value, int | float)}
    return points(values, time, data["look"])


def view_state(objective: str | None) -> str:
    """The saved view of MLflow's UI that a study's page opens in: the best trials first, the columns one compares.

    Sorted by a metric the table is flat; by date it would show one folded line and none of our columns.
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


def study_update(event: Event, ledger: Ledger, description: str, data_digest: str | None) -> Update | None:
    """What an event changes at the parent run; None where it concerns none or a single trial."""
    data, at = event.data, milliseconds(event.at)
    if event.kind == "study_created":
        return Update(params=study_params(data, data_digest))
    if event.kind == "session_started":
        tags = {"state": "running", "sessions": str(ledger.sessions)}
        return Update(tags={**tags, "mlflow.note.content": note(description, ledger.verdict)}, status="RUNNING")
    if event.kind == "search_finished":
        best = {f"best_validation_{strategy}": score for strategy, score in ledger.best.items()}
        return Update(points(best, at, ledger.finished), tags={"search_finished": data["reason"]})
    if event.kind == "verdict":
        tags = {**verdict_tags(data), "mlflow.note.content": note(description, ledger.verdict)}
        return Update(verdict_points(data, at), tags=tags)
    if event.kind == "model_logged":
        return Update(tags=texts({"model_uri": data["uri"]}, TAG_LIMIT))
    if event.kind == "session_ended":
        spent = points({"session_seconds": data["seconds"]}, at, ledger.sessions)
        return Update(spent, tags={"state": data["state"]}, status=SESSION_STATUS[data["state"]])
    return None
