"""summary.json: what a study found, for machines; made from stored files, also while the study runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from harness.config.study import StudyConfig
from harness.report.scored import Side, sides
from harness.report.statistics import estimate
from harness.report.tables import of_kind, states
from harness.report.verdict import conclude
from harness.report.wording import cleaned
from harness.results.events import Event
from harness.results.home import StudyFolder
from harness.results.metrics import METRICS, all_metrics, sign_of
from harness.results.records import TrialRecord

SCHEMA = 1


def assemble(
    folder: StudyFolder,
    study: StudyConfig,
    events: Sequence[Event],
    found: Sequence[TrialRecord],
    card: dict[str, Any],
) -> dict[str, Any]:
    """The study's summary, schema 1: no absolute path and no password in it.

    `verdict` is None while there is none, and `verdict_reason` says why. `seconds_alone` of a strategy is what one
    training of its winner costs by itself; `search_seconds_alone` adds up its search trials; `seconds_spent` is what
    the study really took, all its sessions together.
    """
    winners = sides(events, folder, found, "winner")
    defaults = sides(events, folder, found, "default")
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "study": folder.name,
        "objective": study.objective,
        "data": {
            "source": card.get("source"),
            "name": card.get("name"),
            "rendered": bool(card.get("rendered", False)),
            "images": card.get("images", 0),
            "classes": [entry["name"] for entry in card.get("classes", [])],
            "groups": card.get("groups"),
            "split": {part: card.get("split", {}).get(part, 0) for part in ("train", "validation", "test")},
            "digest": card.get("digest"),
        },
        **answer(events, folder, study, found),
        "strategies": {
            name: _strategy(name, study, found, winners.get(name), defaults.get(name)) for name in study.strategies
        },
        "seconds_spent": seconds_spent(events),
        "sessions": sessions(events),
        "environment": environment(events),
    }
    clean: dict[str, Any] = cleaned(result)
    return clean


def answer(
    events: Sequence[Event], folder: StudyFolder, study: StudyConfig, found: Sequence[TrialRecord]
) -> dict[str, Any]:
    """Verdict, its reason, comparisons and recommendation: as the log holds them, else as they stand now."""
    kept = [event.data for event in events if event.kind == "verdict"]
    if not kept:
        return conclude(events, folder, study, found)
    blocks = {name: kept[-1].get(name) for name in ("verdict", "verdict_reason", "comparisons", "recommendation")}
    if blocks["verdict"] is None and not blocks["verdict_reason"]:
        blocks["verdict_reason"] = conclude(events, folder, study, found)["verdict_reason"]
    blocks["comparisons"] = blocks["comparisons"] or []
    if chosen := blocks["recommendation"]:
        uris = {event.data["trial_id"]: event.data["uri"] for event in events if event.kind == "model_logged"}
        blocks["recommendation"] = {**chosen, "model": uris.get(chosen.get("trial_id"), chosen.get("model"))}
    return blocks


def best_trial(found: Sequence[TrialRecord], strategy: str, objective: str) -> TrialRecord | None:
    """The complete search trial with the best validation score, the earlier of equals."""
    sign = sign_of(objective)
    scored = [
        record
        for record in of_kind(found, "search")
        if record.strategy == strategy and record.state == "complete" and record.score is not None
    ]
    return max(scored, key=lambda record: sign * (record.score or 0.0), default=None)


def seconds_spent(events: Sequence[Event]) -> float:
    """Seconds of all sessions; a session without an end counts to its last event."""
    total, started, last = 0.0, None, None
    for event in events:
        if event.kind == "session_started":
            total += _between(started, last)
            started = event.at
        elif event.kind == "session_ended":
            total += float(event.data["seconds"])
            started = None
        last = event.at
    return total + _between(started, last)


def sessions(events: Sequence[Event]) -> dict[str, int]:
    """How often the study was `started`, and how many of these sessions were `interrupted` (a signal asked), `failed`,
    or `cut_off` (killed: they have no end; the last one may still run)."""
    counts = {"started": 0, "interrupted": 0, "failed": 0, "cut_off": 0}
    is_open = False
    for event in events:
        if event.kind == "session_started":
            counts["cut_off"] += is_open
            counts["started"] += 1
            is_open = True
        elif event.kind == "session_ended":
            is_open = False
            if event.data["state"] != "finished":
                counts[event.data["state"]] += 1
    return counts


def is_running(events: Sequence[Event]) -> bool:
    """Whether the last session has no end yet (it works, or was killed)."""
    marks = [event.kind for event in events if event.kind in ("session_started", "session_ended")]
    return bool(marks) and marks[-1] == "session_started"


def environment(events: Sequence[Event]) -> dict[str, Any]:
    """Of the last session."""
    found = [event.data["environment"] for event in events if event.kind == "session_started"]
    return dict(found[-1]) if found else {}


def _between(start: str | None, end: str | None) -> float:
    if start is None or end is None:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _strategy(
    name: str, study: StudyConfig, found: Sequence[TrialRecord], winner: Side | None, default: Side | None
) -> dict[str, Any]:
    best = best_trial(found, name, study.objective)
    test = _on_test(winner, study)
    cost = winner.seconds_alone if winner and winner.runs else best.seconds_alone if best else None
    return {
        "trials": states(found, name),
        "best_validation": best.score if best else None,
        "validation_mean": winner.validation_mean if winner else None,
        "test_mean": test["mean"],
        "test_ci95": test["ci95"],
        "test": test["metrics"],
        "default_test_mean": _on_test(default, study)["mean"],
        "seeds": len(winner.seeds) if winner else 0,
        "seconds_alone": cost,
        "search_seconds_alone": sum(r.seconds_alone for r in of_kind(found, "search") if r.strategy == name),
        "trainable_share": winner.trainable_share if winner and winner.runs else best.trainable_share if best else None,
        "best_config": (winner.config if winner and winner.runs else best.config.to_json() if best else None),
    }


def _on_test(side: Side | None, study: StudyConfig) -> dict[str, Any]:
    """Mean over seeds with its interval, and the mean of every metric."""
    if side is None:
        return {"mean": None, "ci95": None, "metrics": None}

    each = [all_metrics(probabilities, side.labels) for probabilities in side.probabilities]
    means = {name: float(np.mean([values[name] for values in each])) for name in METRICS}
    ci95 = None
    if len(side.seeds) > 1:
        low, high = estimate(side.probabilities, side.labels, side.groups, study.objective).interval()
        floor, ceiling = {"mcc": (-1.0, 1.0), "log_loss": (0.0, np.inf)}.get(study.objective, (0.0, 1.0))
        ci95 = [max(low, floor), min(high, ceiling)]
    return {"mean": means[study.objective], "ci95": ci95, "metrics": means}
