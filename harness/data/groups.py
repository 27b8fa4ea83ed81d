"""Groups: which images belong to one patient, slide or plate; and a suggestion if names carry an evident group."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from harness.data.sources.listing import Listing, Sample
from harness.data.sources.names import are_named_groups
from harness.errors import DataError
from harness.safe_text import listed

_LEAST_GROUPS = 3  # for three parts

# Tried in this order; the words from the largest unit to the smallest, because a patient may have several slides.
_WORDS = (
    "patient|pat|subject|subj|donor|person|participant|case",
    "mouse|animal|rat",
    "specimen|biopsy|sample",
    "slide|smear|scan|series",
    "plate",
    "video|clip|seq|sequence",
)
_RULES = (
    *(rf"(?i)(?<![a-z])(?:{one})[ _-]?[0-9]+" for one in _WORDS),
    r"(?i)(?<![a-z])well[ _-]?[a-p][0-9]{1,2}",
    r"^[A-Za-z]{1,3}-?[0-9]{2,}(?=[ _-])",
    r"(?<![A-Za-z0-9])[A-P](?:0[1-9]|1[0-9]|2[0-4])(?![A-Za-z0-9])",
    r"^[0-9]{3,}(?=_)",
)
_FOLDER_RULES = tuple(f"^{'[^/]+/' * above}([^/]+)/" for above in range(1, 5))


def groups_of(listing: Listing, rows: Sequence[int], rule: str | None) -> tuple[list[str], str | None]:
    """Return the group of each image ("" for none), and the rule as the data card shows it.

    Args:
        rows: indices into `listing.samples`.
        rule: `data.split.group`: a regular expression on the file name, or on the whole path below the data folder if
            it contains a /. None takes the groups that the source itself gives.

    Raises:
        DataError: the rule is no regular expression, or does not match every image.
    """
    samples = [listing.samples[row] for row in rows]
    if rule is None or (listing.group_rule is not None and listing.group_rule.startswith("column ")):
        return [sample.group for sample in samples], listing.group_rule
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise DataError(f"data.split.group must be a regular expression, but {rule!r} is not: {error}") from None
    what, names = _names(samples, rule)
    matches = [pattern.search(name) for name in names]
    missed = [sample.path for sample, match in zip(samples, matches, strict=True) if match is None]
    if missed:
        raise DataError(
            f"the group rule {rule!r} must match every {what}, but it matches {len(names) - len(missed)} of "
            f"{len(names)}; change data.split.group (null: no groups; for a table it may name a column; with a / it is "
            "matched with the path below the data folder). These images have no group:\n" + listed(missed)
        )
    return [_group(match) for match in matches if match is not None], rule


def suggestion(samples: Sequence[Sample]) -> str | None:
    """Return a warning with the rule to set if file names or folders carry an evident group; None if they do not.

    A rule is evident if it matches every image and gives at least three groups, half of them or more with several
    images, and at most half as many groups as images. Groups that are the classes themselves are none.
    """
    if any(sample.group for sample in samples):
        return None
    for rule in (*_RULES, *_FOLDER_RULES):
        groups = _evident(samples, rule)
        if groups is None:
            continue
        shown = "folders" if rule in _FOLDER_RULES else "file names"
        rule = _plainest(samples, groups, rule)
        parts: dict[str, set[str]] = defaultdict(set)
        for sample, group in zip(samples, groups, strict=True):
            parts[group].add(sample.fixed_split)
        torn = sum(len(held) > 1 for held in parts.values())
        quoted = "'" + rule.replace("'", "''") + "'"
        return (
            f"The {shown} carry a group, such as {groups[0]} ({len(parts)} groups in {len(samples)} images), but no "
            f"groups are set{f', and {torn} of them are in several parts of the split' if torn else ''}: images of one "
            f"patient, slide or plate must stay in one part. Set data.split.group: {quoted}"
        )
    return None


def _evident(samples: Sequence[Sample], rule: str) -> list[str] | None:
    """Return the groups by a rule, or None if they are not evident."""
    pattern = re.compile(rule)
    _, names = _names(samples, rule)
    groups = []
    for name in names:
        match = pattern.search(name)
        if match is None:
            return None
        groups.append(_group(match))
    sizes = Counter(groups)
    several = sum(size > 1 for size in sizes.values())
    if not _LEAST_GROUPS <= len(sizes) <= len(samples) / 2 or 2 * several < len(sizes):
        return None
    if rule in _FOLDER_RULES and not are_named_groups(sizes):
        return None
    pairs = {(sample.label, group) for sample, group in zip(samples, groups, strict=True)}
    labels = {sample.label for sample in samples}
    return None if len(pairs) == len(labels) else groups


def _plainest(samples: Sequence[Sample], groups: list[str], rule: str) -> str:
    """Return a simple rule that gives the same groups, such as slide[0-9]+; the given rule if there is none."""
    start = re.match(r"[A-Za-z]+[ _-]?(?=[0-9]+$)", groups[0])
    if start is None or rule in _FOLDER_RULES:
        return rule
    plain = f"{start[0]}[0-9]+"
    for simple in (plain, f"^{plain}"):
        pattern = re.compile(simple)
        found = (pattern.search(sample.path.rpartition("/")[2]) for sample in samples)
        if all(match is not None and match[0] == group for match, group in zip(found, groups, strict=True)):
            return simple
    return rule


def _names(samples: Sequence[Sample], rule: str) -> tuple[str, list[str]]:
    if "/" in rule:
        return "path below the data folder", [sample.path for sample in samples]
    return "file name", [sample.path.rpartition("/")[2] for sample in samples]


def _group(match: re.Match[str]) -> str:
    """Return what the first parenthesis matched; the whole match if there is none or it is optional and unused."""
    return (match.group(1) or match.group(0)) if match.re.groups else match.group(0)
