"""What stands in each section of the page: values and pictures for the template, no markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from harness.config.study import KNOBS
from harness.config.trial import TrialConfig
from harness.report import figures, findings, knobs, wording
from harness.report.ink import Picture
from harness.report.scored import Side
from harness.report.story import Story
from harness.results.metrics import METRICS, confusion, score

LABELS = {
    "backbone": "backbone",
    "unfreeze_depth": "unfreeze depth (stages)",
    "unfreeze_from": "unfreezes from",
    "unfreeze_schedule": "unfreeze schedule",
    "head_fraction": "head-first share of epochs",
    "head_lr": "head learning rate",
    "backbone_lr": "backbone learning rate",
    "layer_decay": "layer decay",
    "batchnorm": "BatchNorm",
    "optimizer": "optimizer",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "warmup_fraction": "warm-up share of steps",
    "gradient_clip": "gradient clipping (norm)",
    "ema": "moving average (decay)",
    "early_stopping": "early stopping (epochs)",
    "head": "head",
    "head_hidden": "hidden units of the head",
    "head_dropout": "dropout in the head",
    "head_init": "head initialisation",
    "imbalance": "class imbalance",
    "augmentation": "augmentation",
    "mixup": "mixup (alpha)",
    "cutmix": "CutMix (alpha)",
    "batch_size": "batch size",
    "epochs": "epochs",
}
METHODS = {"ped_anova": "PED-ANOVA: what separates the best trials", "fanova": "fANOVA: what explains the spread"}
# Knobs that are switched off at these values: then they are not worth a line.
OFF: dict[str, Any] = {
    "layer_decay": 1.0,
    "label_smoothing": 0.0,
    "gradient_clip": 0.0,
    "ema": 0.0,
    "early_stopping": 0,
    "head": "linear",
    "head_dropout": 0.0,
    "head_init": "default",
    "imbalance": "none",
    "mixup": 0.0,
    "cutmix": 0.0,
}
OWN_SECTION = ("unfreeze_depth", "backbone", "batchnorm", "head_lr", "backbone_lr")
ALWAYS_SHOWN = ("backbone", "unfreeze_depth", "head_lr", "backbone_lr", "batchnorm")


@dataclass(frozen=True)
class Section:
    """One piece of evidence: a heading that says what was found, pictures, a note."""

    key: str
    heading: str
    pictures: list[Picture]
    note: str = ""
    legend: list[str] = field(default_factory=list)  # strategies drawn
    result: bool = True  # shows results, so it says where the data are rendered


def verdict_pictures(story: Story) -> tuple[Picture, Picture] | None:
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


def strategy_rows(story: Story) -> list[dict[str, Any]]:
    """One row a strategy for the table side by side, the cheapest training as the unit of cost."""
    rows = [{"strategy": name, **values} for name, values in story.summary["strategies"].items()]
    costs = [row["seconds_alone"] for row in rows if row["seconds_alone"]]
    for row in rows:
        row["cost_ratio"] = row["seconds_alone"] / min(costs) if row["seconds_alone"] else None
        row["cost_share"] = row["seconds_alone"] / max(costs) if row["seconds_alone"] else 0.0
    return rows


def recommendation(story: Story) -> dict[str, Any] | None:
    """The recommended configuration as rows, and as lines to paste into a study file and into Python."""
    chosen = story.summary["recommendation"]
    if chosen is None:
        return None
    config = chosen["config"]
    idle = _idle(config)
    rows = [(LABELS[k], _config_text(k, config[k])) for k in LABELS if config.get(k) is not None and k not in idle]
    return {
        "strategy": chosen["strategy"],
        "rows": rows,
        "model": chosen["model"],
        "paste": _try_lines(chosen["strategy"], config),
        "tracking": story.study_json.get("tracking_uri") or "sqlite:///runs/mlflow.db",
    }


def _idle(config: Mapping[Any, Any]) -> set[str]:
    """The knobs of a configuration that say nothing: switched off, or without an effect beside the others."""
    idle = {name for name, off in OFF.items() if config.get(name) == off}
    if config.get("unfreeze_schedule") != "head_first":
        idle.add("head_fraction")
    if config.get("head") != "mlp":
        idle.add("head_hidden")
    return idle


def evidence(story: Story) -> list[Section]:
    """The sections between the answer and the data card; those without anything to show are left out."""
    complete, objective = story.complete, story.study.objective
    made = [_curves(story)]
    if len(complete):
        drawn = [name for name in wording.STRATEGY if (complete["strategy"] == name).any()]
        if complete["unfreeze_depth"].nunique() > 1:
            heading = findings.of_number(complete, "unfreeze_depth", "unfreeze depth", "Deeper unfreezing")
            shown = knobs.by_number(
                complete, "unfreeze_depth", objective, "stages that train (0 is feature extraction)"
            )
            made.append(Section("depth", heading, [shown], _SEARCH_NOTE, drawn))
        for column, name in (("backbone", "backbone"), ("batchnorm", "BatchNorm policy")):
            if complete[column].nunique() > 1:
                heading = findings.of_choice(complete, column, name)
                made.append(
                    Section(column, heading, [knobs.by_choice(complete, column, objective, name)], _SEARCH_NOTE, drawn)
                )
        if complete["head_lr"].nunique() > 1:
            made.append(_rates(complete, objective, drawn))
        made += _others(complete, objective, drawn)
    made += [_importance(story), _confusion(story)]
    return [section for section in made if section is not None]


_SEARCH_NOTE = (
    "Each mark is one complete trial, each bar a median. The trials differ in other values too: this shows where good "
    "scores were found, not what caused them."
)


def _curves(story: Story) -> Section | None:
    column = f"validation_{story.study.objective}"
    table = story.epochs.dropna(subset=[column])
    if table.empty:
        return None
    low, high = table[column].quantile(0.01), table[column].max()
    limits = (float(low - 0.04 * (high - low)), float(high + 0.06 * (high - low)) + 1e-9)
    pictures, drawn = [], []
    for strategy in story.study.strategies:
        own = table[table["strategy"] == strategy]
        runs = [run.trial_id for run in story.winners[strategy].runs] if strategy in story.winners else []
        search, confirmed = own[own["kind"] == "search"], own[own["trial_id"].isin(runs)]
        if len(search) or len(confirmed):
            pictures.append(figures.learning_curves(search, confirmed, strategy, story.study.objective, limits))
            drawn.append(strategy)
    note = f"Validation {METRICS[story.study.objective].label} by epoch. Thin: each trial of the search"
    note += "; bold: the winner in the confirmation, mean and range of its seeds." if story.winners else "."
    return Section("curves", findings.curves(list(story.winners.values())), pictures, note)


def _rates(complete: pd.DataFrame, objective: str, drawn: list[str]) -> Section:
    pictures = [knobs.by_rate(complete, objective)]
    note = "First: every complete trial."
    for strategy in drawn:
        part = complete[complete["strategy"] == strategy].dropna(subset=["backbone_lr"])
        if part["backbone_lr"].nunique() > 2:
            pictures.append(knobs.rate_map(part, strategy, objective))
    if len(pictures) > 1:
        note += " Then: both rates together, the strongest colour for the best score, the best trial ringed."
    return Section("rates", findings.rates(complete), pictures, note, drawn)


def _others(complete: pd.DataFrame, objective: str, drawn: list[str]) -> list[Section]:
    """The other knobs that took more than one value: a section for each with a finding, one for all the rest."""
    made, silent = [], []
    for name, knob in KNOBS.items():
        if name in OWN_SECTION or complete[name].nunique() < 2:
            continue
        label = LABELS[name]
        if knob.kind == "choice":
            found, shown = findings.choice(complete, name), knobs.by_choice(complete, name, objective, label)
        else:
            found = findings.trend(complete, name, f"More {label}")
            shown = knobs.by_value(complete, name, objective, label)
        if found:
            made.append(Section(name, f"{wording.capital(label)}: {found}", [shown], _SEARCH_NOTE, drawn))
        else:
            silent.append((label, shown))
    if silent:
        names = wording.listed([label for label, _ in silent])
        heading = f"No clear effect of {names} in {wording.count(len(complete), 'trial')}"
        made.append(Section("others", heading, [shown for _, shown in silent], _SEARCH_NOTE, drawn))
    return made


def _importance(story: Story) -> Section | None:
    pictures = [
        figures.importances(
            values,
            f"{strategy}-{method}",
            f"{wording.capital(wording.STRATEGY[strategy])}, {METHODS.get(method, method)}",
        )
        for strategy, methods in story.importance.items()
        for method, values in methods.items()
        if values
    ]
    note = "The two methods answer different questions, and both see correlations only."
    return Section("importance", "What the search found to matter", pictures, note) if pictures else None


def recommended_counts(story: Story) -> tuple[Side, NDArray[np.int64]] | None:
    """The recommended winner with its confusion counts on test, all seeds together."""
    chosen = story.summary["recommendation"]
    side = story.winners.get(chosen["strategy"]) if chosen else None
    if side is None:
        return None
    classes = side.probabilities.shape[2]
    counts = [confusion(p.argmax(axis=1), side.labels, classes) for p in side.probabilities]
    return side, np.sum(counts, axis=0)


def _confusion(story: Story) -> Section | None:
    found = recommended_counts(story)
    if found is None:
        return None
    side, counts = found
    names = story.summary["data"]["classes"]
    if len(names) != counts.shape[0]:
        names = [f"class {k}" for k in range(counts.shape[0])]
    note = (
        f"{wording.capital(wording.STRATEGY[side.strategy])}, the recommended winner, on {side.images}, "
        f"{wording.count(len(side.seeds), 'seed')} together. Each row is a true class, each column a predicted one."
    )
    return Section("confusion", findings.confusions(counts, names), [figures.confusion_matrix(counts, names)], note)


def _each_seed(winners: dict[str, Side], a: str, b: str, objective: str) -> list[float]:
    if a not in winners or b not in winners:
        return []
    one, two = winners[a], winners[b]
    sign = 1 if METRICS[objective].direction == "maximize" else -1
    shared = sorted(set(one.seeds) & set(two.seeds))
    pairs = zip(one.at(shared), two.at(shared), strict=True) if shared else ()
    return [sign * (score(objective, q, two.labels) - score(objective, p, one.labels)) for p, q in pairs]


def trial_table(story: Story) -> dict[str, Any]:
    """Every trial of the search: `columns` (heading, is a number), `rows`, and what is the same in all of them."""
    table = story.trials
    varying = [
        name for name in LABELS if name != "epochs" and (name in ALWAYS_SHOWN or table[name].nunique(dropna=False) > 1)
    ]
    same = [
        f"{LABELS[name]} {_config_text(name, table[name].iloc[0])}"
        for name in LABELS
        if len(table) and name not in (*varying, *_idle(table.iloc[0].to_dict())) and pd.notna(table[name].iloc[0])
    ]
    label = f"{METRICS[story.study.objective].label} (validation)"
    columns = [("trial", True), ("strategy", False), ("state", False), (label, True)]
    columns += [(LABELS[name], KNOBS[name].kind != "choice") for name in varying]
    columns += [("epochs", True), ("device seconds", True), ("note", False)]
    rows = [_row(values, varying, story.study.objective) for values in table.to_dict("records")]
    return {"columns": columns, "rows": rows, "same": same, "best": _best_ids(story)}


def _row(values: dict[Any, Any], varying: list[str], objective: str) -> dict[str, Any]:
    cells = [wording.level(values["score"], objective), *(_config_text(name, values[name]) for name in varying)]
    cells += [str(values["epochs_done"]), f"{values['seconds_alone']:.1f}"]
    note = "; ".join(text for text in (values["reason"], values["warnings"]) if isinstance(text, str) and text)
    return {
        "id": values["trial_id"],
        "strategy": values["strategy"],
        "slot": values["slot"],
        "state": values["state"],
        "cells": cells,
        "note": wording.clean(note),
    }


def _best_ids(story: Story) -> set[str]:
    lower = METRICS[story.study.objective].direction == "minimize"
    ranked = story.complete.sort_values("score", ascending=lower, kind="stable")
    return set(ranked.drop_duplicates("strategy")["trial_id"])


def _config_text(name: str, value: Any) -> str:
    if value is None or value != value:
        return wording.DASH
    if name in KNOBS and KNOBS[name].kind == "float":
        return wording.rate(float(value))
    return str(int(value)) if isinstance(value, float) else str(value)


def _try_lines(strategy: str, config: dict[str, Any]) -> str:
    """The configuration as a line under `try:` of a study file, without what is the default anyway."""
    usual = TrialConfig(strategy="fine_tuning", backbone="", unfreeze_depth=-1, head_lr=0.0, backbone_lr=None).to_json()
    kept = {"strategy": strategy}
    kept |= {k: v for k, v in config.items() if k in KNOBS and v is not None and v != usual[k]}
    if strategy == "feature_extraction":
        kept.pop("unfreeze_depth", None)
    return "try:\n  - " + yaml.safe_dump(kept, sort_keys=False).strip().replace("\n", "\n    ")


def other_pairs(story: Story) -> list[str]:
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


def card_facts(story: Story) -> list[tuple[str, str]]:
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
        ("bit depth", card["bit_depth"]),
        ("digest", card["digest"]),
        ("same image again", card["duplicates"]),
        ("left unused", card["split"].get("unused")),
        *card["kinds"].items(),
        *card["converted"].items(),
        *((f"ignored: {reason}", n) for reason, n in card["ignored"].items()),
    ]
    return [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in facts if value]


def data_argument(story: Story) -> str:
    """` DATA=...` where the images lie in a folder or file of the user's, which the page does not name."""
    return "" if isinstance(story.study.data.source, str) else " DATA=..."


def zone(story: Story) -> str:
    """The equivalence margin with its unit."""
    objective = story.study.objective
    return f"{wording.difference(story.study.confirmation.equivalence, objective)} {wording.unit(objective)}"


def share(value: float | None) -> str:
    """A share of parameters: `100 %`, `74 %`, `0.03 %`."""
    if value is None or value != value:
        return wording.DASH
    return f"{value * 100:.2g} %" if value < 0.0995 else f"{value * 100:.0f} %"


def study_yaml(story: Story) -> str:
    """The resolved study as YAML."""
    return yaml.safe_dump(_without_none(story.study_json), sort_keys=False, allow_unicode=True, width=100)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
