"""How values of a configuration are written on the page."""

from __future__ import annotations

from typing import Any

from harness.config.parameters import PARAMETERS
from harness.report import wording


def config_text(name: str, value: Any) -> str:
    if value is None or value != value:
        return wording.DASH
    if name in PARAMETERS and PARAMETERS[name].kind == "float":
        return wording.rate(float(value))
    return str(int(value)) if isinstance(value, float) else str(value)
