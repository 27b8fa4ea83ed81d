"""`resize: weights` gives the pixels of torchvision's own transforms, for every official weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_weight
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from harness.config.backbone_specs import backbone_specs
from harness.config.fit import Fit
from harness.config.initial_weights import Weights
from harness.config.load import parse
from harness.config.space import fits
from harness.data.decoding.decode import Pixels, decode, fit
from harness.errors import ConfigError, DataError

EVERY = [(spec.name, one.name) for spec in backbone_specs().values() for one in spec.weights]
SHAPES = ((97, 61), (60, 143), (300, 300), (51, 50))  # rows, columns: odd differences are rounded


def drawn(rows: int, columns: int, grey: bool) -> Pixels:
    rng = np.random.default_rng(rows * columns)
    pixels = rng.integers(0, 256, (rows, columns, 1 if grey else 3), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (rows, columns, 3)))


@pytest.mark.parametrize("transform", sorted({Weights(name).fit(backbone) for backbone, name in EVERY}), ids=str)
def test_the_pixels_are_torchvision_s_own(transform: Fit) -> None:
    """Of all weights with this transform; grey and colour images, upright, wide, square and nearly square."""
    sharing = [name for backbone, name in EVERY if Weights(name).fit(backbone) == transform]
    for name in sharing:
        theirs = get_weight(name).transforms()
        assert (theirs.crop_size, theirs.resize_size) == ([transform.side], [transform.shorter])
    for number, (rows, columns) in enumerate(SHAPES):
        pixels = drawn(rows, columns, grey=number % 2 == 0)
        ours = fit(pixels, transform, "weights")
        image = resize(Image.fromarray(pixels), theirs.resize_size, theirs.interpolation, antialias=theirs.antialias)
        assert np.array_equal(ours, pil_to_tensor(center_crop(image, theirs.crop_size)).permute(1, 2, 0).numpy())
    mean, std = (torch.tensor(values)[:, None, None] for values in (theirs.mean, theirs.std))
    normalised = (torch.from_numpy(ours).permute(2, 0, 1).float() / 255 - mean) / std
    assert torch.equal(theirs(Image.fromarray(pixels)), normalised), "the whole of transforms()"


def test_a_grey_file_and_sixteen_bits_are_fitted_alike(tmp_path: Path) -> None:
    transform = Weights("imagenet").fit("resnet18")
    grey = drawn(90, 70, grey=True)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    eight = fit(decode(tmp_path / "grey.png"), transform, "weights")
    theirs = get_weight("ResNet18_Weights.IMAGENET1K_V1").transforms()
    with Image.open(tmp_path / "grey.png") as image:
        mean, std = (torch.tensor(values)[:, None, None] for values in (theirs.mean, theirs.std))
        expected = theirs(image.convert("RGB")) * std + mean
    assert np.abs(eight / 255 - expected.permute(1, 2, 0).numpy()).max() < 1e-6
    sixteen = fit(np.stack([grey] * 3, axis=-1).astype(np.uint16) * np.uint16(257), transform, "weights")
    assert sixteen.dtype == np.uint16
    assert np.abs(sixteen / 257 - eight.astype(float)).max() < 2


def test_a_strip_is_refused_before_it_is_resized() -> None:
    with pytest.raises(DataError, match="1 x 60000 pixels, too long"):
        fit(np.zeros((60_000, 1, 3), np.uint8), Fit(224, 256, "bilinear"), "weights")


def test_each_transform_of_a_study_has_images_of_its_own() -> None:
    document = {
        "data": {"resize": "weights", "image_size": "native"},
        "search": {"backbone": "resnet50", "weights": ["IMAGENET1K_V1", "IMAGENET1K_V2"]},
    }
    found = fits(parse(document, "s.yaml"))
    assert found == [Fit(224, 232, "bilinear"), Fit(224, 256, "bilinear")]
    plain = {**document, "data": {"image_size": "native"}}
    assert fits(parse(plain, "s.yaml")) == [Fit(224)]
    with pytest.raises(ConfigError, match="image_size: must be native with `resize: weights`"):
        parse({**document, "data": {"resize": "weights"}}, "s.yaml")
