"""The study's answer: whether one strategy is better, both are practically equal, or it is undecided; and what to use.

Values only: `verdict_text` puts them into words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from harness.analysis import wording
from harness.analysis.statistics import Comparison, Estimate, difference, holm_levels, judge
from harness.analysis.test_predictions import TestPredictions
from harness.config.study import StudyConfig
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState, states

PRIMARY = ("feature_extraction", "fine_tuning")
_WINNER = {"better": "fine_tuning", "worse": "feature_extraction", "equal": "equal", "undecided": "undecided"}


def conclude(state: StudyState, winners: dict[str, TestPredictions], study: StudyConfig) -> dict[str, Any]:
    """Return the blocks of summary.json that answer the study's question, as values without sentences.

    Args:
        winners: strategy -> its winner's test predictions, see `test_predictions.scored_predictions`.

    Returns:
        `verdict`: outcome, difference, interval and the other values of its sentence; None if a strategy is missing.
        `verdict_reason`: why there is no verdict, or None. `comparisons`: every pair of strategies, b minus a. The
        primary pair (feature extraction, fine-tuning) is named in advance and read at 95 %; the others are read at
        Holm's levels. `recommendation`: strategy, config, `model` (None until a model was logged), and `trial_id` of
        the winner's confirmation run with the median validation score; None if nothing was scored.
    """
    pairs = _compare(winners, study)
    primary = pairs.get(PRIMARY)
    verdict = None
    if primary is not None:
        a, b = (winners[name] for name in PRIMARY)
        verdict = {
            "outcome": _WINNER[primary.outcome],
            "difference": primary.difference,
            "ci95": list(primary.ci95),
            "probability_fine_tuning_better": primary.probability_b_better,
            "equivalence": study.confirmation.equivalence,
            "seeds": len(_shared(a, b)),
            "test_looks": state.test_looks,
            "needed": asdict(primary.needed) if primary.needed else None,
            "test_images": a.labels.size,
            "test_groups": a.group_count,
            "seconds_alone": {side.strategy: side.seconds_alone if side.runs else None for side in (a, b)},
            "from_scratch_gain": _scratch_gain(pairs, primary),
        }
    return {
        "verdict": verdict,
        "verdict_reason": None if verdict else _why_not(winners, state.records, study),
        "comparisons": [
            {
                "a": a,
                "b": b,
                "difference": pair.difference,
                "ci95": list(pair.ci95),
                "outcome": pair.outcome,
                "probability_b_better": pair.probability_b_better,
            }
            for (a, b), pair in pairs.items()
        ],
        "recommendation": _recommend(state, winners, pairs),
    }


def _compare(scored: dict[str, TestPredictions], study: StudyConfig) -> dict[tuple[str, str], Comparison]:
    """Compare every pair of strategies that shares two seeds or more; the primary pair comes first."""
    found: dict[tuple[str, str], Estimate] = {}
    for a, b in combinations(scored.values(), 2):
        seeds = _shared(a, b)
        if len(seeds) < 2 or a.rows.shape != b.rows.shape or (a.rows != b.rows).any():
            continue
        estimate = difference(a.at(seeds), b.at(seeds), a.labels, a.groups, study.objective)
        found[a.strategy, b.strategy] = estimate
    levels = {PRIMARY: 0.95}
    others = [pair for pair in found if pair != PRIMARY]
    levels |= dict(zip(others, holm_levels([found[pair].p_value for pair in others]), strict=True))
    ordered = sorted(found, key=lambda pair: pair != PRIMARY)
    return {pair: judge(found[pair], study.confirmation.equivalence, levels[pair]) for pair in ordered}


def _shared(a: TestPredictions, b: TestPredictions) -> list[int]:
    return sorted(set(a.seeds) & set(b.seeds))


def _cheaper(a: TestPredictions, b: TestPredictions) -> TestPredictions:
    return b if b.seconds_alone < a.seconds_alone else a


def _scratch_gain(pairs: dict[tuple[str, str], Comparison], primary: Comparison | None) -> float | None:
    """Return by how much training from scratch beats the better pretrained strategy; None unless it beats both.

    It must beat both at the corrected levels. Without this, the primary pair would hide that neither is best.
    """
    against = [pairs.get((name, "from_scratch")) for name in PRIMARY]
    if primary is None or not all(pair is not None and pair.outcome == "better" for pair in against):
        return None
    best = against[1] if primary.difference >= 0 else against[0]
    assert best is not None
    return best.difference


def _why_not(scored: dict[str, TestPredictions], records: Sequence[TrialRecord], study: StudyConfig) -> str:
    """Say why there is no verdict."""
    if missing := [name for name in PRIMARY if name not in study.strategies]:
        names = wording.listed(wording.STRATEGY[name] for name in missing)
        return f"The study leaves {names} out; a verdict compares feature extraction with fine-tuning."
    for name in PRIMARY:
        ended = states(records, name)
        if sum(ended.values()) >= study.trials and not ended["complete"]:
            how = wording.listed(f"{n} {wording.STATE[state]}" for state, n in ended.items() if n)
            return f"No trial of {wording.STRATEGY[name]} completed ({how})."
    done = sum(record.kind == "search" for record in records)
    slots = study.trials * len(study.strategies)
    if not scored and not any(record.kind == "confirmation" for record in records):
        return f"{done} of {slots} trials are finished so far, and the confirmation has not begun."
    if missing := [name for name in PRIMARY if name not in scored]:
        names = wording.listed(wording.STRATEGY[name] for name in missing)
        return f"The confirmation has not scored {names} on the test split yet."
    shared = _shared(*(scored[name] for name in PRIMARY))
    return f"Both strategies share {wording.count(len(shared), 'scored seed')}; an interval needs two."


def _recommend(
    state: StudyState, scored: dict[str, TestPredictions], pairs: dict[tuple[str, str], Comparison]
) -> dict[str, Any] | None:
    """Recommend the better strategy, the cheaper one if they are equal or undecided, or the only one that was scored.

    Training from scratch is recommended if it beats both others.
    """
    names = [name for name in PRIMARY if name in scored] or list(scored)
    if not names:
        return None
    if len(names) == 1 and len(scored) > 1:
        names = list(scored)[:2]
    use = scored[names[0]]
    if len(names) == 2:
        pair = pairs.get((names[0], names[1]))
        outcome = pair.outcome if pair else "undecided"
        a, b = scored[names[0]], scored[names[1]]
        use = {"better": b, "worse": a}.get(outcome) or _cheaper(a, b)
        if _scratch_gain(pairs, pairs.get(PRIMARY)) is not None:
            use = scored["from_scratch"]
    run = use.median_run
    return {
        "strategy": use.strategy,
        "config": use.config,
        "model": state.models.get(run.trial_id) if run else None,
        "trial_id": run.trial_id if run else None,
    }
