"""TransferModel: a backbone in five stages, with a head for the user's own classes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.config.backbone_specs import backbone_spec, check_image_size
from harness.config.batchnorm_policy import POLICIES, BatchNormPolicy
from harness.config.initial_weights import Weights
from harness.config.parameters import PARAMETERS, Head, HeadInit
from harness.config.trial import STAGES
from harness.errors import ConfigError
from harness.model import backbones, input_channels
from harness.model import weights as weight_files

backbones.import_default_source()  # here, so that the import does not count as time of a worker's first trial

BATCHNORM = nn.modules.batchnorm._BatchNorm


class TransferModel(nn.Module):
    """A model of `stages`, from the stem to the last block, and a `head` that gives (N, num_classes) logits.

    `harness.model.freezing` decides which parameters train. `harness.model.batchnorm.apply_policy` decides how the
    layers behave in train mode; the model stores this, so that it stays in effect through every `train()`.
    """

    def __init__(
        self,
        stages: Iterable[tuple[str, nn.Module]],
        head: nn.Module,
        *,
        backbone_name: str,
        num_classes: int,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights_name: str,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(dict(stages))
        self.head = head
        self.backbone_name = backbone_name
        self.num_classes = num_classes
        self.image_size = image_size  # pixels a side that it was built for; most backbones accept other sizes too
        self.mean = mean  # of each channel, of the normalisation that the weights expect
        self.std = std
        self.in_channels = len(mean)  # of the images
        self.weights_name = weights_name
        self.batchnorm_policy: BatchNormPolicy | None = None  # None: train() works as in any torch module
        self.unfrozen: frozenset[str] = frozenset(STAGES)

    def features(self, x: Tensor) -> Tensor:
        """Return the head's inputs, (N, features) or for SqueezeNet (N, features, h, w), of normalised images."""
        return self.run_stages(x, 0, len(self.stages))

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """Run the stages with numbers `first` to `last` - 1 on the input of stage `first`.

        Returns:
            The input of stage `last`. Stage 0 is the stem, whose input is normalised images (N, in_channels, H, W);
            `len(stages)` stands for the head.
        """
        for stage in list(self.stages.values())[first:last]:
            x = stage(x)
        return x

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Return the logits (N, num_classes) of normalised images (N, C, H, W), or of the inputs of stage `first`."""
        logits: Tensor = self.head(self.run_stages(x, first, len(self.stages)))
        return logits

    def train(self, mode: bool = True) -> TransferModel:
        """Set train or eval mode as torch does; in train mode, apply the BatchNorm policy if there is one.

        Frozen stages then stay in eval mode, so that their dropout and stochastic depth are off.
        """
        if not mode or self.batchnorm_policy is None:
            return super().train(mode)
        policy = POLICIES[self.batchnorm_policy]
        self.training = self.stages.training = True
        self.head.train()
        for name, stage in self.stages.items():
            trains = name in self.unfrozen
            by_batch = policy.updates(unfrozen=trains)
            for layer in stage.modules():  # one loop, because several would take noticeable time in every epoch
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
    """Return a head for `num_classes` that replaces `old`, with values from a random generator of its own.

    `linear` is one layer; `mlp` has a hidden layer and a ReLU before it. Values are drawn as torch draws those of a
    Linear: uniform within ± 1 / sqrt(features), layer by layer, first the weight and then the bias. With `head_init`
    zero, the last layer is zero instead. Modules after the old layer stay (SqueezeNet averages its outputs), except a
    ReLU: a logit that it sets to zero for every image would never get a gradient again.
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
    """Return a layer of the same kind with random values, or with zeros if there is no generator."""
    layer: nn.Module
    with torch.random.fork_rng(devices=[]):  # because the constructors use torch's global generator
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
    weights: str | Weights = "none",
    *,
    image_size: int | None = None,
    in_channels: int = input_channels.COLOURS,
    seed: int = 0,
    head: Head = "linear",
    head_hidden: int = PARAMETERS["head_hidden"].default,
    head_dropout: float = 0.0,
    head_init: HeadInit = "default",
) -> TransferModel:
    """Build a pretrained or random backbone with a new head. The same arguments give the same values, bit for bit.

    The head's values depend only on `seed` and its shape, and not on random numbers for the backbone. torch's global
    generators are restored. All parameters train until `harness.model.freezing` freezes some.

    Args:
        backbone: one of `harness.config.backbone_specs.backbone_specs`.
        num_classes: 2 or more.
        weights: `bundled`, `imagenet`, the name of torchvision weights, `none` (random, drawn from `seed`) or the path
            of a checkpoint.
        image_size: pixels a side; needed for ViT and MaxViT, which are built for one size. None is the native size.
        in_channels: channels of the images, 1 or more; the stem is adapted by `harness.model.input_channels`.
        seed: of the head, and of the backbone if its weights are random.
        head: `linear` or `mlp`, whose hidden layer has `head_hidden` units and a ReLU.
        head_dropout: probability in [0, 1) before each layer of the head.
        head_init: values of its last layer: `default` (as torch draws them) or `zero`, which gives all classes the same
            probability at first.

    Raises:
        ConfigError: there is no such backbone, it does not accept the size or the channels, or the weights do not fit
            it.
        ResourceError: official weights are neither cached nor reachable.
    """
    spec = backbone_spec(backbone)
    if num_classes < 2:
        raise ConfigError(f"num_classes must be 2 or more, but got {num_classes}.")
    if in_channels < 1:
        raise ConfigError(f"in_channels must be 1 or more, but got {in_channels}.")
    if image_size is not None:
        check_image_size(backbone, image_size)
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would seed the accelerators' generators too
        torch.default_generator.manual_seed(seed)
        network = backbones.build_backbone(backbone, image_size)
    weights_name = weight_files.load(network, backbone, weights)
    normalisation = weight_files.normalisation(weights, backbone)
    mean, std = input_channels.normalisation_of(normalisation, in_channels)
    stages = backbones.stages(network, backbone)
    stages[STAGES[0]] = input_channels.adapt(stages[STAGES[0]], in_channels, normalisation, backbone)
    return TransferModel(
        stages.items(),
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
        image_size=image_size if image_size is not None else spec.native_size,
        mean=mean,
        std=std,
        weights_name=weights_name,
    )
