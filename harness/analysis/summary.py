"""The content of summary.json: what a study found, as values for other programs.

It is made from stored files, also while the study runs.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from harness.analysis.references import references
from harness.analysis.statistics import estimate
from harness.analysis.test_predictions import TestPredictions
from harness.analysis.training_end import still_rising
from harness.analysis.verdict import conclude
from harness.analysis.verdict_text import sentence
from harness.analysis.wording import redact_all
from harness.config.study import StudyConfig
from harness.results.metrics import METRICS, all_metrics
from harness.results.paths import StudyFolder
from harness.results.study_state import StudyState, states

SCHEMA = 1


def assemble(
    folder: StudyFolder,
    study: StudyConfig,
    state: StudyState,
    card: dict[str, Any],
    winners: dict[str, TestPredictions],
    defaults: dict[str, TestPredictions],
) -> dict[str, Any]:
    """Return the study's summary, schema 1. It contains no absolute path and no password.

    `verdict` is None if there is none, and `verdict_reason` says why. `seconds_alone` of a strategy is what one
    training of its winner takes by itself, in device seconds; `search_seconds_alone` is the sum over its search
    trials; `rising` is how much the validation score of its winner still rose at the end of the training, or None;
    `seconds_spent` is the time that the study took, all its sessions together. `references` is described in
    `harness.analysis.references`.
    """
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
        **answer(state, winners, study),
        "strategies": {
            name: _strategy(name, study, state, winners.get(name), defaults.get(name)) for name in study.strategies
        },
        "references": references(state, winners, card, study.objective),
        "seconds_spent": state.seconds_spent,
        "sessions": state.sessions,
        "environment": dict(state.environment),
    }
    clean: dict[str, Any] = redact_all(result)
    return clean


def answer(state: StudyState, winners: dict[str, TestPredictions], study: StudyConfig) -> dict[str, Any]:
    """Return verdict, reason, comparisons and recommendation, from the log or computed from what is scored so far.

    The verdict contains its `sentence` beside its values.
    """
    blocks = _values(state, winners, study)
    if verdict := blocks["verdict"]:
        blocks["verdict"] = {**verdict, "sentence": sentence(verdict, study.objective)}
    return blocks


def _values(state: StudyState, winners: dict[str, TestPredictions], study: StudyConfig) -> dict[str, Any]:
    """Return the values of the last verdict in the log, with the model as it is named now."""
    if not state.verdicts:
        return conclude(state, winners, study)
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
    name: str, study: StudyConfig, state: StudyState, winner: TestPredictions | None, default: TestPredictions | None
) -> dict[str, Any]:
    """Return a strategy's block of the summary; its cost and configuration are the winner's, or the best trial's."""
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
        "rising": asdict(rise) if winner and (rise := still_rising(winner.runs, study.objective)) else None,
        "seconds_alone": cost,
        "search_seconds_alone": sum(record.seconds_alone for record in own),
        "trainable_share": winner.trainable_share if winner and winner.runs else best.trainable_share if best else None,
        "best_config": (winner.config if winner and winner.runs else best.config.to_json() if best else None),
    }


def _on_test(predictions: TestPredictions | None, study: StudyConfig) -> dict[str, Any]:
    """Return the mean test score over seeds with its interval, and the mean of every metric."""
    if predictions is None:
        return {"mean": None, "ci95": None, "metrics": None}

    each = [all_metrics(probabilities, predictions.labels) for probabilities in predictions.probabilities]
    means = {name: float(np.mean([values[name] for values in each])) for name in METRICS}
    ci95 = None
    if len(predictions.seeds) > 1:
        found = estimate(predictions.probabilities, predictions.labels, predictions.groups, study.objective)
        ci95 = list(found.interval())
    return {"mean": means[study.objective], "ci95": ci95, "metrics": means}
