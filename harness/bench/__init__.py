"""`make bench`: whole sweeps of the harness against the loop that a careful user writes by hand, with equal numbers.

A ratio in one run counts; an absolute time does not. What is timed, and what is not, stands in
`reports/benchmarks/README.md`.
"""

from __future__ import annotations

from harness.bench.sweep import run

__all__ = ["run"]
