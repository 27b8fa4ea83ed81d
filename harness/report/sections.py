"""The sections around the evidence, with layouts of their own: answer, strategies, recommendation, data and method.

Those of the recommendation and of the data are always made; their templates show nothing if there is nothing to show.
"""

from __future__ import annotations

from typing import Any

import yaml

from harness.config.parameters import PARAMETERS, idle, label
from harness.config.trial import TrialConfig
from harness.report import figures, findings, wording
from harness.report.images import samples
from harness.report.ink import Picture
from harness.report.labels import config_text
from harness.report.scored import TestPredictions
from harness.report.section import Section
from harness.report.story import StudyData
from harness.results.metrics import score, sign_of


def answer_section(story: StudyData) -> Section:
    """Say the verdict, or why there is none."""
    values = {"verdict_pictures": verdict_pictures(story)}
    return Section("answer", "The answer", template="answer", values=values)


def strategy_section(story: StudyData) -> Section:
    """Show the strategies side by side."""
    rows, objective = strategy_rows(story), story.study.objective
    values = {
        "strategies": rows,
        "scored": any(row["test_mean"] is not None for row in rows),
        "side_picture": figures.side_by_side(rows, objective) if story.winners else None,
        "others": other_pairs(story),
    }
    return Section("strategies", findings.strategies(rows, objective), template="strategies", values=values)


def recommendation_section(story: StudyData) -> Section:
    """Show the recommended configuration and how to use it."""
    values = {"recommendation": recommendation(story)}
    return Section("recommendation", "Recommended", template="recommendation", values=values)


def data_section(story: StudyData) -> Section:
    """Show the data card."""
    shown = samples(story.folder.thumbnails, len(story.card.get("classes", []))) if story.study.report.images else {}
    return Section("data", "The data", template="data", values={"card_facts": card_facts(story), "images": shown})


def method_section(story: StudyData) -> Section:
    """Say what was done, and what it does not count."""
    return Section("method", "Method, in short", template="method", values={"zone": zone(story)})


def reproduce_section(story: StudyData) -> Section:
    """Say how the study is run again."""
    values = {
        "data_argument": data_argument(story),
        "sessions": sessions(story),
        "study_yaml": study_yaml(story),
    }
    return Section("reproduce", "How to reproduce", template="reproduce", values=values)


def verdict_pictures(story: StudyData) -> tuple[Picture, Picture] | None:
    """The paired differences, for a wide and for a narrow screen; None where no pair was compared."""
    pairs = story.summary["comparisons"]
    if not pairs:
        return None
    each = {(p["a"], p["b"]): _each_seed(story.winners, p["a"], p["b"], story.study.objective) for p in pairs}
    zone, objective = story.study.confirmation.equivalence, story.study.objective
    return (
        figures.differences(pairs, each, zone, objective),
        figures.differences(pairs, each, zone, objective, width=350),
    )


def strategy_rows(story: StudyData) -> list[dict[str, Any]]:
    """One row a strategy for the table side by side, the cheapest training as the unit of cost."""
    rows = [{"strategy": name, **values} for name, values in story.summary["strategies"].items()]
    costs = [row["seconds_alone"] for row in rows if row["seconds_alone"]]
    for row in rows:
        row["cost_ratio"] = row["seconds_alone"] / min(costs) if row["seconds_alone"] else None
        row["cost_share"] = row["seconds_alone"] / max(costs) if row["seconds_alone"] else 0.0
    return rows


def recommendation(story: StudyData) -> dict[str, Any] | None:
    """The recommended configuration as rows, and as lines to paste into a study file and into Python."""
    chosen = story.summary["recommendation"]
    if chosen is None:
        return None
    config = chosen["config"]
    off = idle(config)
    names = [name for name in (*PARAMETERS, "epochs") if config.get(name) is not None and name not in off]
    rows = [(label(name), config_text(name, config[name])) for name in names]
    return {
        "strategy": chosen["strategy"],
        "rows": rows,
        "model": chosen["model"],
        "paste": _try_lines(chosen["strategy"], config),
        "tracking": story.study_json.get("tracking_uri") or "sqlite:///runs/mlflow.db",
    }


def _each_seed(winners: dict[str, TestPredictions], a: str, b: str, objective: str) -> list[float]:
    if a not in winners or b not in winners:
        return []
    one, two = winners[a], winners[b]
    sign = sign_of(objective)
    shared = sorted(set(one.seeds) & set(two.seeds))
    pairs = zip(one.at(shared), two.at(shared), strict=True) if shared else ()
    return [sign * (score(objective, q, two.labels) - score(objective, p, one.labels)) for p, q in pairs]


def _try_lines(strategy: str, config: dict[str, Any]) -> str:
    """The configuration as a line under `try:` of a study file, without what is the default anyway."""
    usual = TrialConfig(strategy="fine_tuning", backbone="", unfreeze_depth=-1, head_lr=0.0, backbone_lr=None).to_json()
    kept = {"strategy": strategy}
    kept |= {k: v for k, v in config.items() if k in PARAMETERS and v is not None and v != usual[k]}
    if strategy == "feature_extraction":
        kept.pop("unfreeze_depth", None)
    return "try:\n  - " + yaml.safe_dump(kept, sort_keys=False).strip().replace("\n", "\n    ")


def other_pairs(story: StudyData) -> list[str]:
    """The comparisons beyond the primary one, a sentence each."""
    objective, told = story.study.objective, []
    for pair in story.summary["comparisons"][1:]:
        a, b = wording.STRATEGY[pair["a"]], wording.STRATEGY[pair["b"]]
        low, high = (wording.difference(end, objective) for end in pair["ci95"])
        gap = f"{wording.difference(pair['difference'], objective, signed=True)} {wording.unit(objective)}"
        told.append(
            f"{wording.capital(b)} minus {a}: {gap} (95 % interval {low} to {high}); {_OUTCOME[pair['outcome']]}."
        )
    return told


_OUTCOME = {
    "better": "better, after Holm's correction",
    "worse": "worse, after Holm's correction",
    "equal": "practically equal",
    "undecided": "undecided",
}


def card_facts(story: StudyData) -> list[tuple[str, str]]:
    """The data card's smaller facts: name and value."""
    card = story.card
    if not card:
        return []
    sizes = [f"{s['width']} \N{MULTIPLICATION SIGN} {s['height']} px ({s['count']:,})" for s in card["sizes"][:3]]
    facts = [
        ("source", card["source"]),
        ("grouped by", card["group_rule"]),
        ("image sizes", ", ".join(sizes)),
        ("scaled to", f"{card['image_size']} px, {card['resize']}"),
        ("full scale", wording.FULL_SCALE.get(card["bit_depth"], f"{card['bit_depth']} bits")),
        ("digest", card["digest"]),
        ("same image again", card["duplicates"]),
        ("left unused", card["split"].get("unused")),
        *card["kinds"].items(),
        *card["converted"].items(),
        *((f"ignored: {reason}", n) for reason, n in card["ignored"].items()),
    ]
    return [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in facts if value]


def data_argument(story: StudyData) -> str:
    """` DATA=...` where the images lie in a folder or file of the user's, which the page does not name."""
    return "" if isinstance(story.study.data.source, str) else " DATA=..."


def sessions(story: StudyData) -> str:
    """How often the study was started, and how its earlier sessions ended where they did not finish."""
    counts = story.summary["sessions"]
    ends = [(counts["interrupted"], "interrupted"), (counts["failed"], "failed"), (counts["cut_off"], "killed")]
    told = [f"{number} {word}" for number, word in ends if number]
    return str(counts["started"]) + (f", of which {wording.listed(told)}" if told else "")


def zone(story: StudyData) -> str:
    """The equivalence margin with its unit."""
    objective = story.study.objective
    return f"{wording.difference(story.study.confirmation.equivalence, objective)} {wording.unit(objective)}"


def study_yaml(story: StudyData) -> str:
    """The resolved study as YAML."""
    return yaml.safe_dump(_without_none(story.study_json), sort_keys=False, allow_unicode=True, width=100)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
