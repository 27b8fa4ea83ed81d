"""BackboneSpec: what is known about a backbone without building it; and the table of sources of backbones.

A study is checked against the specs before any model is built. They are plain values, and this module needs no torch.

A source is one library or collection of backbones. The names of its backbones begin with its prefix: `timm/resnet50`
is a backbone of the source with the prefix `timm/`. torchvision's names have no prefix. To add a source, write its
module and add a line to SOURCES. The table only names modules. This module imports a source's specs when a name with
its prefix is looked up, and `harness.model.backbones` imports its models.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from harness.config.strategies import DEPTH_MAX
from harness.errors import ConfigError


class SourceEntry(NamedTuple):
    """One line of the table of sources."""

    # Module with SPECS, a mapping from names to BackboneSpec. It must not import torch. The mapping may make a spec
    # when it is asked for it, and raise ConfigError if it knows why a name has none.
    specs: str
    source: str  # module with SOURCE, a BackboneSource; may be the same module if only its functions import torch
    label: str = ""  # what the source is, in words
    package: str = ""  # the package that it needs beside those of every installation
    extra: str = ""  # the extra of this package that installs it
    measured: bool = False  # costs are not stored, but counted when they are first asked for
    runs_code: bool = False  # a name stands for code of the user, which runs only if he gave it: see `permit`


SOURCES: dict[str, SourceEntry] = {  # by the prefix of the names
    "": SourceEntry("harness.model.torchvision_specs", "harness.model.torchvision_source", "torchvision's classifiers"),
    "timm/": SourceEntry(
        "harness.model.timm_specs",
        "harness.model.timm_source",
        "models of timm",
        package="timm",
        extra="timm",
        measured=True,
    ),
    "own:": SourceEntry(
        "harness.model.own_source", "harness.model.own_source", "functions of yours", measured=True, runs_code=True
    ),
}
_permitted: set[str] = set()  # names of backbones whose code may run in this process
_NEAR = 3  # how many similar names a message lists
_ALL_SHOWN = 100  # a source with more names than this is never listed as a whole

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


def source_prefix(name: str) -> str:
    """Return the prefix of a backbone's name, a key of SOURCES; it is "" for torchvision's backbones.

    Raises:
        ConfigError: no source has this prefix.
    """
    for prefix in SOURCES:
        if prefix and name.startswith(prefix):
            return prefix
    if not any(mark in name for mark in ":/"):
        return ""
    known = ", ".join(prefix for prefix in SOURCES if prefix)
    before = name.replace(":", "/").partition("/")[0]
    near = [f"{prefix}{name[len(before) + 1 :]}" for prefix in SOURCES if prefix[:-1] == before]
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"the prefix of a backbone's name must be that of a source (there are: {known}), but got {name!r}{hint}"
    )


def permit(names: Iterable[str]) -> None:
    """Let the code of these backbones run in this process, because a study file of the user names them.

    Stored studies may be from someone else: reading one never runs the functions that it names.
    """
    _permitted.update(names)


def runs_code(name: str) -> bool:
    """Return whether a backbone's name stands for code of the user."""
    return any(entry.runs_code and name.startswith(prefix) for prefix, entry in SOURCES.items() if prefix)


def source_entry(name: str) -> SourceEntry:
    """Return the line of SOURCES for the prefix of a backbone's name.

    Raises:
        ConfigError: no source has this prefix, the package that the source needs is not installed, or the backbone is
            code of the user and no study file of his names it.
    """
    entry = SOURCES[source_prefix(name)]
    if entry.runs_code and name not in _permitted and name not in SOURCES:
        raise ConfigError(
            f"{name} names code, which runs only for a study file of yours; a stored study does not run it. "
            "Run `harness study` with a file that names it."
        )
    if not is_installed(entry):
        raise ConfigError(
            f"the backbone {name} needs the package {entry.package}, which is not installed; "
            f"install it with: pip install 'finetune-harness[{entry.extra}]'"
        )
    return entry


def is_installed(entry: SourceEntry) -> bool:
    """Return whether the package that a source needs is installed. It is not imported."""
    return not entry.package or find_spec(entry.package) is not None


def _specs(entry: SourceEntry) -> Mapping[str, BackboneSpec]:
    specs: Mapping[str, BackboneSpec] = import_module(entry.specs).SPECS
    return specs


def backbone_specs(prefix: str = "") -> Mapping[str, BackboneSpec]:
    """Return the specs of the source with this prefix by name, in the order of the source.

    A source of many backbones makes each spec when it is looked up: iterate over the names only, if these are enough.

    Raises:
        ConfigError: the package that the source needs is not installed.
    """
    return _specs(source_entry(prefix))


def backbone_spec(name: str) -> BackboneSpec:
    """Return the spec of a backbone.

    Raises:
        ConfigError: there is no such backbone; the message names those with a similar name, or all of a small source.
            Or the source cannot use it; the message says why.
    """
    prefix = source_prefix(name)
    specs = _specs(source_entry(name))
    if name in specs:
        return specs[name]
    names = list(specs)
    near = difflib.get_close_matches(name, names, n=_NEAR, cutoff=0.6) + _elsewhere(name)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) <= _ALL_SHOWN:
        hint = f"they are {', '.join(names)}."
    else:
        hint = f"`harness backbones --source {prefix.rstrip('/:')}` lists them."
    known = "known backbones" if not prefix else f"backbones of {prefix.rstrip('/:')}"
    raise ConfigError(f"backbone must be one of the {len(names)} {known}, but got {name!r}; {hint}")


def _elsewhere(name: str) -> list[str]:
    """Return the names of other installed sources that are this name with their prefix."""
    found = []
    for prefix, entry in SOURCES.items():
        if prefix.endswith("/") and not name.startswith(prefix) and is_installed(entry):
            specs = _specs(entry)
            found += [f"{prefix}{name}"] if f"{prefix}{name}" in specs else []
    return found


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
