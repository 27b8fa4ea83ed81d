"""A batch in parts, where memory does not hold the whole: which images belong together, and what stays the same.

The views of a batch are drawn and mixed whole, the losses of its parts are divided by what divides the whole batch's
(`Loss.part`), and the optimizer steps, clips and averages once. What a part cannot know of the others is said by
`differences`.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from harness.model.backbones import source_of
from harness.model.transfer import BATCHNORM, TransferModel


def parts(images: int, most: int) -> list[slice]:
    """So many images in as few parts as hold `most` at most; their sizes differ by one at most."""
    count = -(-images // most)
    return [slice(a, b) for a, b in pairwise(images * i // count for i in range(count + 1))]


def differences(model: TransferModel) -> list[str]:
    """Why parts do not give a model, as it stands in train mode, the whole batch's gradients; [] where they do."""
    source = source_of(model.backbone_name)
    training = [layer for layer in model.modules() if layer.training]
    found = []
    if any(isinstance(layer, BATCHNORM) for layer in training):
        found.append("BatchNorm uses the statistics of each micro-batch")
    if any(_is_dropout(layer) or source.is_random(layer) for layer in training):
        found.append("dropout draws other numbers")
    return found


def _is_dropout(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
