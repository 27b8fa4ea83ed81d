"""Where backbones come from: what a source of backbones must offer, and the one way to ask the source of a name.

The rest of `model/` and `training/` names no library and no family of backbones; it asks these functions.
`harness.config.backbone_specs.SOURCES` is the table of the sources, which a new one is added to.
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

Value = Any  # what one step hands to the next: a tensor, or a list of tensors
Step = tuple[nn.Module | None, Callable[[Value], Value]]  # the module that runs in it, and what it does


class BackboneSource(Protocol):
    """Backbones of one library. A `name` is that of a spec, with the prefix of the source."""

    def build(self, name: str, image_size: int) -> nn.Module:
        """Build the library's own model with random weights, drawn from torch's default generator."""

    def stages(self, model: nn.Module, name: str) -> Mapping[str, nn.Module]:
        """Cut a model from `build` into the stages that `harness.config.trial.STAGES` names, stem first.

        They hold the very modules of the model: to run them in order and then the head is the model's own forward.
        Together with the head they hold every parameter once. No stage writes into its input.
        """

    def head(self, model: nn.Module, name: str) -> nn.Module:
        """Return the model's last layer, which gives way to a new head.

        It is a Linear or a 1x1 convolution, or a Sequential that begins with one of them.
        """

    def official_file(self, name: str) -> Path:
        """Return the file of the official weights, fetched if need be and checked against its hash.

        Raises:
            ConfigError: this backbone has no official weights.
            ResourceError: the file is neither cached nor reachable, or is damaged.
        """

    def translate(self, values: Mapping[str, Tensor], name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a weight file under the names and shapes of `own`, the model's state dict.

        What cannot be translated stays as it is; `harness.model.weights` reports what does not fit.
        """

    def steps(self, module: nn.Module) -> Iterator[Step] | None:
        """Return a module that is too large for one step as a chain of smaller ones; None: it is one step.

        Recalibration of BatchNorm computes the less twice, the smaller the steps are. Containers that run their
        children in order are divided anyway.
        """

    def is_random(self, layer: nn.Module) -> bool:
        """Whether a layer draws random numbers in train mode as stochastic depth does; torch's dropouts are known."""


def source_of(name: str) -> BackboneSource:
    """Return the source of a backbone.

    Raises:
        ConfigError: no source has the prefix of this name.
    """
    return _source(source_entry(name))


def import_default_source() -> None:
    """Import the source of names without a prefix now, so that the first model that is built need not wait for it."""
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
    """Return the five stages of a model from `build_backbone`, stem first; they hold the model's own modules.

    Raises:
        TypeError: the source cuts it into other stages.
    """
    cut = source_of(name).stages(model, name)
    if tuple(cut) != STAGES:
        raise TypeError(f"the stages of {name} must be {', '.join(STAGES)}, but are {', '.join(cut)}")
    return OrderedDict(cut)


def head(model: nn.Module, name: str) -> nn.Module:
    """Return the model's last layer, which gives way to a new head."""
    return source_of(name).head(model, name)
