"""torchvision's classifiers, each divided into the same five stages and a head.

The division is described by data: for each stage, the modules that run in it, in order. A word is the path of a module
(`layer1`), several children of a container (`features[2:4]`) or, after `@`, an operation that the model's own forward
does between its modules. The stages contain the modules of the torchvision model themselves: running the stages in
order and then the head is the same as the model's forward.

The stages follow two rules. A stage ends after the layer that halves the resolution, so that activations between stages
are small. No stage begins with an in-place operation, so that these activations can be kept and reused.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.densenet import _DenseBlock
from torchvision.ops import StochasticDepth

from harness.config.backbone_specs import BackboneSpec
from harness.config.trial import STAGES
from harness.model.backbones import Step, Value


class GlobalMean(nn.Module):
    """The mean over height and width: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean([2, 3])


class HalfScaling(nn.Module):
    """The conversion from ImageNet's normalisation to (x - 0.5) / 0.5, with which Inception's weights were trained.

    Of images with another number of channels, channel j is normalised as colour j mod 3; see `input_channels`.
    """

    def forward(self, x: Tensor) -> Tensor:
        constants = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
        scales = [(std / 0.5, (mean - 0.5) / 0.5) for mean, std in constants]
        channels = [x[:, j] * scales[j % 3][0] + scales[j % 3][1] for j in range(x.shape[1])]
        return torch.stack(channels, dim=1)


class ClassToken(nn.Module):
    """The class token of a sequence: (N, S, D) -> (N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Tokens(nn.Module):
    """From images (N, 3, H, W) to sequences (N, 1 + patches, D): class token and patches, with positions added.

    It contains the parameters of the VisionTransformer it was made from. H and W must be those that the model was built
    for.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.conv_proj = vit.get_submodule("conv_proj")
        self.class_token = vit.get_parameter("class_token")
        self.pos_embedding = vit.get_parameter("encoder.pos_embedding")
        self.dropout = vit.get_submodule("encoder.dropout")

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], dim=1)
        result: Tensor = self.dropout(tokens + self.pos_embedding)
        return result


def _glue(word: str, model: nn.Module) -> nn.Module:
    match word:
        case "flatten":
            return nn.Flatten(1)
        case "pool":
            return nn.AdaptiveAvgPool2d(1)
        case "relu":
            return nn.ReLU(inplace=True)
        case "mean":
            return GlobalMean()
        case "half_scaling":
            return HalfScaling()
        case "tokens":
            return Tokens(model)
        case "class_token":
            return ClassToken()
    raise AssertionError(f"there is no operation @{word}")


@dataclass(frozen=True)
class Cut:
    """The modules of each stage and of the head, in the notation that this file's first lines describe."""

    stem: str
    stage1: str
    stage2: str
    stage3: str
    stage4: str
    head: str


def _vgg(*ends: int) -> Cut:
    """Return the cut of a VGG, which has five blocks; `ends` are the indices in `features` after their poolings."""
    a, b, c, d, e = ends
    last = f"features[{d}:{e}] avgpool @flatten classifier[0:6]"
    return Cut(
        f"features[0:{a}]", f"features[{a}:{b}]", f"features[{b}:{c}]", f"features[{c}:{d}]", last, "classifier[6:]"
    )


def _vit(layers: int) -> Cut:
    """Return the cut of a vision transformer: the stem makes the tokens; other stages are quarters of the blocks."""
    a, b, c = layers // 4, layers // 2, 3 * layers // 4
    blocks = "encoder.layers"
    last = f"{blocks}[{c}:] encoder.ln @class_token"
    return Cut("@tokens", f"{blocks}[:{a}]", f"{blocks}[{a}:{b}]", f"{blocks}[{b}:{c}]", last, "heads.head")


# By family, or by backbone if the members of a family differ.
CUTS: dict[str, Cut] = {
    "alexnet": Cut(
        stem="features[0:3]",
        stage1="features[3:6]",
        stage2="features[6:8]",
        stage3="features[8:10]",
        stage4="features[10:] avgpool @flatten classifier[0:6]",
        head="classifier[6:]",
    ),
    "convnext": Cut(
        stem="features[0:1]",
        stage1="features[1:2]",
        stage2="features[2:4]",
        stage3="features[4:6]",
        stage4="features[6:] avgpool classifier[0:2]",
        head="classifier[2:]",
    ),
    "densenet": Cut(
        stem="features[0:4]",
        stage1="features.denseblock1 features.transition1",
        stage2="features.denseblock2 features.transition2",
        stage3="features.denseblock3 features.transition3",
        stage4="features.denseblock4 features.norm5 @relu @pool @flatten",
        head="classifier",
    ),
    "efficientnet": Cut(
        stem="features[0:2]",
        stage1="features[2:3]",
        stage2="features[3:4]",
        stage3="features[4:6]",
        stage4="features[6:] avgpool @flatten classifier[0:1]",
        head="classifier[1:]",
    ),
    "googlenet": Cut(
        stem="@half_scaling conv1 maxpool1 conv2 conv3 maxpool2",
        stage1="inception3a inception3b maxpool3",
        stage2="inception4a inception4b inception4c",
        stage3="inception4d inception4e maxpool4",
        stage4="inception5a inception5b avgpool @flatten dropout",
        head="fc",
    ),
    "inception": Cut(
        stem="@half_scaling Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2",
        stage1="Mixed_5b Mixed_5c Mixed_5d",
        stage2="Mixed_6a Mixed_6b Mixed_6c",
        stage3="Mixed_6d Mixed_6e",
        stage4="Mixed_7a Mixed_7b Mixed_7c avgpool dropout @flatten",
        head="fc",
    ),
    "maxvit": Cut(
        stem="stem",
        stage1="blocks[0:1]",
        stage2="blocks[1:2]",
        stage3="blocks[2:3]",
        stage4="blocks[3:] classifier[0:5]",
        head="classifier[5:]",
    ),
    "mnasnet": Cut(
        stem="layers[0:8]",
        stage1="layers[8:9]",
        stage2="layers[9:10]",
        stage3="layers[10:12]",
        stage4="layers[12:] @mean classifier[0:1]",
        head="classifier[1:]",
    ),
    "mobilenet_v2": Cut(
        stem="features[0:2]",
        stage1="features[2:4]",
        stage2="features[4:7]",
        stage3="features[7:14]",
        stage4="features[14:] @pool @flatten classifier[0:1]",
        head="classifier[1:]",
    ),
    "mobilenet_v3_large": Cut(
        stem="features[0:2]",
        stage1="features[2:4]",
        stage2="features[4:7]",
        stage3="features[7:13]",
        stage4="features[13:] avgpool @flatten classifier[0:3]",
        head="classifier[3:]",
    ),
    "mobilenet_v3_small": Cut(
        stem="features[0:1]",
        stage1="features[1:2]",
        stage2="features[2:4]",
        stage3="features[4:9]",
        stage4="features[9:] avgpool @flatten classifier[0:3]",
        head="classifier[3:]",
    ),
    "regnet": Cut(
        stem="stem",
        stage1="trunk_output.block1",
        stage2="trunk_output.block2",
        stage3="trunk_output.block3",
        stage4="trunk_output.block4 avgpool @flatten",
        head="fc",
    ),
    "resnet": Cut(
        stem="conv1 bn1 relu maxpool",
        stage1="layer1",
        stage2="layer2",
        stage3="layer3",
        stage4="layer4 avgpool @flatten",
        head="fc",
    ),
    # The model has three stages, and the long middle one is divided. conv5 is one layer, too small for a stage.
    "shufflenet": Cut(
        stem="conv1 maxpool",
        stage1="stage2",
        stage2="stage3[0:4]",
        stage3="stage3[4:]",
        stage4="stage4 conv5 @mean",
        head="fc",
    ),
    # Each stage has two of the eight Fire modules. The head is a convolution whose outputs are averaged.
    "squeezenet1_0": Cut(
        stem="features[0:3]",
        stage1="features[3:5]",
        stage2="features[5:8]",
        stage3="features[8:10]",
        stage4="features[10:] classifier[0:1]",
        head="classifier[1:] @flatten",
    ),
    "squeezenet1_1": Cut(
        stem="features[0:3]",
        stage1="features[3:6]",
        stage2="features[6:9]",
        stage3="features[9:11]",
        stage4="features[11:] classifier[0:1]",
        head="classifier[1:] @flatten",
    ),
    "swin": Cut(
        stem="features[0:1]",
        stage1="features[1:2]",
        stage2="features[2:4]",
        stage3="features[4:6]",
        stage4="features[6:] norm permute avgpool flatten",
        head="head",
    ),
    "vgg11": _vgg(3, 6, 11, 16, 21),
    "vgg11_bn": _vgg(4, 8, 15, 22, 29),
    "vgg13": _vgg(5, 10, 15, 20, 25),
    "vgg13_bn": _vgg(7, 14, 21, 28, 35),
    "vgg16": _vgg(5, 10, 17, 24, 31),
    "vgg16_bn": _vgg(7, 14, 24, 34, 44),
    "vgg19": _vgg(5, 10, 19, 28, 37),
    "vgg19_bn": _vgg(7, 14, 27, 40, 53),
    "vit_b_16": _vit(12),
    "vit_b_32": _vit(12),
    "vit_l_16": _vit(24),
    "vit_l_32": _vit(24),
    "vit_h_14": _vit(32),
}


def build(spec: BackboneSpec, image_size: int) -> nn.Module:
    """Build the torchvision model with random weights and its own 1,000-class head, but without auxiliary heads.

    Args:
        image_size: pixels a side; it matters only for ViT and MaxViT, which are built for one size.
    """
    family = spec.family
    options: dict[str, object] = {}
    if family in ("googlenet", "inception"):
        # The official weights expect inputs in (x - 0.5) / 0.5. Other weights too, so that a name means one network.
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    elif family == "vit":
        options = {"image_size": image_size}
    elif family == "maxvit":
        options = {"input_size": (image_size, image_size)}
    model: nn.Module = get_model(spec.name, weights=None, **options)
    return model


def _modules(words: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return the modules that `words` name, each with a unique name: its path, with _ instead of dots."""
    for word in words.split():
        if word.startswith("@"):
            yield word[1:], _glue(word[1:], model)
            continue
        found = re.fullmatch(r"([\w.]+)(?:\[(\d*):(\d*)\])?", word)
        if found is None:
            raise AssertionError(f"this is not a module path: {word}")
        path, first, last = found.groups()
        module = model.get_submodule(path)
        label = path.replace(".", "_")
        if first is None:
            yield label, module
            continue
        children = list(module.named_children())
        for child, part in children[slice(int(first or 0), int(last) if last else None)]:
            yield f"{label}_{child}", part


def _cut(spec: BackboneSpec) -> Cut:
    return CUTS[spec.name] if spec.name in CUTS else CUTS[spec.family]


def stages(model: nn.Module, spec: BackboneSpec) -> OrderedDict[str, nn.Module]:
    """Return the five stages of a model from `build`, stem first; each is a Sequential of the model's own modules."""
    cut = _cut(spec)
    return OrderedDict((stage, nn.Sequential(OrderedDict(_modules(getattr(cut, stage), model)))) for stage in STAGES)


def head(model: nn.Module, spec: BackboneSpec) -> nn.Module:
    """Return the model's last layer: a Linear, or for SqueezeNet a Sequential that begins with a convolution."""
    parts = OrderedDict(_modules(_cut(spec).head, model))
    return next(iter(parts.values())) if len(parts) == 1 else nn.Sequential(parts)


def steps(module: nn.Module) -> Iterator[Step] | None:
    """Return a DenseNet block as one step for each layer, because it has up to 96 BatchNorm layers; None for others."""
    return _dense_block(module) if isinstance(module, _DenseBlock) else None


def is_random(layer: nn.Module) -> bool:
    """Return whether a layer is a stochastic depth that may skip its block."""
    return isinstance(layer, StochasticDepth) and bool(layer.p > 0)


def _dense_block(block: nn.Module) -> Iterator[Step]:
    def appending(layer: nn.Module) -> Callable[[Value], Value]:
        return lambda features: [*features, layer(features)]

    yield None, lambda x: [x]
    for layer in block.children():
        yield layer, appending(layer)
    yield None, lambda features: torch.cat(features, 1)
