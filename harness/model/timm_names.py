"""The names of timm's models in a study file.

A name is `timm/` and timm's name, with or without the tag of its weights (`timm/vit_small_patch16_224`,
`timm/resnet50.a1_in1k`), and may end with arguments of the model:
`timm/vit_large_patch16_224?init_values=1e-5&reg_tokens=4`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError

PREFIX = "timm/"


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


# Arguments that decide a network's structure, as model cards state them. `swiglu` stands for timm's mlp_layer
# SwiGLUPacked with the activation SiLU, which cannot be written as plain values.
ARGUMENTS: dict[str, Callable[[str], object]] = {
    "class_token": _bool,
    "depth": int,
    "drop_path_rate": float,
    "drop_rate": float,
    "embed_dim": int,
    "fc_norm": _bool,
    "final_norm": _bool,
    "global_pool": str,
    "init_values": float,
    "mlp_ratio": float,
    "no_embed_class": _bool,
    "num_heads": int,
    "patch_size": int,
    "pre_norm": _bool,
    "qk_norm": _bool,
    "qkv_bias": _bool,
    "reg_tokens": int,
    "swiglu": _bool,
}


@dataclass(frozen=True)
class TimmName:
    """A backbone's name in its parts."""

    model: str  # timm's own name, with the tag if one is given
    arguments: Mapping[str, Any]


def parse(name: str) -> TimmName:
    """Return the parts of a name that begins with `timm/`.

    Raises:
        ConfigError: an argument is not one of ARGUMENTS, or has a value that it cannot have.
    """
    model, _, query = name.removeprefix(PREFIX).partition("?")
    arguments: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        if key not in ARGUMENTS:
            near = difflib.get_close_matches(key, ARGUMENTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(ARGUMENTS)}."
            raise ConfigError(
                f"the arguments of a timm model are written ?name=value&name=value, but got {pair!r}; {hint}"
            )
        try:
            arguments[key] = ARGUMENTS[key](value)
        except ValueError:
            kind = {_bool: "true or false", int: "a whole number", float: "a number"}[ARGUMENTS[key]]
            raise ConfigError(f"the argument {key} of {name} must be {kind}, but got {value!r}.") from None
    return TimmName(model, arguments)
