"""How OpenMP threads wait for one another. This must be decided before torch is imported, which reads it then.

Threads that spin while they wait stall one another as soon as another process wants a core: a training then becomes
slower by far more than its share of the cores. Threads that sleep at once are slow to wake on a quiet machine. A short
spin, and sleep after it, has neither fault (`reports/benchmarks/README.md` has the numbers). No result depends on it.
"""

from __future__ import annotations

import os

TURNS = "1000"


def wait_briefly() -> None:
    """Let OpenMP threads spin for `TURNS` turns and then sleep, unless the user has chosen otherwise."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", TURNS)}
