"""The labels of a source as classes: merged, renamed and left out as the study says, and checked for near twins."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace

from harness.config.data import ClassesConfig, DataConfig
from harness.data.sources.listing import Aside, Listing, by_bytes
from harness.errors import ConfigError, DataError
from harness.safe_text import escape_name, listed

_INNER = re.compile(r"(?<=\w)[\s_\-]+(?=\w)")


def with_classes(listing: Listing, config: DataConfig) -> Listing:
    """Apply `data.classes` and `data.min_images` to a listing.

    Raises:
        ConfigError: `data.classes` names labels that the data do not have.
        DataError: labels are near twins, differing in case, blanks, hyphens or accents only; a class has no images that
            are read; or fewer than two classes have enough images.
    """
    rules = config.classes
    name_of = _names(listing, rules)
    dropped = {escape_name(label) for label in rules.drop}
    own = not listing.rendered and listing.root is not None  # a folder or table of the user
    if own:
        _refuse_twins(sorted(set(name_of.values()), key=by_bytes), rules)
    counts = Counter(name_of[sample.label] for sample in listing.samples if sample.label not in dropped)
    empty = [label for label in listing.classes if label not in dropped and not counts[name_of[label]]]
    if own and empty:
        _refuse_empty(listing, empty)
    rare = {label for label, count in counts.items() if count < (config.min_images or 0)}
    if len(set(counts) - rare) < 2 <= len(counts):
        shown = ", ".join(f"{label} with {count}" for label, count in sorted(counts.items()))
        raise DataError(
            f"at least two classes must have data.min_images: {config.min_images} or more images, but the classes are "
            f"{shown}; set a smaller data.min_images, or merge classes with data.classes."
        )
    if not rules.merge and not dropped and not rare:
        return listing
    aside, warnings = Aside(), list(listing.warnings)
    kept = []
    for index, sample in enumerate(listing.samples):
        if sample.label in dropped:
            aside.add("left out by data.classes.drop", sample.path, sample.label)
        elif name_of[sample.label] in rare:
            aside.add(f"class with fewer images than data.min_images: {config.min_images}", sample.path, sample.label)
        else:
            kept.append(index)
    if rare:
        shown = ", ".join(f"{label} ({counts[label]})" for label in sorted(rare, key=by_bytes))
        warnings.append(f"Left out by data.min_images: {config.min_images}: {shown}.")
    fetch = listing.fetch
    samples = (replace(listing.samples[index], label=name_of[listing.samples[index].label]) for index in kept)
    return replace(
        listing,
        samples=tuple(samples),
        fetch=lambda index: fetch(kept[index]),
        left_aside=(*listing.left_aside, *aside.entries()),
        warnings=tuple(warnings),
        classes=tuple(sorted(set(counts) - rare, key=by_bytes)),
    )


def _names(listing: Listing, rules: ClassesConfig) -> dict[str, str]:
    """Return the class of each label that is not dropped."""
    known = set(listing.classes)
    merged = {escape_name(label): escape_name(name) for name, labels in rules.merge.items() for label in labels}
    named = [*merged, *(escape_name(label) for label in rules.drop)]
    faults = []
    for label in named:
        if label not in known:
            near = difflib.get_close_matches(label, sorted(known), n=1) or [
                other for other in sorted(known) if _key(other) == _key(label)
            ]
            faults.append(label + (f"; did you mean {near[0]}?" if near else ""))
    if faults:
        raise ConfigError(
            f"data.classes must name labels of the data, which are {', '.join(sorted(known, key=by_bytes)[:20])}; "
            "these "
            "are none:",
            faults,
        )
    dropped = {escape_name(label) for label in rules.drop}
    return {label: merged.get(label, label) for label in listing.classes if label not in dropped}


def _key(label: str) -> str:
    """Return the same text for labels that differ only in case, blanks, _, -, accents or the form of characters."""
    plain = unicodedata.normalize("NFKD", label)
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return _INNER.sub(" ", plain.strip().casefold())


def _refuse_twins(names: list[str], rules: ClassesConfig) -> None:
    """Refuse near twins, unless each of them is named in `data.classes.merge`. Single letters may differ in case."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = _key(name)
        same[key if len(key) > 1 else name.strip()].append(name)
    named = {escape_name(name) for name in rules.merge}
    pairs = [twins for twins in same.values() if len(twins) > 1 and not set(twins) <= named]
    if not pairs:
        return
    merge = ", ".join(f"{_quoted(_plainest(twins))}: [{', '.join(map(_quoted, twins))}]" for twins in pairs)
    apart = ", ".join(f"{_quoted(name)}: [{_quoted(name)}]" for name in pairs[0])
    raise DataError(
        "labels must not differ only in case, blanks, hyphens, underscores or accents; correct them, or join them in "
        f"the study file with data.classes: {{merge: {{{merge}}}}} (if they are different classes: "
        f"{{merge: {{{apart}}}}}):\n" + listed(" and ".join(repr(name) for name in twins) for twins in pairs)
    )


def _plainest(twins: list[str]) -> str:
    return min(twins, key=lambda name: (name != name.strip(), name != name.casefold(), not name.isascii(), name))


def _quoted(label: str) -> str:
    """Return a label as YAML needs it within brackets."""
    plain = re.fullmatch(r"[A-Za-z][\w ]*\w|[A-Za-z]", label) and label.casefold() not in _YAML_WORDS
    return label if plain else "'" + label.replace("'", "''") + "'"


_YAML_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))


def _refuse_empty(listing: Listing, empty: list[str]) -> None:
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in listing.left_aside:
        reasons[one.label].append(f"{one.count} x {one.reason}, such as {one.example}")
    raise DataError(
        f"every class must have images that can be read, but {len(empty)} of {len(listing.classes)} classes have none; "
        "convert "
        f"or add images, remove these folders, or leave them out with data.classes: {{drop: "
        f"[{', '.join(map(_quoted, empty[:5]))}]}}:\n"
        + listed(f"{label}: {'; '.join(reasons[label]) or 'no files'}" for label in empty)
    )
