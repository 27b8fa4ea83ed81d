"""The section on the data: images, classes, groups, splits, and a strip of sample images for each class."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.config.data import MAX_CHANNELS
from harness.data.composite import caption
from harness.data.sources.listing import SPLIT_FROM
from harness.report.images import samples
from harness.report.section import Section


def data_section(data: StudyData) -> Section:
    """Show the data card. The section is always made; it is empty without a data card."""
    shown = samples(data.folder.thumbnails, len(data.card.get("classes", []))) if data.study.report.images else {}
    values = {"card_facts": card_facts(data), "images": shown, "caption": caption(channels(data.card)) if shown else ""}
    return Section("data", "The data", template="data", values=values)


def channels(card: dict[str, Any]) -> int:
    """Return the number of channels that a data card gives; 3 if it gives none, as cards of earlier versions."""
    given = card.get("channels")
    return given if isinstance(given, int) and 1 <= given <= MAX_CHANNELS else 3


def card_facts(data: StudyData) -> list[tuple[str, str]]:
    """Return the smaller facts of the data card as pairs of name and value."""
    card = data.card
    if not card:
        return []
    sizes = [f"{s['width']} \N{MULTIPLICATION SIGN} {s['height']} px ({s['count']:,})" for s in card["sizes"][:3]]
    facts = [
        ("source", card["source"]),
        ("split", SPLIT_FROM.get(card.get("split_from", ""))),
        ("grouped by", card["group_rule"]),
        ("image sizes", ", ".join(sizes)),
        *_channel_facts(channels(card)),
        ("scaled to", f"{card['image_size']} px, {card['resize']}"),
        ("full scale", _full_scale(card)),
        ("of several frames", wording.FRAMES.get(card.get("frames", "first"))),
        ("digest", card["digest"]),
        ("same image again", card["duplicates"]),
        ("pairs that show nearly the same", card.get("near_duplicates")),
        ("left unused", card["split"].get("unused")),
        *card["kinds"].items(),
        *card["converted"].items(),
        *((f"left aside: {reason}", n) for reason, n in _left_aside(card).items()),
    ]
    return [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in facts if value]


def _full_scale(card: dict[str, Any]) -> str:
    """Return which sample values are black and white in images of more than 8 bits."""
    given = card.get("value_range")
    if isinstance(given, list) and len(given) == 2 and all(isinstance(value, int | float) for value in given):
        low, high = given
        return f"the training images' range: {low:,g} is black and {high:,g} is white"
    return wording.FULL_SCALE.get(card["bit_depth"], f"{card['bit_depth']} bits")


def _channel_facts(number: int) -> list[tuple[str, str]]:
    """Return what a reader must know of images that do not have three channels."""
    if number == 3:
        return []
    how = (
        "the weights' filters for red, green and blue, repeated and rescaled so that grey gets the same response"
        if number > 3
        else f"the weights' own; {'the channel is' if number == 1 else 'the channels are'} mixed to red, green and blue"
    )
    return [("channels", f"{number} channel{'s' if number > 1 else ''}"), ("first convolution", how)]


def _left_aside(card: dict[str, Any]) -> dict[str, int]:
    """Return how many files and folders were left aside for each reason, over all classes."""
    counts: Counter[str] = Counter()
    counts.update(card.get("ignored", {}))  # in the card of a study that was packed by an earlier version
    for one in card.get("left_aside", []):
        counts[one["reason"]] += one["count"]
    return dict(counts)
