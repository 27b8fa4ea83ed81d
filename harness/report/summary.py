"""summary.json: what a study found, for machines; made from stored files, also while the study runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.config.study import StudyConfig
from harness.report.scored import Side, sides
from harness.report.statistics import estimate
from harness.report.verdict import conclude
from harness.report.wording import cleaned
from harness.results.home import StudyFolder
from harness.results.metrics import METRICS, all_metrics
from harness.results.study_state import StudyState, states

SCHEMA = 1


def assemble(folder: StudyFolder, study: StudyConfig, state: StudyState, card: dict[str, Any]) -> dict[str, Any]:
    """The study's summary, schema 1: no absolute path and no password in it.

    `verdict` is None while there is none, and `verdict_reason` says why. `seconds_alone` of a strategy is what one
    training of its winner costs by itself; `search_seconds_alone` adds up its search trials; `seconds_spent` is what
    the study really took, all its sessions together.
    """
    winners = sides(state, folder, "winner")
    defaults = sides(state, folder, "default")
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
        **answer(state, folder, study),
        "strategies": {
            name: _strategy(name, study, state, winners.get(name), defaults.get(name)) for name in study.strategies
        },
        "seconds_spent": state.seconds_spent,
        "sessions": state.sessions,
        "environment": dict(state.environment),
    }
    clean: dict[str, Any] = cleaned(result)
    return clean


def answer(state: StudyState, folder: StudyFolder, study: StudyConfig) -> dict[str, Any]:
    """Verdict, its reason, comparisons and recommendation: as the log holds them, else as they stand now."""
    if not state.verdicts:
        return conclude(state, folder, study)
    last = state.verdicts[-1]
    advice = last.recommendation
    if advice is not None:
        advice = {**advice, "model": state.models.get(last.recommended_trial or "", advice.get("model"))}
    return {
        "verdict": last.verdict,
        "verdict_reason": last.verdict_reason,
        "comparisons": last.comparisons,
        "recommendation": advice,
    }


def _strategy(
    name: str, study: StudyConfig, state: StudyState, winner: Side | None, default: Side | None
) -> dict[str, Any]:
    best, own = state.best(name), state.searched(name)
    test = _on_test(winner, study)
    cost = winner.seconds_alone if winner and winner.runs else best.seconds_alone if best else None
    return {
        "trials": states(own, name),
        "best_validation": best.score if best else None,
        "validation_mean": winner.validation_mean if winner else None,
        "test_mean": test["mean"],
        "test_ci95": test["ci95"],
        "test": test["metrics"],
        "default_test_mean": _on_test(default, study)["mean"],
        "seeds": len(winner.seeds) if winner else 0,
        "seconds_alone": cost,
        "search_seconds_alone": sum(record.seconds_alone for record in own),
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
