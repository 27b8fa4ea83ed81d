"""Images of N channels: the pretrained filters are shared out, and a grey image is seen as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from harness.config.backbone_specs import HALF, IMAGENET, backbone_spec
from harness.errors import ConfigError
from harness.model import input_channels
from harness.model.meta import build_shapes
from harness.model.transfer import TransferModel, build


def normalised(model: TransferModel, images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as the model takes them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.mean, model.std))
    return (images - mean) / std


def answers(model: TransferModel, images: torch.Tensor) -> torch.Tensor:
    """The logits of images in [0, 1]."""
    with torch.no_grad():
        return model.eval()(normalised(model, images))


def after_stem(model: TransferModel, images: torch.Tensor) -> torch.Tensor:
    """What the stem gives, in units of its largest value: random networks hardly pass differences on to the logits."""
    with torch.no_grad():
        found = model.eval().run_stages(normalised(model, images), 0, 1)
    return found / found.abs().max()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_same_grey_image_in_every_channel_is_answered_as_in_three(
    channels: int, small_member: str, smallest: Callable[[str], int]
) -> None:
    size = smallest(small_member)
    grey = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    three = build(small_member, 3, image_size=size, seed=1)
    other = build(small_member, 3, image_size=size, seed=1, in_channels=channels)
    before, after = grey.expand(-1, 3, -1, -1), grey.expand(-1, channels, -1, -1)
    logits = answers(three, before)
    scale = max(1.0, float(logits.abs().max()))  # millions for a random inception_v3
    assert torch.allclose(answers(other, after) / scale, logits / scale, rtol=0, atol=1e-5)
    expected = after_stem(three, before)
    assert torch.allclose(after_stem(other, after), expected, rtol=0, atol=1e-5)
    assert (other.in_channels, len(other.mean), len(other.std)) == (channels, channels, channels)
    apart = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(after_stem(other, apart), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
def test_pretrained_filters_answer_grey_as_before_with_any_number_of_channels(channels: int) -> None:
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    three = build("resnet18", 3, "bundled", image_size=64)
    other = build("resnet18", 3, "bundled", image_size=64, in_channels=channels)
    expected = answers(three, grey.expand(-1, 3, -1, -1))
    assert torch.allclose(answers(other, grey.expand(-1, channels, -1, -1)), expected, rtol=0, atol=1e-5)


def test_every_channel_counts() -> None:
    for channels in (1, 2, 4, 5):
        model = build("resnet18", 3, "bundled", image_size=32, in_channels=channels)
        dark = torch.zeros(1, channels, 32, 32)
        for channel in range(channels):
            lit = dark.clone()
            lit[:, channel, 8:24, 8:24] = 1.0
            assert not torch.allclose(answers(model, lit), answers(model, dark), atol=1e-3), (channels, channel)


def test_channels_that_share_a_colour_share_its_filters() -> None:
    three, five = (build("resnet18", 3, "bundled", in_channels=n).stages["stem"][0].weight for n in (3, 5))
    assert five.shape == (64, 5, 7, 7)
    for channel, sharing in enumerate((2, 2, 1, 2, 2)):
        assert torch.equal(five[:, channel], three[:, channel % 3] / sharing)


def test_three_channels_change_nothing() -> None:
    for one, other in zip(
        build("googlenet", 3, seed=2).state_dict().values(),
        build("googlenet", 3, seed=2, in_channels=3).state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_every_backbone_can_be_adapted(backbone: str) -> None:
    size = backbone_spec(backbone).native_size
    before = build_shapes(backbone, 3)
    for channels in (1, 5, 16):
        model = build_shapes(backbone, 3, in_channels=channels).eval()
        assert model(torch.empty(2, channels, size, size, device="meta")).shape == (2, 3)
        added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in before.parameters())
        assert (added > 0) == (channels > 3)


@pytest.mark.parametrize(
    ("stem", "reason"),
    [
        (nn.Sequential(nn.Flatten(1), nn.Linear(3 * 8 * 8, 4)), "0 such convolutions"),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), "a grouped one"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)), "2 such convolutions"),
    ],
)
def test_a_stem_without_one_plain_convolution_of_the_image_is_refused_by_name(stem: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"own:net.*adapted to 5.*{reason}"):
        input_channels.adapt(stem, 5, IMAGENET, "own:net")


class Standardised(nn.Conv2d):
    """A convolution that scales its filters to one length, as some ResNets have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = self.weight.flatten(1).norm(dim=1)[:, None, None, None]
        return self._conv_forward(x, self.weight / length, self.bias)


def test_a_convolution_that_changes_its_weights_itself_is_refused_and_left_as_it_was() -> None:
    stem = nn.Sequential(Standardised(3, 4, 3))
    with pytest.raises(ConfigError, match=r"own:net.*response"):
        input_channels.adapt(stem, 5, IMAGENET, "own:net")
    assert stem[0].weight.shape == (4, 3, 3, 3)
    assert stem[0].in_channels == 3


@pytest.mark.parametrize("channels", [1, 2])
def test_a_stem_that_is_no_sequence_takes_one_or_two_channels(channels: int) -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.movedim(1, -1))

    stem, images = Stem(), torch.rand(2, 1, 4, 4)
    adapted = input_channels.adapt(stem, channels, HALF, "own:net")
    given = adapted((images.expand(-1, channels, -1, -1) - 0.5) / 0.5)
    assert torch.allclose(given, stem((images.expand(-1, 3, -1, -1) - 0.5) / 0.5), atol=1e-6)


def test_no_channel_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"in_channels must be 1 or more, but got 0"):
        build("resnet18", 3, in_channels=0)
