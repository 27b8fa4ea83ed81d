"""Studies that are written to disk without training, a finished report and a finished study."""

from __future__ import annotations

from stored_study import finished_report, make_study  # noqa: F401 - fixtures
from study_fixtures import copied  # noqa: F401 - fixture
