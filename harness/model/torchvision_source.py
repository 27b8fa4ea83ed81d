"""torchvision's classifiers as a source of backbones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from harness.model import torchvision_models, torchvision_weights
from harness.model.backbones import BackboneSource, Step
from harness.model.torchvision_specs import SPECS


class TorchvisionSource:
    """The source of torchvision's classifiers. See `harness.model.backbones.BackboneSource` for its methods."""

    def build(self, name: str, image_size: int) -> nn.Module:
        return torchvision_models.build(SPECS[name], image_size)

    def stages(self, model: nn.Module, name: str) -> Mapping[str, nn.Module]:
        return torchvision_models.stages(model, SPECS[name])

    def head(self, model: nn.Module, name: str) -> nn.Module:
        return torchvision_models.head(model, SPECS[name])

    def official_file(self, name: str, weights: str = "") -> Path:
        return torchvision_weights.official_file(name, weights or SPECS[name].official_weights)

    def translate(self, values: Mapping[str, Tensor], name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return torchvision_weights.translate(values, SPECS[name], own)

    def steps(self, module: nn.Module) -> Iterator[Step] | None:
        return torchvision_models.steps(module)

    def is_random(self, layer: nn.Module) -> bool:
        return torchvision_models.is_random(layer)

    def version(self, name: str) -> str:
        return ""  # torch's version stands for both: they are released together


SOURCE: BackboneSource = TorchvisionSource()
