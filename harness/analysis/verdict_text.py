"""The verdict as a sentence, made from the values in the event log.

The log stores only values, so the page, summary.json, MLflow's tags and the terminal all call `sentence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis import wording
from harness.analysis.training_cost import MARGIN
from harness.analysis.verdict import cheaper
from harness.results.event_types import VerdictReached
from harness.results.metrics import METRICS

FAR = 0.25  # of the way from guessing to a perfect score: a mean beyond it is not like guessing, only uncertain
Values = Mapping[str, Any]  # the block `verdict` that `harness.analysis.verdict.conclude` returns


def describe(reached: VerdictReached, objective: str) -> str | None:
    """Return the sentence of a verdict, or the reason why there is none."""
    return sentence(reached.verdict, objective) if reached.verdict else reached.verdict_reason


def sentence(verdict: Values, objective: str) -> str:
    """Write the verdict: the better strategy, the gap, its interval, the cost, and the advice.

    An advice in the imperative stands only where the verdict is decided and the recommended strategy has learned more
    than guessing gives.
    """
    gap, outcome = verdict["difference"], verdict["outcome"]
    ahead = "fine_tuning" if gap >= 0 else "feature_extraction"
    size, unit = wording.difference(abs(gap), objective), wording.unit(objective)
    evidence = _evidence(verdict, objective)
    if outcome in wording.STRATEGY:
        found = f"{wording.capital(wording.STRATEGY[ahead])} is better by {size} {unit} ({evidence})"
    elif outcome == "equal":
        zone = wording.difference(verdict["equivalence"], objective)
        found = (
            f"Feature extraction and fine-tuning are practically equal: they differ by {size} {unit} "
            f"({evidence}), within the ± {zone} that count as equal"
        )
    else:
        who = (
            "feature extraction and fine-tuning scored alike"
            if _alike(verdict, objective)
            else f"{wording.STRATEGY[ahead]} scored {size} {unit} better"
        )
        found = f"Undecided: {who}, but that may be chance ({evidence})"
    return " ".join([f"{found}.", advice(verdict, objective), *_not_to_the_end(verdict, objective)])


def advice(verdict: Values, objective: str) -> str:
    """Write what to do: what to use, or which is the better bet and what would decide."""
    gain = verdict["from_scratch_gain"]
    if gain is not None:
        use = "from_scratch"
    elif verdict["outcome"] in wording.STRATEGY:
        use = verdict["outcome"]
    elif verdict["outcome"] == "equal":
        use = cheaper(verdict)
    else:
        use = "fine_tuning" if verdict["difference"] >= 0 else "feature_extraction"
    if verdict["scores"][use]["learned"] is False:
        return _guessing(verdict, use, objective)
    if gain is not None:
        by = f"{wording.difference(gain, objective)} {wording.unit(objective)}"
        return f"Training from scratch was better than both, by {by}: use that."
    if verdict["outcome"] in wording.STRATEGY:
        return f"Use {wording.STRATEGY[use]}; {_cost(verdict, use)}."
    if verdict["outcome"] == "equal":
        return f"Use {wording.STRATEGY[use]}, {_why_cheaper(verdict, use)}."
    return _bet(verdict, use, objective)


def _bet(verdict: Values, use: str, objective: str) -> str:
    """Say which strategy is the better bet, what it costs, and what would probably decide."""
    if _alike(verdict, objective):
        bet = f"Neither is the better bet; {_cost(verdict, 'fine_tuning', full=True)}."
    else:
        better = verdict["probability_fine_tuning_better"]
        likely = wording.probability(better if use == "fine_tuning" else 1 - better)
        bet = (
            f"The better bet is {wording.STRATEGY[use]}: on new images and another seed it would be ahead with a "
            f"probability of {likely}, and {_cost(verdict, use)}."
        )
    return f"{bet} {_needed(verdict)}".rstrip()


def _guessing(verdict: Values, use: str, objective: str) -> str:
    """Say that a strategy cannot be told from guessing, and what may help."""
    scores, guess, best = verdict["scores"], verdict["guessing"], METRICS[objective].best
    both = all(scores[name]["learned"] is False for name in ("feature_extraction", "fine_tuning"))
    own = wording.STRATEGY[use]
    against = (
        f"{own} scored {wording.level(scores[use]['mean'], objective)}, and guessing gives "
        f"{wording.level(guess, objective)}"
    )
    if abs(scores[use]["mean"] - guess) > FAR * abs(best - guess):
        who = "either side" if both else own
        return f"So few seeds and test images do not show that {who} does better than guessing ({against}): add some."
    learned = "Neither side learned" if both else f"{wording.capital(own)} has not learned"
    return (
        f"{learned} to tell the classes: {against}. Nothing is recommended; more epochs, more or larger images, or "
        "other weights may help."
    )


def _not_to_the_end(verdict: Values, objective: str) -> list[str]:
    """Say which side was not trained to the end, and which number of epochs to try; nothing if both were."""
    rising = {name: score["rising"] for name, score in verdict["scores"].items() if score["rising"]}
    if not rising:
        return []
    rises = []
    for name, rise in rising.items():
        last = "last epoch" if rise["epochs"] == 1 else f"last {rise['epochs']} epochs"
        rises.append(f"{wording.STRATEGY[name]} ({wording.points(rise['gain'], objective)} over the {last})")
    epochs = 2 * next(iter(rising.values()))["of"]
    return [
        f"Not trained to the end: the validation score still rose for {wording.listed(rises)}; try EPOCHS={epochs} "
        "under another name (AS=…)."
    ]


def _alike(verdict: Values, objective: str) -> bool:
    """Whether the two scores are the same as they are written."""
    return wording.difference(verdict["difference"], objective) == wording.difference(0.0, objective)


def _evidence(verdict: Values, objective: str) -> str:
    """Write the evidence: `95 % interval 0.5 to 5.3; 5 seeds, 288 test images in 24 groups`.

    The interval has the sign that favours the strategy with the better mean.
    """
    sign = 1 if verdict["difference"] >= 0 else -1
    ends = sorted(sign * end for end in verdict["ci95"])
    images = wording.test_images(verdict["test_images"], verdict["test_groups"])
    counted = f"{wording.count(verdict['seeds'], 'seed')}, {images}"
    if wording.says_nothing(ends, objective):
        return f"{wording.TOO_FEW} by how much; {counted}"
    return f"95 % interval {wording.interval(ends, objective)}; {counted}"


def _cost(verdict: Values, use: str, full: bool = False) -> str:
    """Compare the cost of one training with the other strategy's, in floating-point operations."""
    who = wording.STRATEGY[use] if full else "it"
    ratio = _ratio(verdict, use)
    if ratio is None:
        return f"what {who} costs is not known"
    if 1 / MARGIN <= ratio <= MARGIN:
        return f"{who} takes about the same computation"
    if ratio < 1:
        return f"{who} takes {(1 - ratio) * 100:.0f} % less computation"
    return f"{who} takes {wording.times(ratio)} the computation"


def _why_cheaper(verdict: Values, use: str) -> str:
    """Say why this one of two equal strategies is recommended."""
    other = next(name for name in ("feature_extraction", "fine_tuning") if name != use)
    ratio = _ratio(verdict, other)
    if ratio is None or ratio <= MARGIN:
        return f"the simpler one: {_cost(verdict, other, full=True)}"
    return f"the cheaper one: {_cost(verdict, other, full=True)}"


def _ratio(verdict: Values, use: str) -> float | None:
    """Return the cost of this strategy divided by that of the other one."""
    ratio: float | None = verdict["cost_ratio"]
    return ratio if ratio is None or use == "fine_tuning" else 1 / ratio


def _needed(verdict: Values) -> str:
    """Say how many seeds or test images would probably decide, and how long the seeds would take."""
    needed = verdict["needed"]
    if needed is None:
        return ""
    ways = []
    if needed["seeds"]:
        ways.append(f"{needed['seeds']} seeds")
    if needed["test_images"]:
        ways.append(f"{needed['test_images']:,} test images")
    if not ways:
        return "Neither more seeds nor more test images alone would probably decide it."
    would = f"About {wording.listed(ways, 'or')} would probably decide"
    if needed["seeds"] and needed.get("seconds"):
        time = wording.duration(needed["seconds"])
        return f"{would}; SEEDS={needed['seeds']} continues the study, about {time} more."
    return f"{would}."
