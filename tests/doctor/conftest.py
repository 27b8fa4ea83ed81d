"""Small studies."""

from __future__ import annotations

from study_fixtures import at_home, canned, canned_world, copied, finished, whole, world  # noqa: F401 - fixtures
