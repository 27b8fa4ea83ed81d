"""The verdict as a sentence, made from the values in the event log.

The log stores only values, so the page, summary.json, MLflow's tags and the terminal all call `sentence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis import wording
from harness.results.event_types import VerdictReached

Values = Mapping[str, Any]  # the block `verdict` that `harness.analysis.verdict.conclude` returns


def describe(reached: VerdictReached, objective: str) -> str | None:
    """Return the sentence of a verdict, or the reason why there is none."""
    return sentence(reached.verdict, objective) if reached.verdict else reached.verdict_reason


def sentence(verdict: Values, objective: str) -> str:
    """Write the verdict in one to three sentences: the better strategy, the gap, its interval, the cost, the advice."""
    gap, outcome = verdict["difference"], verdict["outcome"]
    ahead, behind = ("fine_tuning", "feature_extraction") if gap >= 0 else ("feature_extraction", "fine_tuning")
    size, unit = wording.difference(abs(gap), objective), wording.unit(objective)
    evidence = _evidence(verdict, objective)
    use = advice(verdict, objective)
    if outcome in wording.STRATEGY:
        better = wording.capital(wording.STRATEGY[ahead])
        return f"{better} is better by {size} {unit} ({evidence}); {_cost(verdict, ahead, behind)}. {use}"
    if outcome == "equal":
        zone = wording.difference(verdict["equivalence"], objective)
        return (
            f"Feature extraction and fine-tuning are practically equal: they differ by {size} {unit} "
            f"({evidence}), within the ± {zone} that count as equal. {use}"
        )
    alike = wording.difference(gap, objective) == wording.difference(0.0, objective)
    who = (
        "feature extraction and fine-tuning scored alike"
        if alike
        else f"{wording.STRATEGY[ahead]} scored {size} {unit} better"
    )
    return f"Undecided: {who}, but that may be chance ({evidence}). {_needed(verdict['needed'])}{use}"


def advice(verdict: Values, objective: str) -> str:
    """Write the recommendation: the better strategy, or the cheaper one if neither is better."""
    gain = verdict["from_scratch_gain"]
    if gain is not None:
        by = f"{wording.difference(gain, objective)} {wording.unit(objective)}"
        return f"Training from scratch was better than both, by {by}: use that."
    if verdict["outcome"] in wording.STRATEGY:
        return f"Use {wording.STRATEGY[verdict['outcome']]}."
    seconds = verdict["seconds_alone"]
    use, other = "feature_extraction", "fine_tuning"
    if (seconds[other] or 0) < (seconds[use] or 0) and seconds[other] is not None:
        use, other = other, use
    return f"Use {wording.STRATEGY[use]}, the cheaper one: {_cost(verdict, other, use, full=True)}."


def _evidence(verdict: Values, objective: str) -> str:
    """Write the evidence: `95 % interval 0.5 to 5.3; 5 seeds, 288 test images in 24 groups`.

    The interval has the sign that favours the strategy with the better mean.
    """
    sign = 1 if verdict["difference"] >= 0 else -1
    low, high = (wording.difference(end, objective) for end in sorted(sign * end for end in verdict["ci95"]))
    images = wording.test_images(verdict["test_images"], verdict["test_groups"])
    return f"95 % interval {low} to {high}; {wording.count(verdict['seeds'], 'seed')}, {images}"


def _cost(verdict: Values, one: str, other: str, full: bool = False) -> str:
    """Compare the cost of one training of two strategies, in device seconds."""
    who = wording.STRATEGY[one] if full else "it"
    own, others = (verdict["seconds_alone"][name] for name in (one, other))
    if not own or not others:
        return f"what {who} costs was not measured"
    ratio = own / others
    if 0.95 < ratio < 1.05:
        return f"{who} takes as many device seconds"
    if ratio < 1:
        return f"{who} takes {(1 - ratio) * 100:.0f} % fewer device seconds"
    return f"{who} takes {wording.times(ratio)} the device seconds"


def _needed(needed: Values | None) -> str:
    """Say how many seeds or test images would probably decide."""
    if needed is None:
        return ""
    ways = []
    if needed["seeds"]:
        ways.append(f"{needed['seeds']} seeds")
    if needed["test_images"]:
        ways.append(f"{needed['test_images']:,} test images")
    if not ways:
        return "Neither more seeds nor more test images alone would probably decide it. "
    return f"About {wording.listed(ways, 'or')} would probably decide. "
