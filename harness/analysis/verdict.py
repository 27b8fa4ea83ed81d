"""The study's answer: whether one strategy is better, both are practically equal, or it is undecided; and what to use.

Values only: `verdict_text` puts them into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, Literal

from harness.analysis import wording
from harness.analysis.statistics import Comparison, Estimate, difference, estimate, holm_levels, judge
from harness.analysis.test_predictions import TestPredictions
from harness.analysis.training_cost import MARGIN, cost_ratio
from harness.analysis.training_end import still_rising
from harness.config.study import StudyConfig
from harness.results.metrics import guessing, sign_of
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState, of_kind, states

PRIMARY = ("feature_extraction", "fine_tuning")
# Why a strategy is recommended: it is better; both are equal and it is the cheaper one; nothing is decided and it has
# the better mean; it cannot be told from guessing, so that nothing is recommended; it is the only one.
Basis = Literal["better", "cheaper", "better_bet", "guessing", "only_one"]
_WINNER = {"better": "fine_tuning", "worse": "feature_extraction", "equal": "equal", "undecided": "undecided"}


def conclude(state: StudyState, winners: dict[str, TestPredictions], study: StudyConfig) -> dict[str, Any]:
    """Return the blocks of summary.json that answer the study's question, as values without sentences.

    Args:
        winners: strategy -> its winner's test predictions, see `test_predictions.scored_predictions`.

    Returns:
        `verdict`: outcome, difference, interval and the other values of its sentence; None if a strategy is missing.
        `verdict_reason`: why there is no verdict, or None. `comparisons`: every pair of strategies, b minus a. The
        primary pair (feature extraction, fine-tuning) is named in advance and read at 95 %; the others are read at
        Holm's levels. `recommendation`: strategy, config, `model` (None until a model was logged), `trial_id` of the
        winner's confirmation run with the median validation score, and `basis`, see `Basis`; None if nothing was
        scored.
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
            "needed": _needed(primary, state, len(_shared(a, b))),
            "test_images": a.labels.size,
            "test_groups": a.group_count,
            "seconds_alone": {side.strategy: side.seconds_alone if side.runs else None for side in (a, b)},
            "cost_ratio": cost_ratio(b.runs[0].config, a.runs[0].config, study) if a.runs and b.runs else None,
            "from_scratch_gain": _scratch_gain(pairs, primary),
            "guessing": guessing(study.objective, a.labels),
            "scores": {name: _score(side, study) for name, side in winners.items()},
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
        "recommendation": _recommend(state, winners, pairs, verdict),
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


def _needed(primary: Comparison, state: StudyState, seeds: int) -> dict[str, Any] | None:
    """Return how many seeds, or test images, would probably decide, and the seconds that the further seeds would take.

    A further seed trains every confirmed configuration once, which takes what a seed has taken so far.
    """
    if primary.needed is None:
        return None
    spent = [run.seconds_spent or run.seconds_alone for run in of_kind(state.records, "confirmation")]
    further = (primary.needed.seeds or seeds) - seeds
    return {**asdict(primary.needed), "seconds": sum(spent) / seeds * further if further else None}


def _score(side: TestPredictions, study: StudyConfig) -> dict[str, Any]:
    """Return a winner's mean test score, its interval, and two doubts about it.

    `learned` is whether the whole interval is better than guessing; `rising` is how much its validation score still
    rose at the end of its training, see `training_end.Rise`, or None.
    """
    rise = still_rising(side.runs, study.objective)
    rising = asdict(rise) if rise else None
    if len(side.seeds) < 2:
        return {"mean": None, "ci95": None, "learned": None, "rising": rising}
    found = estimate(side.probabilities, side.labels, side.groups, study.objective)
    low, high = found.interval()
    chance = guessing(study.objective, side.labels)
    learned = low > chance if sign_of(study.objective) > 0 else high < chance
    return {"mean": found.mean, "ci95": [low, high], "learned": learned, "rising": rising}


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
    state: StudyState,
    scored: dict[str, TestPredictions],
    pairs: dict[tuple[str, str], Comparison],
    verdict: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Recommend the better strategy, the cheaper one if they are equal, or the only one that was scored.

    If nothing is decided, it is the strategy with the better mean. Training from scratch is recommended if it beats
    both others. `basis` says which of these it is.
    """
    if not scored:
        return None
    use = next(iter(scored.values()))
    basis: Basis = "only_one"
    if verdict is None and pairs:  # one of the two is left out, and training from scratch takes its place
        (one, other), pair = next(iter(pairs.items()))
        use = scored[other if pair.difference > 0 else one]
        basis = "better" if pair.outcome in ("better", "worse") else "better_bet"
    if verdict is not None:
        a, b = (scored[name] for name in PRIMARY)
        better = b if verdict["difference"] > 0 else a
        if verdict["outcome"] == "equal":
            use, basis = scored[cheaper(verdict)], "cheaper"
        else:
            use, basis = better, "better_bet" if verdict["outcome"] == "undecided" else "better"
        if verdict["from_scratch_gain"] is not None:
            use, basis = scored["from_scratch"], "better"
        if verdict["scores"][use.strategy]["learned"] is False:
            basis = "guessing"
    run = use.median_run
    return {
        "strategy": use.strategy,
        "basis": basis,
        "config": use.config,
        "model": state.models.get(run.trial_id) if run else None,
        "trial_id": run.trial_id if run else None,
    }


def cheaper(verdict: Mapping[str, Any]) -> str:
    """Return the cheaper strategy of the two; feature extraction if they cost about the same."""
    ratio = verdict["cost_ratio"]
    return "fine_tuning" if ratio is not None and ratio < 1 / MARGIN else "feature_extraction"
