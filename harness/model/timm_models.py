"""timm's models, each divided into the same five stages and a head.

A model is a chain of units: its own modules, in the order in which its forward runs them, and pieces of it that run one
of its own methods. Running the units in order and then the head is the model's forward. timm's group matcher says which
parameters belong together, and its feature info where the resolution halves; both decide at which units a stage ends.

The families are vision transformers, those with rotary positions (EVA-02, DINOv3), ResNets, ConvNeXts, EfficientNets
(with MobileNetV2, MNASNet and others of their class), MobileNetV3s and Swins. A model of another class is refused.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import DropBlock2d, DropPath, PatchDropout, PatchDropoutWithIndices, SwiGLUPacked
from timm.models import (
    Eva,
    ResNet,
    SwinTransformer,
    SwinTransformerV2,
    VisionTransformer,
    convnext,
    get_deprecated_models,
    get_pretrained_cfg,
    group_parameters,
    is_model,
    list_models,
    list_pretrained,
    mobilenetv3,
)
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from harness.config.backbone_specs import BackboneSpec, Normalisation, OfficialWeights
from harness.config.trial import STAGES
from harness.errors import ConfigError
from harness.model.timm_names import PREFIX, TimmName, parse

CLASSES = 1000  # of the library's head, which is replaced; some of timm's own heads have none, others 21,841
SMALL_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # tried to find the smallest image that a network accepts
RANDOM = (DropPath, DropBlock2d, PatchDropout, PatchDropoutWithIndices)
Units = list[tuple[str, nn.Module]]  # the path or name of each, and the module


class Piece(nn.Module):
    """Some members of a model, and a function that runs a part of the model's forward with them.

    The function gets a shallow copy of the model in which all other modules, parameters and buffers are None, so that
    it can call the model's own methods. The tensors are the model's own.
    """

    def __init__(self, model: nn.Module, members: Sequence[str], run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        part = copy.copy(model)
        for kind in ("_modules", "_parameters", "_buffers"):
            kept = {name: value if name in members else None for name, value in getattr(model, kind).items()}
            part.__dict__[kind] = kept
        self.part = part
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self.part, x)


class RotaryBlock(nn.Module):
    """A transformer block with the rotary positions of the image size that the model was built for."""

    def __init__(self, block: nn.Module, positions: Tensor | None) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(x, rope=self.positions)
        return result


def _tokens(part: Any, x: Tensor) -> Tensor:
    result: Tensor = part.norm_pre(part.patch_drop(part._pos_embed(part.patch_embed(x))))
    return result


def _rotary_tokens(part: Any, x: Tensor) -> Tensor:
    tokens, _ = part._pos_embed(part.patch_embed(x))
    result: Tensor = part.norm_pre(tokens)
    return result


def _pooled_tokens(part: Any, x: Tensor) -> Tensor:
    result: Tensor = part.forward_head(part.norm(x), pre_logits=True)
    return result


def _before_classifier(part: Any, x: Tensor) -> Tensor:
    result: Tensor = part(x, pre_logits=True)
    return result


_TOKENS = ("patch_embed", "cls_token", "reg_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre")
_POOLING = ("norm", "attn_pool", "fc_norm", "head_drop")


def _vit(model: Any) -> Units:
    blocks = [(f"blocks.{i}", block) for i, block in enumerate(model.blocks)]
    return [("tokens", Piece(model, _TOKENS, _tokens)), *blocks, ("pooling", Piece(model, _POOLING, _pooled_tokens))]


def _eva(model: Any) -> Units:
    rope, positions = model.rope, None
    if rope is not None:
        if list(rope.parameters()):
            raise TypeError("its blocks share rotary positions that train, which would lie in several stages")
        if getattr(rope, "aug_active", False):
            raise TypeError("its rotary positions are random in train mode, and the same for all blocks")
        with torch.no_grad():
            positions = rope.get_embed(shape=model.patch_embed.grid_size).detach().clone()
    blocks = [
        (f"blocks.{i}", RotaryBlock(block, None if positions is None else positions.clone()))
        for i, block in enumerate(model.blocks)
    ]
    if getattr(model, "patch_drop", None) is not None:
        raise TypeError("it drops patches and their positions together in train mode")
    tokens = Piece(model, _TOKENS, _rotary_tokens)
    return [("tokens", tokens), *blocks, ("pooling", Piece(model, _POOLING, _pooled_tokens))]


def _children(model: nn.Module, path: str) -> Units:
    return [(f"{path}.{name}", child) for name, child in model.get_submodule(path).named_children()]


def _named(model: nn.Module, *paths: str) -> Units:
    return [(path, model.get_submodule(path)) for path in paths]


def _dropout(model: Any) -> Units:
    return [("dropout", nn.Dropout(model.drop_rate))] if model.drop_rate else []


def _resnet(model: Any) -> Units:
    layers = ("layer1", "layer2", "layer3", "layer4")
    return [*_named(model, "conv1", "bn1", "act1", "maxpool", *layers, "global_pool"), *_dropout(model)]


def _pooling_head(model: Any, *before: str) -> Units:
    """Return the last units of a model whose `head` pools, normalises and classifies."""
    members = [name for name, _ in model.head.named_children() if name != "fc"]
    return [*_named(model, *before), ("pooling", Piece(model.head, members, _before_classifier))]


def _convnext(model: Any) -> Units:
    return [*_named(model, "stem"), *_children(model, "stages"), *_pooling_head(model, "norm_pre")]


def _swin(model: Any) -> Units:
    return [*_named(model, "patch_embed"), *_children(model, "layers"), *_pooling_head(model, "norm")]


def _efficientnet(model: Any) -> Units:
    last = _named(model, "conv_head", "bn2", "global_pool")
    return [*_named(model, "conv_stem", "bn1"), *_children(model, "blocks"), *last, *_dropout(model)]


def _mobilenet_v3(model: Any) -> Units:
    last = _named(model, "global_pool", "conv_head", "norm_head", "act2", "flatten")
    return [*_named(model, "conv_stem", "bn1"), *_children(model, "blocks"), *last, *_dropout(model)]


class Family(NamedTuple):
    """Models of one class."""

    label: str
    units: Callable[[Any], Units]
    modules: tuple[str, ...]  # of timm, in which most of them are defined
    fixed: bool = False  # built for one image size
    step: int | None = None  # sizes must be a multiple of this many pixels; None: of the patch size


FAMILIES: dict[type[nn.Module], Family] = {
    VisionTransformer: Family("vision transformers", _vit, ("vision_transformer", "deit"), fixed=True),
    Eva: Family("vision transformers with rotary positions", _eva, ("eva",), fixed=True),
    ResNet: Family("ResNets", _resnet, ("resnet", "resnest", "sknet"), step=1),
    convnext.ConvNeXt: Family("ConvNeXts", _convnext, ("convnext",), step=1),
    EfficientNet: Family("EfficientNets", _efficientnet, ("efficientnet",), step=1),
    mobilenetv3.MobileNetV3: Family("MobileNetV3s", _mobilenet_v3, ("mobilenetv3", "hardcorenas"), step=1),
    SwinTransformer: Family("Swins", _swin, ("swin_transformer",), fixed=True, step=32),
    SwinTransformerV2: Family("Swins V2", _swin, ("swin_transformer_v2",), fixed=True, step=32),
}


def is_fixed(family: str) -> bool:
    """Return whether models of this family, that of a spec, are built for one image size."""
    return any(entry.fixed and family == f"{PREFIX}{kind.__name__}" for kind, entry in FAMILIES.items())


def names() -> list[str]:
    """Return timm's names of the models in the modules of the supported families, without tags.

    A few of them are of another class; looking their spec up says so.
    """
    modules = [module for family in FAMILIES.values() for module in family.modules]
    return list(list_models(module=modules))


def is_known(model: str) -> bool:
    """Return whether timm has a model of this name, and weights of its tag if it has one."""
    arch, dot, _ = model.partition(".")
    return bool(is_model(arch)) and (not dot or model in list_pretrained(f"{arch}.*"))


def _family(model: nn.Module, name: str) -> Family:
    if type(model) not in FAMILIES:
        labels = ", ".join(dict.fromkeys(family.label for family in FAMILIES.values()))
        raise ConfigError(
            f"{name} must be of a timm family that can be divided into five stages ({labels}), but it is a "
            f"{type(model).__name__}; a function of yours can divide it: own:package.module:function."
        )
    return FAMILIES[type(model)]


def _create(name: str, image_size: int | None) -> nn.Module:
    """Build the model with random weights; None is its native size.

    Raises:
        ConfigError: timm refuses the arguments.
    """
    wanted = parse(name)
    options = dict(wanted.arguments)
    if options.pop("swiglu", False):
        options |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    if image_size is not None:
        options["img_size"] = image_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm warns of old names and of features that a user cannot choose here
            model: nn.Module = timm.create_model(wanted.model, pretrained=False, num_classes=CLASSES, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError, KeyError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"timm cannot build {name}: {why}") from error
    return model


def build(name: str, image_size: int, *, fixed: bool) -> nn.Module:
    """Build the model with random weights. `fixed` is that of its family."""
    return _create(name, image_size if fixed else None)


def _sizes(model: nn.Module, family: Family, name: str) -> tuple[int, int]:
    """Return the smallest image size and the number of which every size is a multiple, in pixels."""
    if family.fixed:
        step = family.step or int(model.get_submodule("patch_embed").feat_ratio())  # type: ignore[operator]
        return step, step
    for size in SMALL_SIZES:
        try:
            with torch.no_grad():
                model(torch.empty(1, 3, size, size, device="meta"))
        except RuntimeError:
            continue
        return size, 1
    raise ConfigError(f"{name} must accept images of at most {SMALL_SIZES[-1]} px, but it does not.")


def describe(name: str) -> BackboneSpec:
    """Return the spec of a model, from timm's description of its weights and a model without values.

    Raises:
        ConfigError: the model cannot be used; the message says why.
    """
    wanted = parse(name)
    deprecated = get_deprecated_models()
    if wanted.model in deprecated:
        now = deprecated[wanted.model]
        raise ConfigError(f"{name} has another name today: {PREFIX}{now}." if now else f"timm has no {name} any more.")
    config = get_pretrained_cfg(wanted.model)
    channels, height, width = config.input_size if config is not None else (3, 224, 224)
    if channels != 3 or height != width:
        raise ConfigError(
            f"{name} must take square images of 3 channels, but it takes {channels} x {height} x {width}."
        )
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = _create(name, None).eval()
        family = _family(model, name)
        smallest, step = _sizes(model, family, name)
    try:
        divide(model)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be divided into five stages: {error}.") from error
    tracked = [
        layer
        for layer in model.modules()
        if "running_var" in layer._buffers and not isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
    if tracked:
        raise ConfigError(f"{name} has running statistics in {type(tracked[0]).__name__}, which no policy knows.")
    return BackboneSpec(
        name=name,
        family=f"{PREFIX}{type(model).__name__}",
        native_size=height,
        min_size=smallest,
        multiple_of=step,
        normalisation=_normalisation(config),
        official_weights=_official(wanted, config),
        licence=(config.license if config is not None else None) or "unknown",
        has_batchnorm=any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()),
        has_random_layers=any(_draws(layer) for stage in divide(model).values() for layer in stage.modules()),
        feature_dim=head(model).in_features,
        weights=_transforms(_official(wanted, config), config),
    )


def _transforms(weights: str, config: Any) -> tuple[OfficialWeights, ...]:
    """Return what timm's own transform for evaluation does; () if it is another one than resize and centre crop."""
    if config is None or config.crop_mode != "center" or config.interpolation not in ("bilinear", "bicubic"):
        return ()
    size = config.input_size[1]
    shorter = math.floor(size / config.crop_pct)
    return (OfficialWeights(weights, shorter, size, config.interpolation, _normalisation(config)),)


def _normalisation(config: Any) -> Normalisation:
    mean, std = (config.mean, config.std) if config is not None else ((0.5,) * 3, (0.5,) * 3)
    return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _official(wanted: TimmName, config: Any) -> str:
    """Return the name of the default weights with their tag, or `none`."""
    if config is None or not config.has_weights or wanted.arguments:
        return "none"
    return f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)


def head(model: nn.Module) -> nn.Linear:
    """Return the model's classifier.

    Raises:
        TypeError: it is not one Linear.
    """
    classifier = model.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear):
        raise TypeError(f"its classifier is not one linear layer, but a {type(classifier).__name__}")
    return classifier


def divide(model: nn.Module) -> OrderedDict[str, nn.Module]:
    """Return the five stages of a model of a supported family, stem first.

    Raises:
        TypeError: the structure of this model is another one than that of its family; the message says how.
    """
    head(model)
    units = FAMILIES[type(model)].units(model)
    groups = group_parameters(model, model.group_matcher(coarse=True), reverse=True)  # type: ignore[operator]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ids = [[groups[names[id(parameter)]] for parameter in unit.parameters()] for _, unit in units]
    ends = _ends([path for path, _ in units], ids, model.feature_info)
    starts = [0, *ends]
    parts = [units[a:b] for a, b in zip(starts, [*ends, len(units)], strict=True)]
    _check(parts, groups, names, model)
    return OrderedDict(
        (stage, nn.Sequential(OrderedDict((path.replace(".", "_"), unit) for path, unit in part)))
        for stage, part in zip(STAGES, parts, strict=True)
    )


def _ends(paths: list[str], ids: list[list[int]], features: Any) -> list[int]:
    """Return the index of the unit after the last one of the stem and of stages 1 to 3.

    If the resolution never halves after the stem, the stages are quarters of the blocks. Otherwise a stage ends where
    timm's feature info ends one; the stem also contains the rest of timm's first group.

    Args:
        paths: of the units.
        ids: for each unit, the numbers of timm's groups of its parameters.
        features: the model's feature info.
    """
    modules = [info["module"] for info in features]
    if len({info["reduction"] for info in features}) == 1:
        blocks = [i for i, path in enumerate(paths) if path in modules]
        if len(blocks) < len(STAGES) - 1:
            raise TypeError(f"it has {len(blocks)} blocks for {len(STAGES) - 1} stages")
        n = len(blocks)
        return [blocks[0], blocks[n // 4], blocks[n // 2], blocks[3 * n // 4]]
    if len(modules) not in (4, 5) or not set(modules) <= set(paths):
        raise TypeError(f"timm's feature info has other stages than the model: {', '.join(modules)}")
    stem = max(i for i, own in enumerate(ids) if own and max(own) == 0) + 1
    if len(modules) == 5:
        stem = max(stem, paths.index(modules[0]) + 1)
    while stem < len(ids) and not ids[stem]:
        stem += 1  # such as the pooling after the first convolution
    return [stem, *(paths.index(module) + 1 for module in modules[-4:-1])]


def _check(parts: list[Units], groups: Mapping[str, int], names: Mapping[int, str], model: nn.Module) -> None:
    """Check that the stages follow timm's groups, and that stages and head contain each parameter once."""
    classifier = {id(parameter) for parameter in head(model).parameters()}
    seen: list[int] = []
    reached = -1
    for part in parts:
        here = [id(parameter) for _, unit in part for parameter in unit.parameters()]
        if not here:
            raise TypeError("a stage would have no parameters")
        numbers = {groups[names[parameter]] for parameter in here}
        if min(numbers) < reached:
            raise TypeError("its stages do not follow timm's parameter groups")
        reached = max(numbers)
        seen += here
    if sorted([*seen, *classifier]) != sorted(names):
        lost = [name for key, name in names.items() if key not in seen and key not in classifier]
        raise TypeError(f"parameters lie in no stage or in several: {', '.join(lost[:5]) or 'in several'}")


def _draws(layer: nn.Module) -> bool:
    """Return whether a layer draws random numbers in train mode."""
    return is_random(layer) or (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0)


def is_random(layer: nn.Module) -> bool:
    """Return whether a layer of timm's own draws random numbers in train mode; some of them are off."""
    if not isinstance(layer, RANDOM):
        return False
    probability = getattr(layer, "drop_prob", None)
    return bool((layer.prob if probability is None else probability) or 0)


def model_like(name: str, own: Mapping[str, Tensor], *, fixed: bool, native: int, step: int) -> nn.Module:
    """Return a model without values whose tensors have the shapes of `own`, a state dict of a model from `build`.

    Only its image size is unknown; it is found by trying.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        first = _create(name, native if fixed else None)
        if not fixed:
            return first
        for size in _candidates(own, native, step):
            model = _create(name, size)
            shapes = {key: value.shape for key, value in model.state_dict().items()}
            if all(shapes.get(key) == value.shape for key, value in own.items()):
                return model
        return first


def _candidates(own: Mapping[str, Tensor], native: int, step: int) -> Iterator[int]:
    """Return image sizes, the likely ones first."""
    yield native
    if "pos_embed" in own and own["pos_embed"].ndim == 3:
        tokens = own["pos_embed"].shape[1]
        for prefix in range(17):  # class and register tokens
            side = math.isqrt(max(tokens - prefix, 0))
            if side and side * side == tokens - prefix:
                yield side * step
        return
    yield from range(step, native, step)
