"""Read a checkpoint file as one flat mapping from names to tensors, without running code from the file."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.errors import ConfigError

MAX_DEPTH = 12  # levels of mappings in a file; a deeper one is not followed

CONVERT = (
    "python -c \"import sys, torch; f = lambda d: {k: f(v) if hasattr(v, 'items') else v for k, v in d.items() "
    "if hasattr(v, 'items') or torch.is_tensor(v)}; torch.save(f(torch.load(sys.argv[1], map_location='cpu', "
    'weights_only=False)), sys.argv[2])" OLD NEW'
)


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    wrappers: tuple[str, ...]  # keys of the mappings that it lies in, outermost first, such as `state_dict`
    name: str  # its key in the innermost mapping, such as `module.conv1.weight`
    value: Tensor

    @property
    def full_name(self) -> str:
        return ".".join((*self.wrappers, self.name))


def read(path: Path) -> list[Entry]:
    """Return every tensor of a safetensors file or of a file that torch.save wrote, in the order of the file.

    Mappings in mappings are followed; what is neither a mapping nor a tensor is left out. Besides tensors and plain
    values, a file may hold an argparse.Namespace, in which many training scripts store their arguments: loading one
    sets attributes of an empty object, and runs nothing. Every other class is refused.

    Raises:
        ConfigError: the file cannot be read, it would run code, or it has no tensors in mappings.
    """
    content = _content(path)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} must be a state dict (names and tensors), but it is a {type(content).__name__}.")
    entries = list(_tensors(content, ()))
    if not entries:
        raise ConfigError(
            f"{path} must be a state dict (names and tensors), but it is a {type(content).__name__} without tensors; "
            f"its keys are: {', '.join(str(key) for key in list(content)[:8]) or 'none'}."
        )
    return entries


def _content(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # not needed: it is read or refused
            if path.suffix == ".safetensors":
                return load_file(path)
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds a {found[1]}, whose loading may run code" if found else "is not a state dict, or may run code"
        raise ConfigError(
            f"{path} must contain tensors only, but it {what}. Nothing was run. Save `model.state_dict()` with "
            f"torch.save, or as safetensors. If you trust the file, this line runs it and keeps its tensors: {CONVERT}"
        ) from error
    except Exception as error:  # damaged files cause many kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path} must be a safetensors file or a state dict, but it cannot be read: {reason}"
        ) from error


def _tensors(content: Mapping[object, object], wrappers: tuple[str, ...]) -> Iterator[Entry]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield Entry(wrappers, str(key), value)
        elif isinstance(value, Mapping) and len(wrappers) < MAX_DEPTH:
            yield from _tensors(value, (*wrappers, str(key)))
