"""The names of a study's splits.

They are stored in the log and used by study, training and report, so they are built in one place.
"""

from __future__ import annotations

SEARCH_SPLIT = "search"


def confirmation_split(index: int) -> str:
    """Return the name of the split of the confirmation seed with this index."""
    return f"confirmation/{index}"


def is_fraction_split(name: str) -> bool:
    """Return whether this is the name of a confirmation split with a part of its training images."""
    return "@" in name


def fraction_split(index: int, fraction: float) -> str:
    """Return the name of the confirmation split with this fraction of its training part; 1 is the whole split."""
    return confirmation_split(index) if fraction == 1 else f"{confirmation_split(index)}@{fraction:g}"
