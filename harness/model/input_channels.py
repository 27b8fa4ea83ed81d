"""Models of images with another number of channels than three, made from three-channel backbones.

Channel j takes over the filters and the normalisation of colour j mod 3 (red, green, blue), and the filters of channels
that share a colour are divided by their number. So the response to a grey image is kept exactly, at padded borders too:
each colour's filters see together what they saw alone. timm's `in_chans` repeats in the same way, but divides all
filters by N / 3, which keeps the response only if N is a multiple of 3.

With one or two channels there are fewer channels than colours, and no convolution of so few channels gives the same
outputs, because a padded border (0 after normalisation) stands for another grey in each colour. The stem then begins
with a fixed layer that mixes the channels to three colours, and the convolution stays as it is: one channel is all
three colours; of two channels, the first is red, the second green, and their mean blue.

Random weights are adapted by the same rule, so that channels that share a colour start with the same filters.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from harness.config.backbone_specs import Normalisation
from harness.errors import ConfigError

COLOURS = 3
_SAME = 1e-4  # largest difference of two responses by rounding, as a share of the largest response
_MIXES = {1: ((1.0,), (1.0,), (1.0,)), 2: ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))}  # shares of the channels in each colour


class Colours(nn.Module):
    """Mixes one or two normalised channels to three colours, each normalised as the weights expect.

    Images (N, 1 or 2, H, W), of which channel j is normalised as colour j, become (N, 3, H, W).
    """

    def __init__(self, channels: int, normalisation: Normalisation) -> None:
        super().__init__()
        mean, std = normalisation
        self._terms: list[tuple[list[float], float]] = []  # for each colour, factors of the channels, and a constant
        for colour, shares in enumerate(_MIXES[channels]):
            factors = [share * std[channel] / std[colour] for channel, share in enumerate(shares)]
            grey = sum(share * mean[channel] for channel, share in enumerate(shares))  # that a normalised 0 stands for
            self._terms.append((factors, (grey - mean[colour]) / std[colour]))

    def forward(self, x: Tensor) -> Tensor:
        colours = []
        for factors, constant in self._terms:
            parts = [x[:, channel] * factor for channel, factor in enumerate(factors) if factor]
            colours.append(sum(parts[1:], parts[0]) + constant)
        return torch.stack(colours, dim=1)


def normalisation_of(normalisation: Normalisation, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each of `channels` channels: channel j has those of colour j mod 3."""
    mean, std = normalisation
    return tuple(mean[j % COLOURS] for j in range(channels)), tuple(std[j % COLOURS] for j in range(channels))


def adapt(stem: nn.Module, channels: int, normalisation: Normalisation, backbone: str) -> nn.Module:
    """Return the stem for images of `channels` channels; its first convolution is changed in place.

    A stem for three channels is returned as it is.

    Args:
        stem: of a three-channel backbone, after its weights were loaded.
        channels: 1 or more.
        normalisation: of the three colours, as the weights expect it.
        backbone: its name, for errors.

    Raises:
        ConfigError: there are more than two channels that are not three, and the stem has no ordinary convolution that
            alone sees the image.
    """
    if channels == COLOURS:
        return stem
    if channels < COLOURS:
        own = OrderedDict(stem.named_children()) if type(stem) is nn.Sequential else OrderedDict(network=stem)
        return nn.Sequential(OrderedDict([("colours", Colours(channels, normalisation)), *own.items()]))
    convolution = _first_convolution(stem, channels, backbone)
    before = convolution.weight.detach()
    sharing = [len(range(colour, channels, COLOURS)) for colour in range(COLOURS)]  # channels of each colour
    with torch.no_grad():
        slices = [before[:, j % COLOURS] / sharing[j % COLOURS] for j in range(channels)]
        after = torch.stack(slices, dim=1).contiguous()
        expected, given = _response(convolution, before, COLOURS), _response(convolution, after, channels)
    if (
        expected is not None
        and given is not None
        and float((given - expected).abs().max()) > _SAME * float(expected.abs().max())
    ):
        raise ConfigError(
            f"the first convolution of {backbone} must keep its response to a grey image with {channels} channels, but "
            "it does not, because it changes its weights itself; use another backbone, or three channels."
        )
    convolution.weight = nn.Parameter(after, requires_grad=convolution.weight.requires_grad)
    convolution.in_channels = channels
    return stem


def _first_convolution(stem: nn.Module, channels: int, backbone: str) -> nn.Conv2d:
    """Return the convolution that sees the image: the only one in the stem with three input channels."""
    found = [m for m in stem.modules() if isinstance(m, nn.Conv2d) and m.in_channels == COLOURS]
    if len(found) == 1 and found[0].groups == 1:
        return found[0]
    what = f"{len(found)} such convolutions" if len(found) != 1 else "a grouped one"
    raise ConfigError(
        f"the stem of {backbone} must have one ungrouped convolution of three channels, which is adapted to "
        f"{channels}, but it has {what}; use another backbone, or data.channels with three channels."
    )


def _response(convolution: nn.Conv2d, weight: Tensor, channels: int) -> Tensor | None:
    """Return the outputs of the layer for a grey gradient in every channel, as with `weight`; None without values."""
    if weight.is_meta:
        return None
    height, width = (
        4 * (size - 1) * step + 5 for size, step in zip(weight.shape[2:], convolution.dilation, strict=True)
    )
    grey = torch.linspace(-1, 1, height * width, dtype=weight.dtype, device=weight.device).view(1, 1, height, width)
    kept, number = convolution.weight, convolution.in_channels
    try:
        convolution.weight, convolution.in_channels = nn.Parameter(weight, requires_grad=False), channels
        response: Tensor = convolution(grey.expand(-1, channels, -1, -1))
    finally:
        convolution.weight, convolution.in_channels = kept, number
    return response
