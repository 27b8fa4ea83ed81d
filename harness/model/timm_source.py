"""timm's models as a source of backbones. Only this module, `timm_models` and `timm_weights` import timm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import timm
from torch import Tensor, nn

from harness.model import timm_models, timm_weights
from harness.model.backbones import BackboneSource, Step
from harness.model.timm_specs import SPECS


class TimmSource:
    """The source of timm's models. See `harness.model.backbones.BackboneSource` for its methods."""

    def build(self, name: str, image_size: int) -> nn.Module:
        return timm_models.build(name, image_size, fixed=timm_models.is_fixed(SPECS[name].family))

    def stages(self, model: nn.Module, name: str) -> Mapping[str, nn.Module]:
        return timm_models.divide(model)

    def head(self, model: nn.Module, name: str) -> nn.Module:
        return timm_models.head(model)

    def official_file(self, name: str, weights: str = "") -> Path:
        return timm_weights.official_file(SPECS[name])

    def translate(self, values: Mapping[str, Tensor], name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return timm_weights.translate(values, SPECS[name], own)

    def steps(self, module: nn.Module) -> Iterator[Step] | None:
        return None

    def is_random(self, layer: nn.Module) -> bool:
        return timm_models.is_random(layer)

    def version(self, name: str) -> str:
        return f"timm {timm.__version__}"


SOURCE: BackboneSource = TimmSource()
