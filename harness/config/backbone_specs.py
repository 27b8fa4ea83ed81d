"""BackboneSpec: what is known about a backbone without building it; and the table of sources of backbones.

A study is checked against the specs before any model is built. They are plain values, and this module needs no torch.

A source is one library or collection of backbones. The names of its backbones begin with its prefix: `timm:resnet50`
would be a backbone of a source with the prefix `timm:`. torchvision's names have no prefix. To add a source, write its
module and add a line to SOURCES. The table only names modules. This module imports a source's specs when a name with
its prefix is looked up, and `harness.model.backbones` imports its models.
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

    specs: str  # module with SPECS, a mapping from names to BackboneSpec; it must not import torch
    source: str  # module with SOURCE, a BackboneSource; may be the same module if only its functions import torch


SOURCES: dict[str, SourceEntry] = {  # by the prefix of the names
    "": SourceEntry("harness.model.torchvision_specs", "harness.model.torchvision_source")
}

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Mean and standard deviation of each colour channel, for pixels in [0, 1]: (x - mean) / std."""

    mean: Triple
    std: Triple


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class OfficialWeights(NamedTuple):
    """Weights that a backbone's library publishes, and the transform they were evaluated with."""

    name: str  # such as `ResNet50_Weights.IMAGENET1K_V2`
    resize: int  # pixels of the shorter side before the crop
    size: int  # pixels a side of the centre crop
    interpolation: str  # bilinear or bicubic, with antialiasing
    normalisation: Normalisation
    licence: str = ""

    @property
    def transform(self) -> str:
        """The transform in words."""
        return f"resize to {self.resize} px ({self.interpolation}), centre crop of {self.size} px"


@dataclass(frozen=True)
class Cost:
    """Costs of one image at the native size, without the head. A multiply-add counts as two FLOPs."""

    parameters: tuple[int, ...]  # of each stage, stem first
    forward: tuple[int, ...]  # FLOPs of each stage
    backward: tuple[int, ...]  # FLOPs at each depth, 0 (the head alone) to 5
    batchnorm_layers: int

    @property
    def gflops(self) -> float:
        """Return the cost of one forward pass in 1e9 FLOPs."""
        return sum(self.forward) / 1e9

    def parameter_share(self, depth: int) -> float:
        """Return the share of the backbone's parameters in its last `depth` stages, in [0, 1]."""
        return sum(self.parameters[DEPTH_MAX - depth :]) / sum(self.parameters)

    def backward_share(self, depth: int) -> float:
        """Return the FLOPs of the backward pass at this depth as a share of those at full depth, in [0, 1]."""
        return self.backward[depth] / self.backward[-1]


@dataclass(frozen=True)
class BackboneSpec:
    """What is known about a backbone without building it. Sizes are pixels a side; images are square."""

    name: str  # as in a study file, with the prefix of its source
    family: str  # members of a family have the same structure
    native_size: int  # size at which the official weights were evaluated
    min_size: int  # size of the smallest image that the network accepts
    multiple_of: int  # a size must be a multiple of this; 1 means any size
    normalisation: Normalisation  # of the default weights; also used for random weights and a user's checkpoint
    official_weights: str  # the name that the source gives to its default weights
    licence: str  # of the official weights
    has_batchnorm: bool
    has_random_layers: bool  # dropout or stochastic depth with a probability above zero
    feature_dim: int  # length of the feature vector that the head reads
    weights: tuple[OfficialWeights, ...] = ()  # all of its library, if they can be named; else only the default ones
    cost: Cost | None = None  # None: it is in costs.json, as for torchvision's backbones

    @property
    def mean(self) -> Triple:
        return self.normalisation.mean

    @property
    def std(self) -> Triple:
        return self.normalisation.std

    def fits(self, size: int) -> bool:
        """Return whether the network accepts images of `size` pixels a side."""
        return size >= self.min_size and size % self.multiple_of == 0

    @property
    def sizes(self) -> str:
        """Return a description of the sizes that the network accepts."""
        if self.multiple_of > 1:
            return f"a multiple of {self.multiple_of} px"
        return f"at least {self.min_size} px"


def source_entry(name: str) -> SourceEntry:
    """Return the line of SOURCES for the prefix of a backbone's name.

    Raises:
        ConfigError: no source has this prefix.
    """
    before, colon, _ = name.partition(":")
    prefix = f"{before}:" if colon else ""
    if prefix not in SOURCES:
        known = ", ".join(prefix for prefix in SOURCES if prefix) or "none"
        raise ConfigError(
            f"the prefix of a backbone's name must be that of a source (there are: {known}), but got {name!r}"
        )
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
        ConfigError: there is no such backbone; the message names those with a similar name, or all of them.
    """
    specs = _specs(source_entry(name))
    if name in specs:
        return specs[name]
    names = list(backbone_specs())
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(names)}."
    raise ConfigError(f"backbone must be one of the {len(names)} known backbones, but got {name!r}; {hint}")


def check_image_size(name: str, size: int) -> None:
    """Check that the backbone accepts images of `size` pixels a side.

    Raises:
        ConfigError: it does not, or there is no such backbone.
    """
    spec = backbone_spec(name)
    if not spec.fits(size):
        raise ConfigError(
            f"image_size must be {spec.sizes} for {name}, but got {size}; "
            f"with `native` it is {spec.native_size}, the size of its official weights."
        )
