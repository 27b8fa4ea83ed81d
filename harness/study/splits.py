"""The names of a study's splits."""

from __future__ import annotations

SEARCH_SPLIT = "search"


def confirmation_split(index: int) -> str:
    """Name of the split that belongs to a confirmation seed."""
    return f"confirmation/{index}"
