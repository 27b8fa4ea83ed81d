"""TransferModel: a backbone in five stages with a head for one's own classes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.config.backbone_specs import Triple, backbone_spec, check_image_size
from harness.config.batchnorm_policy import POLICIES, BatchNormPolicy
from harness.config.parameters import PARAMETERS, Head, HeadInit
from harness.config.trial import STAGES
from harness.errors import ConfigError
from harness.model import backbones
from harness.model import weights as weight_files

backbones.import_default_source()  # with this module: a worker's first trial is not to be charged for the import

BATCHNORM = nn.modules.batchnorm._BatchNorm


class TransferModel(nn.Module):
    """`stages` run from the stem (first) to the last block, then the `head` gives (N, num_classes) logits.

    What trains is decided in `harness.model.freezing`. How the layers behave while it trains is decided by
    `harness.model.batchnorm.apply_policy` and kept here, so that it holds through every `train()`.
    """

    def __init__(
        self,
        stages: Iterable[tuple[str, nn.Module]],
        head: nn.Module,
        *,
        backbone_name: str,
        num_classes: int,
        image_size: int,
        mean: Triple,
        std: Triple,
        weights_name: str,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(dict(stages))
        self.head = head
        self.backbone_name = backbone_name
        self.num_classes = num_classes
        self.image_size = image_size  # pixels a side it was built for; most backbones take others too
        self.mean = mean  # of the weights' own normalisation
        self.std = std
        self.weights_name = weights_name
        self.batchnorm_policy: BatchNormPolicy | None = None  # None: nothing is held, as in any torch module
        self.unfrozen: frozenset[str] = frozenset(STAGES)

    def features(self, x: Tensor) -> Tensor:
        """What the head reads: normalised images (N, 3, H, W) -> (N, features), for SqueezeNet (N, features, h, w)."""
        return self.run_stages(x, 0, len(self.stages))

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """The stages from number `first` up to, not including, `last`: what stage `first` reads -> what `last` reads.

        Stages count from 0, the stem; 0 reads normalised images, and `len(stages)` is the head.
        """
        for stage in list(self.stages.values())[first:last]:
            x = stage(x)
        return x

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Normalised images (N, 3, H, W), or what stage `first` reads -> (N, num_classes) logits."""
        logits: Tensor = self.head(self.run_stages(x, first, len(self.stages)))
        return logits

    def train(self, mode: bool = True) -> TransferModel:
        """As torch's, and then the BatchNorm policy; without one, torch's alone.

        Frozen stages stay in eval mode, so that dropout and stochastic depth are off there.
        """
        if not mode or self.batchnorm_policy is None:
            return super().train(mode)
        policy = POLICIES[self.batchnorm_policy]
        self.training = self.stages.training = True
        self.head.train()
        for name, stage in self.stages.items():
            trains = name in self.unfrozen
            by_batch = policy.updates(unfrozen=trains)
            for layer in stage.modules():  # in one walk: at every epoch of every trial three of them would be felt
                wanted = by_batch if isinstance(layer, BATCHNORM) else trains
                if layer.training != wanted:
                    layer.training = wanted
        return self


def new_head(
    old: nn.Module,
    num_classes: int,
    seed: int,
    *,
    head: Head = "linear",
    head_hidden: int = PARAMETERS["head_hidden"].default,
    head_dropout: float = 0.0,
    head_init: HeadInit = "default",
) -> nn.Module:
    """A head in the place of `old` for `num_classes`, its values drawn from a generator of their own.

    `linear` is one layer, `mlp` has a hidden layer and a ReLU before it. Drawn as torch draws a Linear: uniform within
    1 / sqrt(features), layer by layer, weight first, then bias; with `head_init` zero the last layer is not drawn.
    What comes after the old layer stays (SqueezeNet averages its answers), except a ReLU: a logit that it holds at zero
    for every image would never learn again.
    """
    layer, *after = list(old) if isinstance(old, nn.Sequential) else [old]
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise TypeError(f"a head is a Linear or a 1x1 convolution, but got {type(layer).__name__}")
    generator = torch.Generator().manual_seed(seed)
    features = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    parts: OrderedDict[str, nn.Module] = OrderedDict()

    def drop(name: str) -> None:
        if head_dropout > 0:
            parts[name] = nn.Dropout(head_dropout)

    if head == "mlp":
        drop("dropout_in")
        parts["hidden"] = _drawn(layer, features, head_hidden, generator)
        parts["activation"] = nn.ReLU()
        features = head_hidden
    drop("dropout")
    parts["output"] = _drawn(layer, features, num_classes, generator if head_init == "default" else None)
    parts |= {f"after{i}": module for i, module in enumerate(m for m in after if not isinstance(m, nn.ReLU))}
    return parts["output"] if len(parts) == 1 else nn.Sequential(parts)


def _drawn(like: nn.Linear | nn.Conv2d, inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """A layer of the same kind; zeros where there is no generator."""
    layer: nn.Module
    with torch.random.fork_rng(devices=[]):  # the constructors draw, from everyone's generator
        if isinstance(like, nn.Conv2d):
            layer = nn.Conv2d(inputs, outputs, kernel_size=1, bias=like.bias is not None)
        else:
            layer = nn.Linear(inputs, outputs, bias=like.bias is not None)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            if generator is None:
                parameter.zero_()
            else:
                parameter.uniform_(-bound, bound, generator=generator)
    return layer


def build(
    backbone: str,
    num_classes: int,
    weights: str = "none",
    *,
    image_size: int | None = None,
    seed: int = 0,
    head: Head = "linear",
    head_hidden: int = PARAMETERS["head_hidden"].default,
    head_dropout: float = 0.0,
    head_init: HeadInit = "default",
) -> TransferModel:
    """A pretrained (or random) backbone with a new head; the same arguments give the same values, bit for bit.

    The head's values depend on `seed` and its shape alone, not on the backbone's draws, and torch's global generators
    are left as they were. Everything trains until `harness.model.freezing` says otherwise.

    Args:
        backbone: one of `harness.config.backbone_specs.backbone_specs`.
        num_classes: 2 or more.
        weights: `bundled`, `imagenet`, `none` (random, drawn from `seed`) or the path of a checkpoint.
        image_size: pixels a side; needed for ViT and MaxViT, which are built for one size. None is the native size.
        seed: of the head, and of the backbone where the weights are random.
        head: `linear` or `mlp`, whose hidden layer has `head_hidden` units and a ReLU.
        head_dropout: probability in [0, 1) before each layer of the head.
        head_init: of its last layer: `default` (as torch draws it) or `zero`, which begins with equal probabilities.

    Raises:
        ConfigError: no such backbone, a size it cannot take, or weights that do not fit it.
        ResourceError: official weights that are neither cached nor reachable.
    """
    known = backbone_spec(backbone)
    if num_classes < 2:
        raise ConfigError(f"num_classes must be 2 or more, but got {num_classes}.")
    if image_size is not None:
        check_image_size(backbone, image_size)
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would reseed the accelerators too
        torch.default_generator.manual_seed(seed)
        network = backbones.build_backbone(backbone, image_size)
    weights_name = weight_files.load(network, backbone, weights)
    mean, std = weight_files.normalisation(weights, backbone)
    return TransferModel(
        backbones.stages(network, backbone).items(),
        new_head(
            backbones.head(network, backbone),
            num_classes,
            seed,
            head=head,
            head_hidden=head_hidden,
            head_dropout=head_dropout,
            head_init=head_init,
        ),
        backbone_name=backbone,
        num_classes=num_classes,
        image_size=image_size if image_size is not None else known.native_size,
        mean=mean,
        std=std,
        weights_name=weights_name,
    )
