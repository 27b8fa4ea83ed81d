"""What is known of each backbone without building it, and the table of the sources that backbones come from.

A study is checked against these specs before any model is built: they are plain values, and nothing here needs torch.

A source is one library or collection of backbones, whose names bear its prefix: `timm:resnet50` would be a backbone of
a source with the prefix `timm:`. torchvision's names bear none. To add a source, write its module and add a line to
SOURCES. The table only names modules: this file imports one for its specs when a name with its prefix is looked up, and
`harness.model.backbones` imports one for its models.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

from harness.config.strategies import DEPTH_MAX
from harness.errors import ConfigError


class SourceEntry(NamedTuple):
    """One line of the table of sources."""

    specs: str  # module with SPECS, a mapping from names to BackboneSpec; must not import torch
    source: str  # module with SOURCE, a BackboneSource; may be the same one, if its functions alone import torch


SOURCES: dict[str, SourceEntry] = {  # by the prefix of the names
    "": SourceEntry("harness.model.torchvision_specs", "harness.model.torchvision_source")
}

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Of each colour channel, for pixel values in [0, 1]: (x - mean) / std."""

    mean: Triple
    std: Triple


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Cost:
    """Of one image at the native size, without the head; FLOPs count a multiply-add as two."""

    parameters: tuple[int, ...]  # of each stage, stem first
    forward: tuple[int, ...]  # FLOPs of each stage
    backward: tuple[int, ...]  # FLOPs at each depth, 0 (the head alone) to 5
    batchnorm_layers: int

    @property
    def gflops(self) -> float:
        """Of one forward pass, in 1e9 FLOPs."""
        return sum(self.forward) / 1e9

    def parameter_share(self, depth: int) -> float:
        """Share of the backbone's parameters that lie in its last `depth` stages, in [0, 1]."""
        return sum(self.parameters[DEPTH_MAX - depth :]) / sum(self.parameters)

    def backward_share(self, depth: int) -> float:
        """Work of the backward pass at this depth as a share of that at full depth, in [0, 1]."""
        return self.backward[depth] / self.backward[-1]


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone without building it. Sizes are pixels a side; images are square."""

    name: str  # as a study file writes it, with the prefix of its source
    family: str  # members of a family are built alike
    native_size: int  # what the official weights were evaluated at
    min_size: int  # the smallest image that passes through the network
    multiple_of: int  # a size must be a multiple of this; 1 is no condition
    normalisation: Normalisation  # of the official weights; also used for random weights and a user's checkpoint
    official_weights: str  # the name that the source gives to its default weights
    licence: str  # of the official weights
    has_batchnorm: bool
    has_random_layers: bool  # dropout or stochastic depth with a probability above zero
    feature_dim: int  # what the head reads
    cost: Cost | None = None  # None: it stands in costs.json, as for torchvision's

    @property
    def mean(self) -> Triple:
        return self.normalisation.mean

    @property
    def std(self) -> Triple:
        return self.normalisation.std

    def fits(self, size: int) -> bool:
        """Whether an image of `size` px a side can be taken."""
        return size >= self.min_size and size % self.multiple_of == 0

    @property
    def sizes(self) -> str:
        """The sizes that fit, in words."""
        if self.multiple_of > 1:
            return f"a multiple of {self.multiple_of} px"
        return f"at least {self.min_size} px"


def source_entry(name: str) -> SourceEntry:
    """Return the line of the table that a backbone belongs to, by the prefix of its name.

    Raises:
        ConfigError: no source has this prefix.
    """
    before, colon, _ = name.partition(":")
    prefix = f"{before}:" if colon else ""
    if prefix not in SOURCES:
        known = ", ".join(prefix for prefix in SOURCES if prefix) or "none"
        raise ConfigError(f"the prefix of a backbone must be one of a source (there are: {known}), but got {name!r}")
    return SOURCES[prefix]


def _specs(entry: SourceEntry) -> Mapping[str, BackboneSpec]:
    specs: Mapping[str, BackboneSpec] = import_module(entry.specs).SPECS
    return specs


def backbone_specs() -> dict[str, BackboneSpec]:
    """Return the specs of all sources by name, in the order of the table."""
    return {name: spec for entry in SOURCES.values() for name, spec in _specs(entry).items()}


def backbone_spec(name: str) -> BackboneSpec:
    """Return the spec of a backbone.

    Raises:
        ConfigError: there is none; names those that are spelt alike, or all.
    """
    specs = _specs(source_entry(name))
    if name in specs:
        return specs[name]
    names = list(backbone_specs())
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(names)}."
    raise ConfigError(f"backbone must be one of the {len(names)} that there are, but got {name!r}; {hint}")


def check_image_size(name: str, size: int) -> None:
    """Check that the backbone can take images of `size` px a side.

    Raises:
        ConfigError: it cannot, or there is no such backbone.
    """
    known = backbone_spec(name)
    if not known.fits(size):
        raise ConfigError(
            f"image_size must be {known.sizes} for {name}, but got {size}; "
            f"`native` is its own size, {known.native_size}."
        )
