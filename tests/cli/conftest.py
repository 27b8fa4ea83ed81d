"""Studies that are written to disk without training, and one finished report."""

from __future__ import annotations

from stored_study import finished_report, make_study  # noqa: F401 - fixtures
