"""The table of all keys that a study file may have, made from the models that check the file."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.config.initial_weights import WeightsChoice
from harness.config.parameter import Parameter
from harness.config.parameters import PARAMETERS
from harness.config.study import StudyConfig


def table() -> str:
    """Return the table as Markdown: every key of the file, then every parameter of `search`."""
    lines = ["| key | default | what it says |", "|---|---|---|", *_rows(StudyConfig, "")]
    lines += ["", "Parameters of `search` (a scalar fixes one, a list or a range `{low, high, log}` searches it):", ""]
    lines += ["| parameter | values | what it says |", "|---|---|---|"]
    lines += [f"| `{name}` | {_values(one)} | {one.doc} |" for name, one in PARAMETERS.items()]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, info in model.model_fields.items():
        key = f"{prefix}{info.alias or name}"
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            rows += _rows(inner, f"{key}.")
        else:
            rows.append(f"| `{key}` | {_default(info)} | {_sentence(info)} |")
    return rows


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value: Any = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}, ""):
        return "–"
    if isinstance(value, WeightsChoice):
        value = value.to_yaml()
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _sentence(info: FieldInfo) -> str:
    text = (info.description or "").replace("|", "\\|")
    if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) < 8:
        return f"{text} ({', '.join(str(choice) for choice in get_args(info.annotation))})"
    return text


def _values(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return ", ".join(f"`{choice}`" for choice in parameter.choices) or "names"
    low = "" if parameter.low is None else f"{parameter.low:g}"
    high = "" if parameter.high is None or parameter.high > 1e30 else f"{parameter.high:g}"
    return f"{'above ' if parameter.low_open else ''}{low}{' to ' + high if high else ' up'}"
