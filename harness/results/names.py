"""The names of a study's splits."""

from __future__ import annotations

SEARCH_SPLIT = "search"


def confirmation_split(index: int) -> str:
    """Name of the split that belongs to a confirmation seed."""
    return f"confirmation/{index}"


def fraction_split(index: int, fraction: float) -> str:
    """Name of the split with this fraction of its training part; all of it is the split itself."""
    return confirmation_split(index) if fraction == 1 else f"{confirmation_split(index)}@{fraction:g}"
