"""What the tests of the model share: `backbone` runs a test over every family's small member, and slowly over all;
`small_member` over the small ones alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from harness.config.backbone_specs import backbone_spec, backbone_specs

SMALL = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_t",
    "vgg11",
    "vit_b_32",
)

# Small models of every timm family, and what published foundation models add: registers, layer scale, SwiGLU.
TIMM = (
    "timm/test_vit",
    "timm/test_vit3",  # pools by attention
    "timm/vit_tiny_patch16_224?embed_dim=48&depth=4&num_heads=2&swiglu=true&init_values=1e-5&reg_tokens=4",
    "timm/vit_small_patch16_dinov3?embed_dim=48&depth=4&num_heads=2",
    "timm/test_resnet",
    "timm/test_convnext",
    "timm/test_efficientnet",
    "timm/mobilenetv3_small_050",
    "timm/swin_tiny_patch4_window7_224?embed_dim=24",
    "timm/swinv2_tiny_window8_256?embed_dim=24",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backbone" in metafunc.fixturenames:
        metafunc.parametrize(
            "backbone",
            [pytest.param(name, marks=[] if name in SMALL else [pytest.mark.slow]) for name in backbone_specs()],
        )
    if "small_member" in metafunc.fixturenames:
        metafunc.parametrize("small_member", SMALL + TIMM)
    if "timm_member" in metafunc.fixturenames:
        metafunc.parametrize("timm_member", TIMM)


@pytest.fixture
def small_members() -> tuple[str, ...]:
    return SMALL


@pytest.fixture
def timm_members() -> tuple[str, ...]:
    return TIMM


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def smallest() -> Callable[[str], int]:
    """A small image size that is still an image: at least 32 px, and one that the backbone takes."""

    def size(backbone: str) -> int:
        step = backbone_spec(backbone).multiple_of
        if "/swin" in backbone:
            return 2 * step  # in a stage with a single token, no query would learn
        return max(backbone_spec(backbone).min_size, -(-32 // step) * step)

    return size


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """Every parameter and buffer by name, copied."""

    def take(model: nn.Module) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    return take
