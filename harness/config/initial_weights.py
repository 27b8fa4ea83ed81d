"""Weights: what a backbone starts from, as the key `weights` of a study file names it; nothing is read here.

A study names one of them, or several, which it then compares as a search parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any

from harness.config.backbone_specs import IMAGENET, BackboneSpec, Normalisation, OfficialWeights, backbone_spec
from harness.config.fit import Fit
from harness.errors import ConfigError

DEFAULT = "default"  # in a TrialConfig: the study's only weights, or random ones if the strategy says so
WORDS = ("bundled", "imagenet", "none")
_OFFICIAL = re.compile(r"\w+_Weights\.\w+|IMAGENET1K\w*|DEFAULT")  # names of torchvision's weights enums
_RULE = "must be bundled, imagenet, none, the name of torchvision weights, the path of a checkpoint, or {path: …}"


@dataclass(frozen=True)
class Weights:
    """One choice of initial weights."""

    source: str  # one of WORDS, the name of torchvision's weights with or without their enum's, or a path
    normalisation: Normalisation | None = None  # of a checkpoint; None: that of the backbone's official weights
    name: str = ""  # of a checkpoint, in tables and on the page; "": the file's name

    @classmethod
    def of(cls, given: str | Weights) -> Weights:
        """Return weights that are named by their source alone; Weights stay as they are."""
        return cls(given) if isinstance(given, str) else given

    @property
    def is_random(self) -> bool:
        """Whether nothing is loaded."""
        return self.source == "none"

    @property
    def is_file(self) -> bool:
        """Whether they are a checkpoint of the user's."""
        return self.source not in WORDS and not _OFFICIAL.fullmatch(self.source)

    @property
    def label(self) -> str:
        """Their name in tables and on the page; without the folders of a path, which are the user's own affair."""
        if self.name or not self.is_file:
            return self.name or self.source
        return PureWindowsPath(PurePath(self.source).name).name or self.source

    def official(self, backbone: str) -> OfficialWeights:
        """Return what is known about official weights of a backbone: those that are named, otherwise the default ones.

        Raises:
            ConfigError: the backbone has no weights of this name; the message lists those it has.
        """
        spec = backbone_spec(backbone)
        enum, _, member = self.source.rpartition(".")
        if self.source in WORDS or self.is_file or member == "DEFAULT":
            wanted = spec.official_weights
        else:
            wanted = self.source if enum else f"{spec.official_weights.partition('.')[0]}.{member}"
        found = next((one for one in _known(spec) if one.name == wanted), None)
        if found is None or (enum and member == "DEFAULT" and enum != spec.official_weights.partition(".")[0]):
            known = ", ".join(one.name for one in _known(spec))
            raise ConfigError(
                f"`weights: {self.source}` must name weights of {backbone}, which has {known}; name one of these, or "
                "use `imagenet` for each backbone's default."
            )
        return found

    def normalises(self, backbone: str) -> Normalisation:
        """Return the mean and standard deviation of each colour channel that they expect, for pixels in [0, 1].

        Random weights, and a checkpoint without a normalisation, are used with that of the official weights.
        """
        if self.normalisation is not None:
            return self.normalisation
        return IMAGENET if self.source == "bundled" else self.official(backbone).normalisation

    def native_size(self, backbone: str) -> int:
        """Return the pixels a side at which they were evaluated; for a checkpoint, those of the official weights."""
        return self.official(backbone).size

    def fit(self, backbone: str) -> Fit:
        """Return the transform of `resize: weights`; for a checkpoint, that of the official weights."""
        known = self.official(backbone)
        return Fit(known.size, known.resize, known.interpolation)

    def to_yaml(self) -> Any:
        """Return the form that a study file has."""
        if self.normalisation is None and not self.name:
            return self.source
        values: dict[str, Any] = {"path": self.source}
        if self.normalisation is not None:
            values["normalisation"] = {"mean": list(self.normalisation.mean), "std": list(self.normalisation.std)}
        return values | ({"name": self.name} if self.name else {})


def _known(spec: BackboneSpec) -> tuple[OfficialWeights, ...]:
    """Return the official weights of a backbone; at least the default ones."""
    size = spec.native_size
    return spec.weights or (OfficialWeights(spec.official_weights, size, size, "bicubic", spec.normalisation),)


@dataclass(frozen=True)
class WeightsChoice:
    """The weights that a study names: one, or several with different labels, which it compares."""

    entries: tuple[Weights, ...]

    @classmethod
    def read(cls, value: object) -> WeightsChoice:
        """Return the weights that an entry of a study file names: a scalar, a mapping, or a list of these.

        Raises:
            ValueError: the entry is not allowed; states the rule and the value.
        """
        if isinstance(value, WeightsChoice):
            return value
        items = value if isinstance(value, (list, tuple)) else [value]
        if not items:
            raise ValueError("a list must name at least one value")
        entries = tuple(_entry(item) for item in items)
        labels = [entry.label for entry in entries]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(
                f"names {twice[0]} twice; weights are told apart by the file's name, so give one of them another, as "
                "in {path: …, name: …}"
            )
        return cls(entries)

    @property
    def first(self) -> Weights:
        """The weights that a default configuration starts from."""
        return self.entries[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of all, in the order of the file."""
        return tuple(entry.label for entry in self.entries)

    def named(self, label: str) -> Weights:
        """Return the weights with this label; DEFAULT means the first ones.

        Raises:
            ConfigError: there are none.
        """
        if label == DEFAULT:
            return self.first
        found = next((entry for entry in self.entries if entry.label == label), None)
        if found is None:
            raise ConfigError(f"weights must be one of the study's ({', '.join(self.labels)}), but got {label!r}")
        return found

    def to_yaml(self) -> Any:
        """Return the form that a study file has."""
        return self.first.to_yaml() if len(self.entries) == 1 else [entry.to_yaml() for entry in self.entries]


def _entry(value: object) -> Weights:
    if isinstance(value, Weights):
        return value
    if isinstance(value, str):
        found = Weights(value)
    elif isinstance(value, Mapping):
        found = _described(value)
    else:
        raise ValueError(f"{_RULE}, but got {value!r}")
    if not found.label.strip() or found.label == DEFAULT:
        raise ValueError(f"{_RULE}, but got {value!r}")
    return found


def _described(value: Mapping[Any, Any]) -> Weights:
    unknown = [str(key) for key in value if key not in ("path", "normalisation", "name")]
    path, name = value.get("path"), value.get("name")
    if unknown or not isinstance(path, str) or not path:
        raise ValueError(f"is {{path: …, normalisation: {{mean: […], std: […]}}, name: …}}, but got {dict(value)!r}")
    if not Weights(path).is_file:
        raise ValueError(f"path must be a file, but got {path!r}; write `weights: {path}`")
    if name is not None and (not isinstance(name, str) or not 1 <= len(name.strip()) <= 60 or name in WORDS):
        raise ValueError(f"name must be a text of 1 to 60 characters and none of {', '.join(WORDS)}, but got {name!r}")
    given = value.get("normalisation")
    return Weights(path, None if given is None else _normalisation(given), name or "")


def _normalisation(value: object) -> Normalisation:
    if not isinstance(value, Mapping) or set(value) != {"mean", "std"}:
        raise ValueError(f"normalisation is {{mean: […], std: […]}}, but got {value!r}")
    triples = []
    for key in ("mean", "std"):
        numbers = value[key]
        is_list = isinstance(numbers, (list, tuple)) and len(numbers) == 3
        if not is_list or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
            raise ValueError(f"normalisation.{key} must be three numbers, one for each colour, but got {numbers!r}")
        low_open = key == "std"
        if not all(math.isfinite(n) and 0 <= n <= 1 and not (low_open and n == 0) for n in numbers):
            raise ValueError(
                f"normalisation.{key} must lie in {'(0' if low_open else '[0'}, 1], for pixels in [0, 1], but got "
                f"{list(numbers)}; divide values for pixels up to 255 by 255"
            )
        triples.append((float(numbers[0]), float(numbers[1]), float(numbers[2])))
    return Normalisation(*triples)
