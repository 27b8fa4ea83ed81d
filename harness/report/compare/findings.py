"""What several studies found, in sentences computed from their verdicts. Verdicts are counted, never pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.analysis import wording
from harness.analysis.comparison import SharedData, StudySummary
from harness.results.metrics import METRICS

_SIDES = ("fine_tuning", "feature_extraction")


def sentence(entries: Sequence[StudySummary]) -> str:
    """Say in how many studies each strategy is better and by how much at most, and how many are undecided.

    Gains are compared only between studies of one objective.
    """
    claims: list[str] = []
    for outcome in (*_SIDES, "equal", "undecided", None):
        own = [entry for entry in entries if entry.outcome == outcome]
        if own:
            claims.append(_claim(outcome, own, _number(len(own), len(entries), first=not claims)))
    sentences = [f"{wording.capital(wording.listed(claims))}."]
    scratch = [entry.name for entry in entries if entry.verdict and _use(entry) == "from_scratch"]
    if scratch:
        sentences.append(f"In {wording.listed(scratch)} training from scratch was better than both.")
    return " ".join(sentences)


def _claim(outcome: str | None, own: list[StudySummary], number: str) -> str:
    one = len(own) == 1
    if outcome in _SIDES:
        return f"{wording.STRATEGY[outcome]} is better in {number} ({_gains(own)})"
    if outcome == "equal":
        return f"the two strategies are practically equal in {number}"
    if outcome == "undecided":
        return f"{number} {'is' if one else 'are'} undecided"
    return f"{number} {'has' if one else 'have'} no verdict"


def _gains(own: list[StudySummary]) -> str:
    """Write the largest difference for each objective and the studies that reached it: `cells most, by 2.9 points`."""
    sentences = []
    for objective in dict.fromkeys(entry.objective for entry in own):
        sizes = {entry.name: _size(entry) for entry in own if entry.objective == objective}
        largest = wording.difference(max(sizes.values()), objective)
        names = [name for name, size in sizes.items() if wording.difference(size, objective) == largest]
        most = " most" if len(names) < len(sizes) else ""
        sentences.append(f"{wording.listed(names)}{most}, by {largest} {wording.unit(objective)}")
    return "; ".join(sentences)


def _size(entry: StudySummary) -> float:
    return abs(float(entry.verdict["difference"])) if entry.verdict else 0.0


def _use(entry: StudySummary) -> str | None:
    """Return the recommended strategy."""
    chosen = entry.summary["recommendation"]
    return chosen["strategy"] if chosen else None


def _number(part: int, of: int, first: bool) -> str:
    """Write a count: `both studies`, `all 3 studies`, `2 of 3 studies`; later in the sentence only the number."""
    if part == of:
        return "both studies" if of == 2 else f"all {of} studies"
    return f"{part} of {of} studies" if first else str(part)


def reasons(entries: Sequence[StudySummary]) -> list[tuple[str, str]]:
    """Return the studies without a verdict, each with the reason."""
    return [(entry.name, str(entry.summary["verdict_reason"])) for entry in entries if entry.verdict is None]


def rendered(entries: Sequence[StudySummary]) -> str:
    """Say that images are rendered, and in which studies if not in all; "" if all are real."""
    names = [entry.name for entry in entries if entry.rendered]
    if not names:
        return ""
    which = "" if len(names) == len(entries) else f" in {wording.listed(names)}"
    return f"Rendered images, not real cells{which}."


def dependence(group: SharedData) -> str:
    """Say what it means for the results that studies share their images."""
    names = wording.listed(group.names)
    if group.test_images is None:
        return f"{names} share their data, so their results would be no independent evidence."
    images = wording.count(group.test_images, "test image")
    if group.same_test:
        return f"{names} share their {images}, so their results are no independent evidence of one another."
    overlap = f"{images} in common" if group.test_images else "no test image common to all"
    return f"{names} share their data, with {overlap}: their results are no independent evidence of one another."


def results(entries: Sequence[StudySummary]) -> str:
    """Say how many studies of one objective are decided, and how wide their intervals are."""
    objective = entries[0].objective
    known = [entry.verdict for entry in entries if entry.verdict]
    label = wording.capital(METRICS[objective].label)
    if not known:
        return f"{label}: no verdict yet"
    decided = sum(verdict["outcome"] != "undecided" for verdict in known)
    halves = [wording.difference((high - low) / 2, objective) for low, high in (verdict["ci95"] for verdict in known)]
    ends = sorted(set(halves), key=float)
    width = f"± {ends[0]}" if len(ends) == 1 else f"± {ends[0]} to ± {ends[-1]}"
    intervals = "an interval" if len(known) == 1 else "intervals"
    return f"{label}: {decided} of {len(entries)} decided, with {intervals} of {width} {_unit(objective)}".rstrip()


def _unit(objective: str) -> str:
    """Return the unit without the metric: `points`, `nats` or nothing."""
    return wording.unit(objective).partition("of ")[0].strip()


def data(entries: Sequence[StudySummary]) -> str:
    """Say how many data sets there are and how large they are."""
    known = [entry for entry in entries if entry.digest]
    if not known:
        return "The data"
    sizes = sorted({int(entry.summary["data"]["images"]) for entry in known})
    images = wording.count(sizes[-1], "image")
    span = images if len(sizes) == 1 else f"{sizes[0]:,} to {images}"
    return f"{wording.count(len({entry.digest for entry in known}), 'data set')}, {span}"


def recommended(entries: Sequence[StudySummary]) -> str:
    """Say which strategies and which backbones are recommended."""
    used = Counter(strategy for entry in entries if (strategy := _use(entry)))
    if not used:
        return "Nothing is recommended yet"
    strategies = [f"{wording.STRATEGY[name]} in {n} of {len(entries)}" for name, n in used.most_common()]
    chosen = [entry.summary["recommendation"]["config"]["backbone"] for entry in entries if _use(entry)]
    backbones = dict.fromkeys(chosen)
    if len(chosen) == 1:
        return f"Recommended: {wording.listed(strategies)}, with {chosen[0]}"
    which = f"always with {chosen[0]}" if len(backbones) == 1 else f"with {len(backbones)} different backbones"
    return f"Recommended: {wording.listed(strategies)}, {which}"


def costs(entries: Sequence[StudySummary]) -> str:
    """Say how many times the device seconds of a feature extraction a fine-tuning takes."""
    ratios = sorted(ratio for entry in entries if (ratio := entry.cost_ratio))
    if not ratios:
        return "What it took"
    low, high = (wording.times(ratio) for ratio in (ratios[0], ratios[-1]))
    span = high if low == high else f"{low.removesuffix(' times')} to {high}"
    return f"One fine-tuning takes {span} the device seconds of one feature extraction"


def machines(entries: Sequence[StudySummary]) -> str:
    """Say whether the seconds of these studies may be compared."""
    used = {tuple(entry.summary["environment"].get(name) for name in ("device", "threads")) for entry in entries}
    if len(used) > 1:
        return "The devices or their threads differ between the studies: compare the ratios rather than the seconds."
    return "The same device and threads in all of them."


def sharing(group: SharedData) -> str:
    """Say how many keys differ between studies of the same data."""
    names = wording.listed(group.names)
    if not group.file and not group.environment:
        return f"{names}: the same data, study file and environment"
    counts = [
        wording.count(len(rows), one, many)
        for rows, one, many in (
            (group.file, "key of the study file", "keys of the study file"),
            (group.environment, "fact of the environment", "facts of the environment"),
        )
        if rows
    ]
    differ = "differs" if len(group.file) + len(group.environment) == 1 else "differ"
    return f"{names}: the same data; {wording.listed(counts)} {differ}"
