"""The specs of timm's models. Each is made when it is looked up, from timm's own description and a model of shapes.

timm has more than 1,000 models, so that nothing is listed here. Which families can be divided into five stages stands
in `harness.model.timm_models`.
This module does not import torch or timm; looking a name up does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

from harness.config.backbone_specs import BackboneSpec
from harness.model.timm_names import PREFIX, parse


class TimmSpecs(Mapping[str, BackboneSpec]):
    """The specs by name. Iterating gives the names of the supported families and makes no spec.

    A name that timm knows is in the mapping even if its family is not supported: looking it up says so.
    """

    def __getitem__(self, name: str) -> BackboneSpec:
        if not name.startswith(PREFIX):
            raise KeyError(name)
        return _spec(name)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or not name.startswith(PREFIX):
            return False
        from harness.model.timm_models import is_known

        return is_known(parse(name).model)

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


@cache
def _names() -> tuple[str, ...]:
    from harness.model.timm_models import names

    return tuple(f"{PREFIX}{name}" for name in names())


@lru_cache(maxsize=256)
def _spec(name: str) -> BackboneSpec:
    from harness.model.timm_models import describe

    return describe(name)


SPECS = TimmSpecs()
