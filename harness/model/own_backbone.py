"""Backbone: what a function returns that a study file names as `own:package.module:function`.

It is a module of its own so that the function, the source and its checks can import it without torch or each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.backbone_specs import IMAGENET, Triple

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """What a function of yours returns: a network in five stages and a head, and what is known about it.

    Running the stages in order and then the head is the network. The weights are random ones, drawn from torch's
    default generator; give pretrained ones as a file (`weights: path/to/file`), so that training from scratch is from
    scratch.
    """

    stages: Mapping[str, nn.Module]  # stem, stage1, stage2, stage3, stage4, in this order
    head: nn.Module  # a Linear or a 1x1 convolution, or a Sequential that begins with one; it is replaced
    features: int  # length of the vector that the head reads
    mean: Triple = IMAGENET.mean  # of the pixels in [0, 1] for which the weights were trained
    std: Triple = IMAGENET.std
    native_size: int = 224  # pixels a side at which the weights were trained
    min_size: int = 32
    multiple_of: int = 1  # a size must be a multiple of this; 1 means any size
    model: nn.Module | None = None  # the whole network, if a file of weights has its names for the tensors
    official_weights: Path | None = None  # the file that `weights: imagenet` reads; None: there is none
    licence: str = "own"
