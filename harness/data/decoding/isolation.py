"""Whether this process may die without harm, so that fast decoders written in C may be used.

Such decoders end their process on some damaged files. A process that decodes for others, and is started again if it
dies, calls `isolate` once. In all other processes the slower decoders are used, which give the same pixels.
"""

from __future__ import annotations

isolated = False


def isolate() -> None:
    """Declare that this process may die of a damaged file."""
    global isolated
    isolated = True
