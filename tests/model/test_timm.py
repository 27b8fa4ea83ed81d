"""timm's models as backbones: the division against the model's own forward, the specs against timm, and the errors."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.models import swin_transformer
from torch import nn

from harness.config import backbone_specs as specs_module
from harness.config.backbone_costs import cost
from harness.config.backbone_specs import backbone_spec, backbone_specs, check_image_size
from harness.config.trial import STAGES
from harness.errors import ConfigError, ResourceError
from harness.model import backbones, batchnorm, timm_weights
from harness.model.timm_models import FAMILIES, Piece
from harness.model.transfer import build

# Real models, as people use them, with a size that is quick and, if it can be, not the native one.
REAL = {
    "timm/resnet18": 64,
    "timm/resnet26d": 64,  # a deep stem and average pooling in the shortcuts
    "timm/seresnet50": 64,
    "timm/resnetaa50": 64,  # anti-aliasing
    "timm/ecaresnet26t": 64,
    "timm/convnext_atto": 64,
    "timm/convnextv2_atto": 64,
    "timm/efficientnet_b0": 64,
    "timm/tf_efficientnetv2_b0": 64,
    "timm/mobilenetv2_050": 64,
    "timm/mnasnet_small": 64,
    "timm/mixnet_s": 64,
    "timm/mobilenetv3_large_100": 64,
    "timm/hardcorenas_a": 64,
    "timm/swin_tiny_patch4_window7_224": 96,
    "timm/swinv2_cr_tiny_224": 0,  # another class: refused
    "timm/swinv2_tiny_window8_256": 64,
    "timm/vit_tiny_patch16_224": 64,
    "timm/vit_small_patch14_reg4_dinov2": 56,
    "timm/vit_base_patch16_clip_224": 64,  # norm before the blocks
    "timm/vit_base_patch16_siglip_224": 64,
    "timm/deit3_small_patch16_224": 64,
    "timm/vit_small_patch16_dinov3": 64,
    "timm/eva02_tiny_patch14_224": 56,
    "timm/vit_small_patch16_rope_mixed_224": 0,  # its rotary positions train: refused
}


def compare(name: str, size: int) -> None:
    """The stages in order and then the head give the model's own values, bit for bit, and hold each tensor once."""
    torch.manual_seed(1)
    model = backbones.build_backbone(name, size).eval()
    stages, head = backbones.stages(model, name), backbones.head(model, name)
    assert tuple(stages) == STAGES
    parts = [*stages.values(), head]
    held = Counter(id(tensor) for part in parts for tensor in part.state_dict(keep_vars=True).values())
    assert held == Counter(id(tensor) for tensor in model.state_dict(keep_vars=True).values())
    assert all(any(True for _ in stage.parameters()) for stage in stages.values())
    assert not set(map(id, head.parameters())) & {id(p) for stage in stages.values() for p in stage.parameters()}
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        wanted = model(x.clone())
        for stage_name, stage in stages.items():
            given = x.clone()
            output = stage(x)
            assert torch.equal(given, x), f"{stage_name} writes into its input"
            x = output
        assert x.shape == (2, backbone_spec(name).feature_dim)
        assert torch.equal(head(x), wanted)


def test_the_stages_of_every_family_are_its_own_forward(timm_member: str, smallest: Callable[[str], int]) -> None:
    compare(timm_member, smallest(timm_member))


def test_the_small_members_stand_for_every_family(timm_members: tuple[str, ...]) -> None:
    assert {backbone_spec(name).family for name in timm_members} == {f"timm/{kind.__name__}" for kind in FAMILIES}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_stages_of_real_models_are_their_own_forward(name: str) -> None:
    if REAL[name]:
        compare(name, REAL[name])
    else:
        with pytest.raises(ConfigError, match=r"five stages"):
            backbone_spec(name)


@pytest.mark.slow
def test_every_model_of_the_families_has_a_spec_or_a_reason() -> None:
    refused = {}
    for name in backbone_specs("timm/"):
        try:
            spec = backbone_spec(name)
        except ConfigError as error:
            refused[name] = str(error)
        else:
            assert spec.fits(spec.native_size), name
    reasons = ("five stages", "3 channels", "cannot build")
    assert all(any(reason in why for reason in reasons) for why in refused.values()), refused
    assert len(refused) < len(backbone_specs("timm/")) / 10, refused


def test_no_stage_writes_into_its_input_in_train_mode(timm_member: str, smallest: Callable[[str], int]) -> None:
    size = smallest(timm_member)
    model = backbones.build_backbone(timm_member, size).train()
    x = torch.randn(2, 3, size, size)
    for stage in backbones.stages(model, timm_member).values():
        given = x.detach().clone()
        output = stage(x)
        assert torch.equal(given, x)
        x = output.detach()


def test_the_stages_are_those_of_timm_s_groups() -> None:
    def children(name: str) -> dict[str, list[str]]:
        model = backbones.build_backbone(name)
        return {k: [n for n, _ in part.named_children()] for k, part in backbones.stages(model, name).items()}

    assert children("timm/test_resnet") == {
        "stem": ["conv1", "bn1", "act1", "maxpool"],
        "stage1": ["layer1"],
        "stage2": ["layer2"],
        "stage3": ["layer3"],
        "stage4": ["layer4", "global_pool"],
    }
    efficientnet = children("timm/test_efficientnet")
    assert efficientnet["stem"] == ["conv_stem", "bn1", "blocks_0"]
    assert efficientnet["stage4"] == ["blocks_4", "conv_head", "bn2", "global_pool"]
    vit = children("timm/test_vit2")
    assert vit["stem"] == ["tokens"]
    assert [vit[f"stage{k}"][:2] for k in range(1, 5)] == [[f"blocks_{i}", f"blocks_{i + 1}"] for i in (0, 2, 4, 6)]
    assert vit["stage4"][-1] == "pooling"


def test_the_spec_says_what_timm_says_and_the_built_model_is(timm_member: str, smallest: Callable[[str], int]) -> None:
    spec = backbone_spec(timm_member)
    model = backbones.build_backbone(timm_member, smallest(timm_member))
    wanted = resolve_model_data_config(model)
    assert (spec.mean, spec.std) == (tuple(wanted["mean"]), tuple(wanted["std"]))
    assert spec.native_size == model.pretrained_cfg["input_size"][1]
    assert spec.has_batchnorm == batchnorm.has_batchnorm(model)
    source = backbones.source_of(timm_member)
    random = [
        layer for layer in model.modules() if source.is_random(layer) or (isinstance(layer, nn.Dropout) and layer.p > 0)
    ]
    assert spec.has_random_layers == bool(random)
    assert spec.feature_dim == model.head_hidden_size
    with torch.no_grad():
        for size in (spec.min_size, 2 * spec.min_size):
            image = torch.zeros(1, 3, size, size)
            assert build(timm_member, 3, image_size=size).eval()(image).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "random"), [("", False), ("?drop_path_rate=0.5", True), ("?drop_rate=0.1", True)]
)
@pytest.mark.parametrize(
    "name", ["timm/test_vit", "timm/test_resnet", "timm/test_convnext", "timm/mobilenetv3_small_050"]
)
def test_dropout_and_stochastic_depth_are_seen_by_what_they_do(name: str, arguments: str, random: bool) -> None:
    """Functional dropout between the modules must not be lost, and layers that draw must be named as such."""
    model = build(f"{name}{arguments}", 3, image_size=64).train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
            nn.init.ones_(layer.weight)  # some end a branch with zeros at first
    images = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        differs = any(not torch.equal(model(images), model(images)) for _ in range(3))
    assert differs == random == backbone_spec(f"{name}{arguments}").has_random_layers


def test_costs_are_counted_when_they_are_asked_for(timm_member: str) -> None:
    known = cost(timm_member)
    spec = backbone_spec(timm_member)
    assert sum(known.parameters) == sum(p.numel() for p in build(timm_member, 3).stages.parameters())
    assert (known.batchnorm_layers > 0) == spec.has_batchnorm
    for share in (known.parameter_share, known.backward_share):
        values = [share(depth) for depth in range(6)]
        assert values == sorted(values)
        assert values[5] == 1.0


def test_timm_s_resnet18_has_the_work_of_torchvision_s() -> None:
    ours, theirs = cost("timm/resnet18"), cost("resnet18")
    assert (ours.parameters, ours.forward, ours.backward) == (theirs.parameters, theirs.forward, theirs.backward)


# Names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/vit_small_patch16_225", "timm/vit_small_patch16_224"),
        ("timm/resnet18.a1_in2k", "timm/resnet18"),
        ("timm:resnet18", "did you mean timm/resnet18"),
        ("vit_small_patch16_224", "timm/vit_small_patch16_224"),
        ("timm/resnetv2_50", "ResNetV2"),
        ("timm/deit_tiny_distilled_patch16_224", "own:package.module:function"),
        ("timm/tv_resnet50", "another name today: timm/resnet50.tv_in1k"),
        ("timm/test_vit?reg_token=4", "did you mean reg_tokens"),
        ("timm/test_vit?reg_tokens=four", "whole number"),
        ("timm/test_vit?swiglu=yes", "true or false"),
        ("timm/test_resnet?reg_tokens=4", "reg_tokens"),
        ("timm/zzzz", "harness backbones --source timm"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_in_a_few_words(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        backbone_spec(name)
    assert said in str(error.value)
    assert len(str(error.value)) < 500


def test_a_name_with_the_tag_of_its_weights_is_that_model() -> None:
    assert backbone_spec("timm/resnet18.a1_in1k").official_weights == "resnet18.a1_in1k"
    assert backbone_spec("timm/resnet18.tv_in1k").official_weights == "resnet18.tv_in1k"


def test_without_timm_one_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "timm" else importlib.util.find_spec(name)

    monkeypatch.setattr(specs_module, "find_spec", find)
    with pytest.raises(ConfigError, match=r"needs the package timm.*finetune-harness\[timm\]"):
        backbone_spec("timm/resnet18")
    with pytest.raises(ConfigError, match="resnet18d") as error:
        backbone_spec("resnet18d")  # no hint at names that cannot be used
    assert "timm/" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "size"), [("timm/test_vit", 40), ("timm/vit_small_patch14_reg4_dinov2", 224 + 4), ("timm/test_resnet", 16)]
)
def test_a_size_that_it_cannot_take_is_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"image_size.*{name}.*{size}.*native"):
        check_image_size(name, size)


# Weights


def saved(model: nn.Module, path: Path) -> Path:
    save_file({key: value.clone().contiguous() for key, value in model.state_dict().items()}, path)
    return path


def test_a_file_of_timm_is_the_model_it_came_from(timm_member: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    size = backbone_spec(timm_member).native_size
    theirs = backbones.build_backbone(timm_member, size).eval()
    path = saved(theirs, tmp_path / "weights.safetensors")
    ours = build(timm_member, 3, str(path)).eval()
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        wanted = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        assert torch.equal(ours.features(images), wanted)
    assert ours.weights_name == "weights.safetensors"


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:torch.searchsorted")  # of timm and torch
@pytest.mark.parametrize(
    "name",
    [
        "timm/test_vit",
        "timm/vit_small_patch14_reg4_dinov2?embed_dim=48&depth=4&num_heads=2",
        "timm/eva02_tiny_patch14_224?embed_dim=48&depth=4&num_heads=2",
    ],
)
def test_positions_are_resized_as_timm_does_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    spec = backbone_spec(name)
    theirs = backbones.build_backbone(name, spec.native_size).eval()
    path = saved(theirs, tmp_path / "weights.safetensors")
    size = 4 * spec.multiple_of
    ours = build(name, 3, str(path), image_size=size).eval()
    theirs.set_input_size((size, size))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        wanted = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.testing.assert_close(ours.features(images), wanted)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:torch.searchsorted")  # of timm and torch
def test_relative_positions_are_resized_where_a_window_is_smaller(tmp_path: Path) -> None:
    name = "timm/swin_tiny_patch4_window7_224?embed_dim=24"
    torch.manual_seed(3)
    path = saved(backbones.build_backbone(name, 224), tmp_path / "weights.safetensors")
    theirs = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, img_size=128)
    timm.models.load_checkpoint(theirs, str(path), filter_fn=swin_transformer.checkpoint_filter_fn)
    table = "layers.3.blocks.0.attn.relative_position_bias_table"
    assert theirs.state_dict()[table].shape != (13 * 13, 24)  # the window of 7 x 7 tokens does not fit
    ours = build(name, 3, str(path), image_size=128)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        wanted = theirs.eval().forward_head(theirs.forward_features(images), pre_logits=True)
        assert torch.equal(ours.eval().features(images), wanted)


def test_a_file_with_the_names_of_dinov2_is_read(tmp_path: Path) -> None:
    name = "timm/vit_small_patch14_dinov2?embed_dim=48&depth=4&num_heads=2"
    torch.manual_seed(3)
    theirs = backbones.build_backbone(name, 518).eval()
    values = {k: v.clone() for k, v in theirs.state_dict().items() if not k.startswith("head.")}
    torch.save(values | {"mask_token": torch.zeros(1, 48)}, tmp_path / "dinov2.pth")
    ours = build(name, 3, str(tmp_path / "dinov2.pth"))
    assert torch.equal(dict(ours.named_parameters())["stages.stem.tokens.part.pos_embed"], theirs.pos_embed)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = saved(timm.create_model("test_vit2"), tmp_path / "weights.safetensors")
    for name in ("timm/test_vit", "timm/test_resnet"):
        with pytest.raises(ConfigError) as error:
            build(name, 3, str(path))
        assert len(str(error.value)) < 2000


def test_official_weights_that_are_not_reachable_are_a_missing_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **options: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **options: None)
    with pytest.raises(ResourceError, match=r"timm/test_vit.*neither cached nor reachable.*no network.*`weights`"):
        build("timm/test_vit", 3, "imagenet")


def test_official_weights_in_the_cache_are_used_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    torch.manual_seed(3)
    theirs = timm.create_model("test_vit")
    path = saved(theirs, tmp_path / "model.safetensors")
    asked = []

    def cached(repository: str, filename: str, **options: object) -> str:
        asked.append((repository, filename))
        return str(path)

    def unreachable(*args: object, **options: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    ours = build("timm/test_vit", 3, "imagenet")
    assert set(asked) == {("timm/test_vit.r160_in1k", "model.safetensors")}
    assert ours.weights_name == "test_vit.r160_in1k"
    assert torch.equal(dict(ours.named_parameters())["stages.stem.tokens.part.pos_embed"], theirs.pos_embed)


@pytest.mark.parametrize(
    ("name", "said"),
    [("timm/test_vit4", "no official weights"), ("timm/test_vit?reg_tokens=4", "arguments of its own")],
)
def test_official_weights_that_there_are_not_are_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        timm_weights.official_file(backbone_spec(name))


def test_bundled_weights_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"timm/resnet18"):
        build("timm/resnet18", 3, "bundled")


# Pieces and export


def test_a_piece_has_the_model_s_tensors_and_nothing_else() -> None:
    model = timm.create_model("test_vit")
    piece = Piece(model, ("cls_token", "pos_embed"), lambda part, x: x)
    assert {name for name, _ in piece.named_parameters()} == {"part.cls_token", "part.pos_embed"}
    assert piece.part.pos_embed is model.pos_embed
    assert model.patch_embed is not None  # the model itself has lost nothing


def test_every_family_is_exported_as_a_graph(timm_member: str, smallest: Callable[[str], int]) -> None:
    size = smallest(timm_member)
    model = build(timm_member, 3, image_size=size).eval()
    images = torch.randn(4, 3, size, size)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    with torch.no_grad():
        for part in (images, images[:2]):
            torch.testing.assert_close(exported.module()(part), model(part))


def test_activations_of_another_version_of_timm_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another version computes may differ in its last bits, so its stored activations have another name."""
    assert backbones.source_of("resnet18").version("resnet18") == ""
    before = backbones.source_of("timm/resnet18").version("timm/resnet18")
    monkeypatch.setattr(timm, "__version__", "9.9")
    assert backbones.source_of("timm/resnet18").version("timm/resnet18") != before


@pytest.mark.parametrize(
    "name", ["timm/vit_small_patch16_224", "timm/resnet18.a1_in1k", "timm/swin_tiny_patch4_window7_224"]
)
@pytest.mark.parametrize("size", [(300, 400), (640, 97)])
def test_resize_by_weights_gives_the_pixels_of_timm_s_own_transform(name: str, size: tuple[int, int]) -> None:
    import numpy as np
    from PIL import Image
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    from harness.config.initial_weights import Weights
    from harness.data.decoding.decode import fit

    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    settings = resolve_data_config(pretrained_cfg=get_pretrained_cfg(name.removeprefix("timm/")).to_dict())
    resize_and_crop = create_transform(**settings).transforms[:2]
    wanted = Image.fromarray(pixels)
    for step in resize_and_crop:
        wanted = step(wanted)
    assert np.array_equal(fit(pixels, Weights("imagenet").fit(name), "weights"), np.asarray(wanted))
