"""Checkpoints as training scripts write them: every layout gives the features of the model that it was saved from."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.vision_transformer import VisionTransformer

from harness.errors import ConfigError
from harness.model import backbones, weights
from harness.model.weight_files.layouts import layouts
from harness.model.weight_files.match import Match, Wanted, match
from harness.model.weight_files.read import CONVERT, Entry, read

State = dict[str, Tensor]


def drawn(model: nn.Module, seed: int) -> State:
    """A state dict with every tensor drawn anew, so that none is what another model would have, too."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=generator) * 0.2 + 0.01 if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def states() -> tuple[State, State]:
    """Two resnet18 with different values."""
    torch.manual_seed(0)
    model = resnet18()
    return drawn(model, 1), drawn(model, 2)


def under(prefix: str, state: Mapping[str, Any]) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def headless(state: State, head: str = "fc.") -> State:
    return {key: value for key, value in state.items() if not key.startswith(head)}


MLP = {"fc.0.weight": torch.ones(4, 512), "fc.0.bias": torch.ones(4), "fc.2.weight": torch.ones(2, 4)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3), "step": 4}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def numbered(state: State) -> State:
    """The names of nn.Sequential(*resnet.children())[:-1]."""
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    return {
        f"{names.index(key.partition('.')[0])}.{key.partition('.')[2]}": value for key, value in headless(state).items()
    }


# How a script writes the first of two networks, which is the one to be read. The second one is its companion.
RESNETS: dict[str, Callable[[State, State], Any]] = {
    "bare": lambda a, b: a,
    "another head": lambda a, b: {**headless(a), "fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7)},
    "DataParallel": lambda a, b: {"epoch": 3, "best_acc1": 0.5, "state_dict": under("module.", a)},
    "compiled": lambda a, b: {"net": under("_orig_mod.module.", a), "optimizer": OPTIMIZER},
    "network": lambda a, b: {"network": under("model.backbone.", a), "optimizer": OPTIMIZER},
    "Lightning": lambda a, b: {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**under("model.net.", a), "criterion.weight": torch.ones(3)},
        "optimizer_states": [OPTIMIZER],
        "callbacks": {},
    },
    "timm with a moving average": lambda a, b: {"state_dict": b, "state_dict_ema": a, "args": argparse.Namespace(x=1)},
    "model_ema": lambda a, b: {"model": b, "model_ema": a, "optimizer": OPTIMIZER},
    "ema in a name": lambda a, b: {"state_dict": {**under("model.", b), **under("ema_model.module.", a)}},
    "MoCo v1 and v2": lambda a, b: {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {
            **under("module.encoder_q.", {**headless(a), **MLP}),
            **under("module.encoder_k.", {**headless(b), **MLP}),
            "module.queue": torch.zeros(4, 6),
            "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        },
        "optimizer": OPTIMIZER,
    },
    "MoCo v3": lambda a, b: {
        "state_dict": {
            **under("module.base_encoder.", {**headless(a), **MLP}),
            **under("module.momentum_encoder.", {**headless(b), **MLP}),
            "module.predictor.0.weight": torch.ones(3, 2),
        }
    },
    "SwAV": lambda a, b: under(
        "module.", {**headless(a), "projection_head.0.weight": torch.ones(2, 2), "prototypes.weight": torch.ones(3, 2)}
    ),
    "BYOL in one": lambda a, b: {
        "state_dict": {
            **under("online_network.encoder.", headless(a)),
            **under("target_network.encoder.", headless(b)),
            "online_network.projetion.net.0.weight": torch.ones(2),
        }
    },
    "BYOL in two": lambda a, b: {"online_network": headless(a), "target_network": headless(b)},
    "DINO": lambda a, b: {
        "student": under("module.backbone.", b),
        "teacher": {**under("backbone.", headless(a)), "head.mlp.0.weight": torch.ones(2, 2)},
        "optimizer": OPTIMIZER,
        "epoch": 100,
        "args": argparse.Namespace(arch="resnet18"),
        "dino_loss": {"center": torch.zeros(1, 4)},
    },
    "solo-learn": lambda a, b: {
        "state_dict": {
            **under("backbone.", headless(a)),
            **under("momentum_backbone.", headless(b)),
            "projector.0.weight": torch.ones(2, 2),
        }
    },
    "a Sequential": lambda a, b: {"state_dict": under("backbone.", numbered(a))},
    "half precision": lambda a, b: {key: value.half().float().half() for key, value in a.items()},
    "an unknown name": lambda a, b: {"my_net": {"trunk": a}, "step": torch.tensor(4)},
    "two that are equal": lambda a, b: {"first": a, "second": {key: value.clone() for key, value in a.items()}},
}


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_is_read_as_it_is_published(name: str, states: tuple[State, State], tmp_path: Path) -> None:
    torch.save(RESNETS[name](*states), tmp_path / "c.pth")
    model = backbones.build_backbone("resnet18")
    report = weights.available(str(tmp_path / "c.pth"), "resnet18")
    assert report is not None
    assert report.matched == 100, "60 weights and biases and 40 statistics"
    assert weights.load(model, "resnet18", str(tmp_path / "c.pth")) == "c.pth"
    for key, value in model.state_dict().items():
        if not key.startswith("fc.") and value.is_floating_point():
            assert torch.allclose(value, states[0][key], atol=1e-3 if name == "half precision" else 0), key


def test_the_report_says_what_matched_was_renamed_and_left_aside(states: tuple[State, State], tmp_path: Path) -> None:
    torch.save(RESNETS["MoCo v1 and v2"](*states), tmp_path / "moco.pth")
    report = weights.available(str(tmp_path / "moco.pth"), "resnet18")
    assert report is not None
    assert report.prefix == "state_dict.module.encoder_q."
    assert report.passed_over == ("state_dict.module.encoder_k.",)
    assert report.ignored == {"head": 3, "encoder_k": 123, "queue": 1, "queue_ptr": 1, "optimizer": 1}
    assert report.text.startswith(
        "moco.pth: all 100 tensors of resnet18 matched; prefix `state_dict.module.encoder_q.` removed; preferred to "
        "`state_dict.module.encoder_k.`; not used: head (3), encoder_k (123), queue (1), queue_ptr (1), optimizer (1); "
        "the normalisation of resnet18's official weights is assumed (mean 0.485, 0.456, 0.406 and std 0.229"
    )


def test_several_networks_that_differ_are_refused_by_prefix(states: tuple[State, State], tmp_path: Path) -> None:
    torch.save({"net_a": states[0], "net_b": states[1]}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"`net_a\.` and `net_b\.` all fit and differ"):
        weights.available(str(tmp_path / "c.pth"), "resnet18")


def test_less_than_the_whole_backbone_is_refused_with_counts(states: tuple[State, State], tmp_path: Path) -> None:
    part = {key: value for key, value in states[0].items() if not key.startswith("layer4.")}
    torch.save({"state_dict": under("module.", part)}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"75 of 100 tensors are there under `state_dict\.module\.`") as error:
        weights.available(str(tmp_path / "c.pth"), "resnet18")
    assert error.value.faults[0].startswith("25 missing: layer4.0.bn1.bias")


def test_what_belongs_to_no_known_part_is_refused(states: tuple[State, State], tmp_path: Path) -> None:
    torch.save({**states[0], "layer4.1.attention.weight": torch.ones(2)}, tmp_path / "c.pth")
    with pytest.raises(ConfigError) as error:
        weights.available(str(tmp_path / "c.pth"), "resnet18")
    assert error.value.faults == ("1 unexpected: layer4.1.attention.weight",)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_tensor(
    value: float, states: tuple[State, State], tmp_path: Path
) -> None:
    bad = states[0]["layer3.0.conv2.weight"].clone()
    bad.view(-1)[7] = value
    torch.save({**states[0], "layer3.0.conv2.weight": bad}, tmp_path / "c.pth")
    with pytest.raises(ConfigError) as error:
        weights.load(backbones.build_backbone("resnet18"), "resnet18", str(tmp_path / "c.pth"))
    assert error.value.faults == ("1 with values that are not finite (NaN or infinite): layer3.0.conv2.weight",)


def test_whole_numbers_are_not_taken_for_weights(states: tuple[State, State], tmp_path: Path) -> None:
    torch.save({**states[0], "conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)}, tmp_path / "c.pth")
    with pytest.raises(ConfigError) as error:
        weights.available(str(tmp_path / "c.pth"), "resnet18")
    assert error.value.faults == ("1 not of floating-point numbers: conv1.weight (int8)",)


def test_a_namespace_is_read_and_any_other_class_is_refused_with_the_way_out(tmp_path: Path) -> None:
    state = {"x.weight": torch.ones(2)}
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "args.pth")
    assert [entry.full_name for entry in read(tmp_path / "args.pth")] == ["model.x.weight"]
    torch.save({"model": state, "args": PosixPath("x")}, tmp_path / "path.pth")
    with pytest.raises(ConfigError, match=r"it holds a pathlib\.\w+.*Nothing was run.*weights_only=False"):
        read(tmp_path / "path.pth")
    line = CONVERT.replace("python -c", f"{shlex.quote(sys.executable)} -c").replace("OLD NEW", "path.pth new.pth")
    subprocess.run(shlex.split(line), cwd=tmp_path, check=True)
    assert [entry.full_name for entry in read(tmp_path / "new.pth")] == ["model.x.weight"]


# --- vision transformers ------------------------------------------------------------------------------------


def timm_vit(size: int = 32, **options: Any) -> TimmViT:
    torch.manual_seed(1)
    model = TimmViT(img_size=size, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0, **options)
    model.load_state_dict(drawn(model, 3))
    return model.eval()


def own_vit(size: int = 32) -> VisionTransformer:
    torch.manual_seed(2)
    return VisionTransformer(size, 8, 2, 3, 24, 96, num_classes=5).eval()


def entries(tree: Mapping[str, Any], wrappers: tuple[str, ...] = ()) -> list[Entry]:
    found: list[Entry] = []
    for key, value in tree.items():
        found += [Entry(wrappers, key, value)] if isinstance(value, Tensor) else entries(value, (*wrappers, key))
    return found


def matched(tree: Mapping[str, Any], own: VisionTransformer) -> Match:
    state = own.state_dict(keep_vars=True)
    source = backbones.source_of("vit_b_32")
    head = frozenset({"heads.head.weight", "heads.head.bias"})
    wanted = Wanted("vit", state, head, layouts("vit"), lambda values: source.translate(values, "vit_b_32", state))
    return match(entries(tree), wanted, "c.pth")


def filled(own: VisionTransformer, found: Match) -> VisionTransformer:
    own.heads = nn.Sequential()
    own.load_state_dict(found.values)
    return own


def beside(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


VITS: dict[str, Callable[[State], Any]] = {
    "DeiT": lambda s: {"model": {**s, "head.weight": torch.ones(3, 24), "head.bias": torch.ones(3)}},
    "DINO": lambda s: {
        "student": under("module.backbone.", beside(s)),
        "teacher": {**under("backbone.", s), "head.last_layer.weight_v": torch.ones(3, 2)},
    },
    "iBOT": lambda s: {"state_dict": {**s, "masked_embed": torch.ones(1, 24)}},
    "MoCo v3": lambda s: {
        "state_dict": {
            **under("module.base_encoder.", {**s, "head.0.weight": torch.ones(4, 24)}),
            **under("module.momentum_encoder.", beside(s)),
            "module.predictor.0.weight": torch.ones(3, 2),
        }
    },
    "MAE": lambda s: {
        "model": {
            **s,
            "mask_token": torch.ones(1, 1, 8),
            "decoder_pos_embed": torch.ones(1, 17, 8),
            "decoder_embed.weight": torch.ones(8, 24),
            "decoder_blocks.0.norm1.weight": torch.ones(8),
            "decoder_norm.weight": torch.ones(8),
            "decoder_pred.bias": torch.ones(192),
        }
    },
}


@pytest.mark.parametrize("name", VITS)
def test_a_timm_vit_gives_torchvision_s_the_same_features(name: str) -> None:
    theirs, own = timm_vit(), own_vit()
    found = matched(VITS[name](dict(theirs.state_dict())), own)
    assert found.layout == "timm's ViT names"
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        expected = theirs.forward_features(images)[:, 0]
        assert torch.allclose(filled(own, found)(images), expected, atol=1e-5)
        assert expected.std() > 0.1, "features that differ"


def test_positions_of_another_grid_are_interpolated_and_said() -> None:
    theirs = timm_vit(64)
    found = matched({"model": theirs.half().state_dict()}, own_vit(32))
    assert found.resized == "positions from 8 x 8 to 4 x 4"
    assert found.values["encoder.pos_embedding"].shape == (1, 17, 24)
    assert found.values["encoder.pos_embedding"].dtype == torch.float32, "not rounded to half precision again"
    assert torch.equal(found.values["encoder.pos_embedding"][:, 0], theirs.pos_embed[:, 0].float())


def test_torchvision_s_former_names_of_a_vit_are_understood() -> None:
    own, other = own_vit(), own_vit()
    other.load_state_dict(drawn(other, 5))
    old = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for key, value in other.state_dict().items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in old
    images = torch.rand(2, 3, 32, 32)
    found = matched(old, own)
    other.heads = nn.Sequential()
    with torch.inference_mode():
        assert torch.equal(filled(own, found)(images), other(images))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"init_values": 1e-5}, "layer scale"),  # DINOv2
        ({"reg_tokens": 4}, "register tokens"),
        ({"qk_norm": True}, "normalised queries and keys"),
    ],
)
def test_what_torchvision_s_vit_cannot_compute_is_refused_with_the_way_out(options: dict[str, Any], what: str) -> None:
    state = timm_vit(**options).state_dict()
    with pytest.raises(ConfigError) as error:
        matched({"teacher": under("backbone.", dict(state))}, own_vit())
    assert any(f"of {what}" in fault and "timm/NAME" in fault for fault in error.value.faults), error.value.faults
