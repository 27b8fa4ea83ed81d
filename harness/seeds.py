"""Seeds: derive many independent seeds from one, so that each use of random numbers has its own generator."""

from __future__ import annotations

import hashlib


def derive(seed: int, *parts: object) -> int:
    """Return a seed in [0, 2**63) that depends on `seed` and on every part, and on nothing else.

    Parts are compared by their text, so that `derive(0, "order", 1)` is the same on every machine.
    """
    text = "\x1f".join([str(seed), *(str(part) for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
