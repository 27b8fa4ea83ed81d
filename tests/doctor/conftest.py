"""Small real studies."""

from __future__ import annotations

from study_fixtures import at_home, finished, whole, world  # noqa: F401 - fixtures
