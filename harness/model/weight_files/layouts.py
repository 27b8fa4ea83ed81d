"""Layouts: the names that other libraries and older versions give to the tensors of a backbone.

A layout is a function from a name of the file to the backbone's own name; a name that it does not know stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Layout(NamedTuple):
    """One way of naming a backbone's tensors."""

    name: str  # as the report shows it; "" for the names of the backbone's own library
    rename: Callable[[str], str]


_VIT_PARTS = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
_VIT_OUTSIDE = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.weight": "conv_proj.weight",
    "patch_embed.proj.bias": "conv_proj.bias",
    "norm.weight": "encoder.ln.weight",
    "norm.bias": "encoder.ln.bias",
}


def _timm_vit(name: str) -> str:
    """Rename timm's ViT, which DINO, MAE, MoCo v3 and DeiT use. Query, key and value are stacked in the same order."""
    found = re.fullmatch(r"blocks\.(\d+)\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias)", name)
    if found is None:
        return _VIT_OUTSIDE.get(name, name)
    block = f"encoder.layers.encoder_layer_{found[1]}"
    if found[2] == "attn.qkv":
        return f"{block}.self_attention.in_proj_{found[3]}"
    return f"{block}.{_VIT_PARTS[found[2]]}.{found[3]}"


def _old_vit(name: str) -> str:
    """Rename the two layers of a block's MLP in torchvision's files of before 2022."""
    number = {"1": "0", "2": "3"}
    return re.sub(r"\.mlp\.linear_([12])\.", lambda found: f".mlp.{number[found[1]]}.", name)


def _old_densenet(name: str) -> str:
    return re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", name)


_RESNET_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def _numbered_resnet(name: str) -> str:
    """Rename nn.Sequential(*resnet.children()), as which several self-supervised libraries keep their backbone."""
    number, dot, rest = name.partition(".")
    if number.isdecimal() and int(number) < len(_RESNET_CHILDREN):
        return f"{_RESNET_CHILDREN[int(number)]}{dot}{rest}"
    return name


_OWN = Layout("", lambda name: name)
_BY_FAMILY = {
    "vit": (Layout("timm's ViT names", _timm_vit), Layout("torchvision's former ViT names", _old_vit)),
    "densenet": (Layout("torchvision's former DenseNet names", _old_densenet),),
    "resnet": (Layout("the numbers of a Sequential", _numbered_resnet),),
}


def layouts(family: str) -> tuple[Layout, ...]:
    """Return the layouts that files of a family's backbones may have: first that of the backbone's own library."""
    return (_OWN, *_BY_FAMILY.get(family, ()))
