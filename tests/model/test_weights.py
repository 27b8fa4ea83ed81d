"""Where the values come from, and that a file which does not fit, or would run code, is refused."""

from __future__ import annotations

import hashlib
import pickle
import re
import urllib.error
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from harness.config.backbone_specs import Normalisation, backbone_specs
from harness.config.initial_weights import Weights
from harness.errors import ConfigError, ResourceError
from harness.model import backbones, torchvision_weights, transfer, weights

RUN = "import pathlib; pathlib.Path({!r}).touch()"


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (RUN.format(str(self.trace)),)


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(3)
    return backbones.build_backbone("mobilenet_v3_small")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of official files, and no network."""

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def same(model: nn.Module, given: dict[str, torch.Tensor], but: str = "classifier.3.") -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], given[key]) for key in given if not key.startswith(but))


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc."), ("mobilenet_v3_small", "classifier.3.")])
def test_bundled_weights_fill_all_but_the_head(name: str, head: str) -> None:
    model = backbones.build_backbone(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert weights.load(model, name, "bundled") == f"bundled:{name}"
    for key, value in model.state_dict().items():
        assert torch.isfinite(value).all()
        if key.startswith(head):
            assert torch.equal(value, before[key])
        elif value.ndim > 1:
            assert not torch.equal(value, before[key]), key
    mean, std = weights.normalisation("bundled", name)
    assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_bundled_weights_of_another_backbone_are_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"mobilenet_v3_small and resnet18.*resnet50.*imagenet"):
        weights.available("bundled", "resnet50")


def test_official_file_that_is_out_of_reach_is_named_with_its_place_and_the_way_out(cache: Path) -> None:
    with pytest.raises(ResourceError) as error:
        weights.available("imagenet", "resnet18")
    message = str(error.value)
    assert "resnet18-f37072fd.pth" in message
    assert str(cache) in message
    assert "weights: bundled" in message


@pytest.mark.parametrize("use", [weights.available, weights.fingerprint])
def test_file_planted_in_the_cache_is_refused_and_runs_nothing(cache: Path, tmp_path: Path, use: Any) -> None:
    trace = tmp_path / "trace"
    (cache / "resnet18-f37072fd.pth").write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(ResourceError, match="f37072fd"):
        use("imagenet", "resnet18")
    with pytest.raises(ResourceError, match="f37072fd"):
        weights.load(backbones.build_backbone("resnet18"), "resnet18", "imagenet")
    assert not trace.exists()


def test_cached_official_file_is_loaded_and_hashed_again_each_time(
    cache: Path, small: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = backbones.build_backbone("mobilenet_v3_small")
    torch.save(small.state_dict(), cache / "new")
    digest = hashlib.sha256((cache / "new").read_bytes()).hexdigest()
    file = (cache / "new").rename(cache / f"mobilenet_v3_small-{digest[:8]}.pth")
    monkeypatch.setattr(torchvision_weights, "get_weight", lambda _: SimpleNamespace(url=f"https://host/{file.name}"))

    name = weights.load(other, "mobilenet_v3_small", "imagenet")
    assert name == "MobileNet_V3_Small_Weights.IMAGENET1K_V1"
    assert same(other, small.state_dict())
    assert weights.fingerprint("imagenet", "mobilenet_v3_small") == digest[:16]
    with file.open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(ResourceError, match=digest[:8]):
        weights.load(other, "mobilenet_v3_small", "imagenet")


@pytest.mark.parametrize("form", ["safetensors", "bare", "state_dict", "model", "module."])
def test_checkpoint_is_read_in_its_usual_forms_whatever_its_head(tmp_path: Path, small: nn.Module, form: str) -> None:
    state = dict(small.state_dict())
    state["classifier.3.weight"], state["classifier.3.bias"] = torch.zeros(7, 1024), torch.zeros(7)
    path = tmp_path / ("c.safetensors" if form == "safetensors" else "c.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "module.":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    else:
        torch.save(state if form == "bare" else {form: state, "epoch": 3}, path)
    model = backbones.build_backbone("mobilenet_v3_small")
    weights.available(str(path), "mobilenet_v3_small")
    assert weights.load(model, "mobilenet_v3_small", str(path)) == path.name
    assert same(model, small.state_dict())
    assert model.get_parameter("classifier.3.weight").shape == (1000, 1024)


def test_missing_unexpected_and_misshapen_keys_are_listed_together(tmp_path: Path, small: nn.Module) -> None:
    state = dict(small.state_dict())
    renamed = [key for key in state if key.startswith("features.11.")]
    for key in renamed:
        state[f"extra.{key}"] = state.pop(key)
    state["features.0.0.weight"] = torch.zeros(16, 1, 3, 3)
    torch.save(state, tmp_path / "c.pt")
    model = backbones.build_backbone("mobilenet_v3_small")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        weights.load(model, "mobilenet_v3_small", str(tmp_path / "c.pt"))
    missing, unexpected, shapes = error.value.faults
    counted = [key for key in renamed if not key.endswith("num_batches_tracked")]
    assert missing.startswith(f"{len(counted)} missing: features.11.")
    assert missing.endswith(f"and {len(counted) - 8} more")
    assert unexpected.startswith(f"{len(renamed)} unexpected: extra.features.11.")
    assert "features.0.0.weight is (16, 1, 3, 3), not (16, 3, 3, 3)" in shapes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "half loaded"


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, how: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "c.pt"
    content = {"state_dict": {"x": torch.zeros(1)}, "extra": Payload(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match="Nothing was run"):
        weights.available(str(path), "resnet18")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["c.pt", "c.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint, but words" * 9, b"<html>"])
def test_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        weights.available(str(tmp_path / name), "resnet18")


def test_checkpoint_of_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="state dict"):
        weights.available(str(tmp_path / "c.pt"), "resnet18")


def test_misspelt_source_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(ConfigError, match=r"bundled, imagenet, none, the name.*or the path.*imagnet"):
        weights.available("imagnet", "resnet18")


def test_bundled_files_are_half_precision_with_full_statistics() -> None:
    for backbone in weights.bundled():
        state = load_file(weights._bundled_file(backbone))
        assert {value.dtype for value in state.values() if value.ndim > 1} == {torch.float16}
        assert {value.dtype for value in state.values() if value.ndim == 1} == {torch.float32}


def test_old_densenet_keys_are_understood(tmp_path: Path) -> None:
    model = backbones.build_backbone("densenet121")
    state = {
        key.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2"): value
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert set(state) - set(model.state_dict())
    torch.save(state, tmp_path / "old.pth")
    other = backbones.build_backbone("densenet121")
    weights.load(other, "densenet121", str(tmp_path / "old.pth"))
    assert same(other, dict(model.state_dict()), but="classifier.")


def test_keys_of_auxiliary_heads_are_left_aside(tmp_path: Path) -> None:
    model = backbones.build_backbone("googlenet")
    torch.save({**model.state_dict(), "aux1.fc2.weight": torch.zeros(1000, 1024)}, tmp_path / "c.pth")
    other = backbones.build_backbone("googlenet")
    weights.load(other, "googlenet", str(tmp_path / "c.pth"))
    assert same(other, dict(model.state_dict()), but="fc.")


def test_vit_positions_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    native = backbones.build_backbone("vit_b_32")
    torch.save(native.state_dict(), tmp_path / "c.pth")
    model = backbones.build_backbone("vit_b_32", 96)
    weights.load(model, "vit_b_32", str(tmp_path / "c.pth"))
    positions = model.get_parameter("encoder.pos_embedding")
    wanted = interpolate_embeddings(96, 32, native.state_dict())["encoder.pos_embedding"]
    assert positions.shape == (1, 10, 768)
    assert torch.equal(positions, wanted)
    assert torch.equal(positions[:, 0], native.get_parameter("encoder.pos_embedding")[:, 0])


def test_fingerprint_is_of_the_file(tmp_path: Path, small: nn.Module) -> None:
    torch.save(small.state_dict(), tmp_path / "c.pt")
    digest = hashlib.sha256((tmp_path / "c.pt").read_bytes()).hexdigest()
    assert weights.fingerprint(str(tmp_path / "c.pt"), "mobilenet_v3_small") == digest[:16]
    assert weights.fingerprint("none", "mobilenet_v3_small") == "none"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A cached file for each of resnet50's two weights: they differ in every value."""
    files = {}
    for seed, name in enumerate(("ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2")):
        torch.manual_seed(seed)
        torch.save(backbones.build_backbone("resnet50").state_dict(), cache / "new")
        digest = hashlib.sha256((cache / "new").read_bytes()).hexdigest()
        files[name] = (cache / "new").rename(cache / f"resnet50-{digest[:8]}.pth")
    monkeypatch.setattr(
        torchvision_weights, "get_weight", lambda n: SimpleNamespace(url=f"https://host/{files[n].name}")
    )
    return files


def test_official_weights_are_loaded_by_the_name_of_their_enum(hub: dict[str, Path]) -> None:
    model = backbones.build_backbone("resnet50")
    for given, name in (
        ("IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("ResNet50_Weights.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("imagenet", "ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet50_Weights.DEFAULT", "ResNet50_Weights.IMAGENET1K_V2"),
    ):
        assert weights.load(model, "resnet50", given) == name
        assert same(model, torch.load(hub[name], weights_only=True), but="fc.")
        assert weights.fingerprint(given, "resnet50") == hashlib.sha256(hub[name].read_bytes()).hexdigest()[:16]
    report = weights.available("IMAGENET1K_V1", "resnet50")
    assert report is not None
    assert report.text == (
        "ResNet50_Weights.IMAGENET1K_V1 for resnet50: evaluated with resize to 256 px (bilinear), centre crop of 224 "
        "px; licence BSD-3-Clause."
    )


@pytest.mark.parametrize(
    ("given", "name", "listed"),
    [
        ("IMAGENET1K_V2", "resnet18", "ResNet18_Weights.IMAGENET1K_V1"),
        ("ResNet50_Weights.IMAGENET1K_V2", "resnet101", "ResNet101_Weights.IMAGENET1K_V1, ResNet101_Weights.IM"),
        ("ResNet50_Weights.DEFAULT", "resnet101", "ResNet101_Weights.IMAGENET1K_V1, ResNet101_Weights.IM"),
        ("ViT_B_16_Weights.IMAGENET1K_SWAG", "vit_b_16", "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"),
    ],
)
def test_weights_that_a_backbone_has_not_are_refused_with_those_it_has(given: str, name: str, listed: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(listed)):
        weights.load(backbones.build_backbone("resnet18"), name, given)


def test_the_table_of_official_weights_is_torchvision_s_own() -> None:
    for name, spec in backbone_specs().items():
        published = list(get_model_weights(name))
        assert [one.name for one in spec.weights] == [str(one) for one in published]
        for one, theirs in zip(spec.weights, published, strict=True):
            transform = theirs.transforms()
            assert ([one.resize], [one.size]) == (transform.resize_size, transform.crop_size)
            assert one.interpolation == transform.interpolation.value
            assert transform.antialias is True
            assert one.normalisation.mean == pytest.approx(tuple(transform.mean))
            assert one.normalisation.std == pytest.approx(tuple(transform.std))
        assert spec.official_weights == str(get_model_weights(name).DEFAULT)
        default = next(one for one in spec.weights if one.name == spec.official_weights)
        assert (default.size, default.normalisation) == (spec.native_size, spec.normalisation)


def test_size_and_normalisation_follow_the_weights_that_are_named() -> None:
    swag = Weights("IMAGENET1K_SWAG_E2E_V1")
    assert (swag.native_size("vit_b_16"), Weights("imagenet").native_size("vit_b_16")) == (384, 224)
    mean, std = weights.normalisation("VGG16_Weights.IMAGENET1K_FEATURES", "vgg16")
    assert mean[0] == 0.48235
    assert std == (1 / 255, 1 / 255, 1 / 255)


def test_a_checkpoint_s_normalisation_is_used_or_the_assumption_said(tmp_path: Path, small: nn.Module) -> None:
    path = str(tmp_path / "c.pt")
    torch.save(small.state_dict(), path)
    own = Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    given = Weights(path, own, "mine")
    model = transfer.build("mobilenet_v3_small", 2, given)
    assert (model.mean, model.std, model.weights_name) == (*own, "mine")
    said, assumed = (weights.available(one, "mobilenet_v3_small") for one in (given, path))
    assert said is not None
    assert assumed is not None
    assert said.text.endswith("; normalised by mean 0.5, 0.4, 0.3 and std 0.2, 0.2, 0.1.")
    assert "the normalisation of mobilenet_v3_small's official weights is assumed (mean 0.485" in assumed.text
    prints = {weights.fingerprint(one, "mobilenet_v3_small") for one in (given, path, Weights(path, name="another"))}
    assert len(prints) == 2, "the normalisation changes numbers, the name does not"


def test_weights_with_a_normalisation_of_their_own_say_so() -> None:
    assert weights.normalisation("imagenet", "efficientnet_v2_l") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
