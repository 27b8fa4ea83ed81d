"""BackboneSource: the protocol of a source of backbones; and functions that call the source of a given backbone.

The other modules of `model/` and `training/` name no library and no family of backbones; they use these functions. To
add a source, add it to the table `harness.config.backbone_specs.SOURCES`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from harness.config.backbone_specs import SOURCES, SourceEntry, backbone_spec, source_entry
from harness.config.trial import STAGES

Value = Any  # the output of a step and input of the next one: a tensor or a list of tensors
Step = tuple[nn.Module | None, Callable[[Value], Value]]  # the module that runs in the step, and the step's function


class BackboneSource(Protocol):
    """The backbones of one library. A `name` is that of a spec, with the prefix of the source."""

    def build(self, name: str, image_size: int) -> nn.Module:
        """Build the library's own model with random weights, drawn from torch's default generator."""

    def stages(self, model: nn.Module, name: str) -> Mapping[str, nn.Module]:
        """Divide a model from `build` into the stages that `harness.config.trial.STAGES` names, stem first.

        The stages contain the model's own modules: running them in order and then the head is the same as the model's
        forward. Every parameter is in exactly one stage or in the head. No stage writes into its input.
        """

    def head(self, model: nn.Module, name: str) -> nn.Module:
        """Return the model's last layer, which is replaced by a new head.

        It is a Linear or a 1x1 convolution, or a Sequential that begins with one of them.
        """

    def official_file(self, name: str, weights: str = "") -> Path:
        """Return the file of the official weights; download it if necessary, and check its hash.

        Args:
            weights: the name of one of the spec's `weights`; "" means the default ones.

        Raises:
            ConfigError: this backbone has no official weights.
            ResourceError: the file is neither cached nor reachable, or it is damaged.
        """

    def translate(self, values: Mapping[str, Tensor], name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a weight file with the names and shapes of `own`, the model's state dict.

        Tensors that cannot be translated stay unchanged; `harness.model.weights` reports those that do not fit.
        """

    def steps(self, module: nn.Module) -> Iterator[Step] | None:
        """Return a large module as a chain of smaller steps; None if it is one step.

        With smaller steps, the recalibration of BatchNorm computes less twice. Containers that run their children in
        order are always divided and need not be handled here.
        """

    def is_random(self, layer: nn.Module) -> bool:
        """Return whether a layer draws random numbers in train mode, such as stochastic depth.

        torch's dropout layers are handled elsewhere.
        """

    def version(self, name: str) -> str:
        """Return what else decides the values of this backbone: the library's version, or a digest of code; or "".

        Activations of frozen stages are shared between trials only if it is the same.
        """


def source_of(name: str) -> BackboneSource:
    """Return the source of a backbone.

    Raises:
        ConfigError: no source has the prefix of this name.
    """
    return _source(source_entry(name))


def import_default_source() -> None:
    """Import the source of names without a prefix now, so that building the first model does not wait for it."""
    _source(SOURCES[""])


def _source(entry: SourceEntry) -> BackboneSource:
    source: BackboneSource = import_module(entry.source).SOURCE
    return source


def build_backbone(name: str, image_size: int | None = None) -> nn.Module:
    """Build the backbone `name` with random weights and the head of its library.

    Args:
        name: one of `harness.config.backbone_specs.backbone_specs`.
        image_size: pixels a side; some backbones are built for one size. None is the native size.

    Raises:
        ConfigError: there is no backbone of that name.
    """
    spec = backbone_spec(name)
    return source_of(name).build(name, image_size if image_size is not None else spec.native_size)


def stages(model: nn.Module, name: str) -> OrderedDict[str, nn.Module]:
    """Return the five stages of a model from `build_backbone`, stem first; they contain the model's own modules.

    Raises:
        TypeError: the source divides the model into other stages.
    """
    cut = source_of(name).stages(model, name)
    if tuple(cut) != STAGES:
        raise TypeError(f"the stages of {name} must be {', '.join(STAGES)}, but are {', '.join(cut)}")
    return OrderedDict(cut)


def head(model: nn.Module, name: str) -> nn.Module:
    """Return the model's last layer, which is replaced by a new head."""
    return source_of(name).head(model, name)
