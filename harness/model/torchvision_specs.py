"""The specs of torchvision's classifiers: plain values, without torch. A test builds every model and compares."""

from __future__ import annotations

from collections.abc import Iterator

from harness.config.backbone_specs import HALF, IMAGENET, BackboneSpec, Normalisation
from harness.model.torchvision_enums import official


def _family(
    family: str,
    rows: tuple[tuple[str, int, int, int, str], ...],
    *,
    batchnorm: bool,
    random: bool,
    normalisation: Normalisation = IMAGENET,
    multiples: bool = False,
) -> Iterator[BackboneSpec]:
    """Return the specs of backbones that share the keywords. With `multiples`, sizes are multiples of the smallest."""
    for name, native, smallest, features, weights in rows:
        step = smallest if multiples else 1
        published = official(name)
        licence = next(one.licence for one in published if one.name == weights)
        yield BackboneSpec(
            name,
            family,
            native,
            smallest,
            step,
            normalisation,
            weights,
            licence,
            batchnorm,
            random,
            features,
            weights=published,
        )


# name, native size, smallest size, features, official weights
_ALL = (
    *_family(
        "alexnet", batchnorm=False, random=True, rows=(("alexnet", 224, 63, 4096, "AlexNet_Weights.IMAGENET1K_V1"),)
    ),
    *_family(
        "convnext",
        batchnorm=False,
        random=True,
        rows=(
            ("convnext_base", 224, 32, 1024, "ConvNeXt_Base_Weights.IMAGENET1K_V1"),
            ("convnext_large", 224, 32, 1536, "ConvNeXt_Large_Weights.IMAGENET1K_V1"),
            ("convnext_small", 224, 32, 768, "ConvNeXt_Small_Weights.IMAGENET1K_V1"),
            ("convnext_tiny", 224, 32, 768, "ConvNeXt_Tiny_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "densenet",
        batchnorm=True,
        random=False,
        rows=(
            ("densenet121", 224, 29, 1024, "DenseNet121_Weights.IMAGENET1K_V1"),
            ("densenet161", 224, 29, 2208, "DenseNet161_Weights.IMAGENET1K_V1"),
            ("densenet169", 224, 29, 1664, "DenseNet169_Weights.IMAGENET1K_V1"),
            ("densenet201", 224, 29, 1920, "DenseNet201_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "efficientnet",
        batchnorm=True,
        random=True,
        rows=(
            ("efficientnet_b0", 224, 1, 1280, "EfficientNet_B0_Weights.IMAGENET1K_V1"),
            ("efficientnet_b1", 240, 1, 1280, "EfficientNet_B1_Weights.IMAGENET1K_V2"),
            ("efficientnet_b2", 288, 1, 1408, "EfficientNet_B2_Weights.IMAGENET1K_V1"),
            ("efficientnet_b3", 300, 1, 1536, "EfficientNet_B3_Weights.IMAGENET1K_V1"),
            ("efficientnet_b4", 380, 1, 1792, "EfficientNet_B4_Weights.IMAGENET1K_V1"),
            ("efficientnet_b5", 456, 1, 2048, "EfficientNet_B5_Weights.IMAGENET1K_V1"),
            ("efficientnet_b6", 528, 1, 2304, "EfficientNet_B6_Weights.IMAGENET1K_V1"),
            ("efficientnet_b7", 600, 1, 2560, "EfficientNet_B7_Weights.IMAGENET1K_V1"),
            ("efficientnet_v2_m", 480, 1, 1280, "EfficientNet_V2_M_Weights.IMAGENET1K_V1"),
            ("efficientnet_v2_s", 384, 1, 1280, "EfficientNet_V2_S_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "efficientnet",
        batchnorm=True,
        random=True,
        normalisation=HALF,
        rows=(("efficientnet_v2_l", 480, 1, 1280, "EfficientNet_V2_L_Weights.IMAGENET1K_V1"),),
    ),
    *_family(
        "googlenet",
        batchnorm=True,
        random=True,
        rows=(("googlenet", 224, 15, 1024, "GoogLeNet_Weights.IMAGENET1K_V1"),),
    ),
    *_family(
        "inception",
        batchnorm=True,
        random=True,
        rows=(("inception_v3", 299, 75, 2048, "Inception_V3_Weights.IMAGENET1K_V1"),),
    ),
    *_family(
        "maxvit",
        batchnorm=True,
        random=True,
        multiples=True,
        rows=(("maxvit_t", 224, 224, 512, "MaxVit_T_Weights.IMAGENET1K_V1"),),
    ),
    *_family(
        "mnasnet",
        batchnorm=True,
        random=True,
        rows=(
            ("mnasnet0_5", 224, 1, 1280, "MNASNet0_5_Weights.IMAGENET1K_V1"),
            ("mnasnet0_75", 224, 1, 1280, "MNASNet0_75_Weights.IMAGENET1K_V1"),
            ("mnasnet1_0", 224, 1, 1280, "MNASNet1_0_Weights.IMAGENET1K_V1"),
            ("mnasnet1_3", 224, 1, 1280, "MNASNet1_3_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "mobilenet_v2",
        batchnorm=True,
        random=True,
        rows=(("mobilenet_v2", 224, 1, 1280, "MobileNet_V2_Weights.IMAGENET1K_V2"),),
    ),
    *_family(
        "mobilenet_v3",
        batchnorm=True,
        random=True,
        rows=(
            ("mobilenet_v3_large", 224, 1, 1280, "MobileNet_V3_Large_Weights.IMAGENET1K_V2"),
            ("mobilenet_v3_small", 224, 1, 1024, "MobileNet_V3_Small_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "regnet",
        batchnorm=True,
        random=False,
        rows=(
            ("regnet_x_1_6gf", 224, 1, 912, "RegNet_X_1_6GF_Weights.IMAGENET1K_V2"),
            ("regnet_x_3_2gf", 224, 1, 1008, "RegNet_X_3_2GF_Weights.IMAGENET1K_V2"),
            ("regnet_x_8gf", 224, 1, 1920, "RegNet_X_8GF_Weights.IMAGENET1K_V2"),
            ("regnet_x_16gf", 224, 1, 2048, "RegNet_X_16GF_Weights.IMAGENET1K_V2"),
            ("regnet_x_32gf", 224, 1, 2520, "RegNet_X_32GF_Weights.IMAGENET1K_V2"),
            ("regnet_x_400mf", 224, 1, 400, "RegNet_X_400MF_Weights.IMAGENET1K_V2"),
            ("regnet_x_800mf", 224, 1, 672, "RegNet_X_800MF_Weights.IMAGENET1K_V2"),
            ("regnet_y_1_6gf", 224, 1, 888, "RegNet_Y_1_6GF_Weights.IMAGENET1K_V2"),
            ("regnet_y_3_2gf", 224, 1, 1512, "RegNet_Y_3_2GF_Weights.IMAGENET1K_V2"),
            ("regnet_y_8gf", 224, 1, 2016, "RegNet_Y_8GF_Weights.IMAGENET1K_V2"),
            ("regnet_y_16gf", 224, 1, 3024, "RegNet_Y_16GF_Weights.IMAGENET1K_V2"),
            ("regnet_y_32gf", 224, 1, 3712, "RegNet_Y_32GF_Weights.IMAGENET1K_V2"),
            ("regnet_y_128gf", 384, 1, 7392, "RegNet_Y_128GF_Weights.IMAGENET1K_SWAG_E2E_V1"),
            ("regnet_y_400mf", 224, 1, 440, "RegNet_Y_400MF_Weights.IMAGENET1K_V2"),
            ("regnet_y_800mf", 224, 1, 784, "RegNet_Y_800MF_Weights.IMAGENET1K_V2"),
        ),
    ),
    *_family(
        "resnet",
        batchnorm=True,
        random=False,
        rows=(
            ("resnet18", 224, 1, 512, "ResNet18_Weights.IMAGENET1K_V1"),
            ("resnet34", 224, 1, 512, "ResNet34_Weights.IMAGENET1K_V1"),
            ("resnet50", 224, 1, 2048, "ResNet50_Weights.IMAGENET1K_V2"),
            ("resnet101", 224, 1, 2048, "ResNet101_Weights.IMAGENET1K_V2"),
            ("resnet152", 224, 1, 2048, "ResNet152_Weights.IMAGENET1K_V2"),
            ("resnext50_32x4d", 224, 1, 2048, "ResNeXt50_32X4D_Weights.IMAGENET1K_V2"),
            ("resnext101_32x8d", 224, 1, 2048, "ResNeXt101_32X8D_Weights.IMAGENET1K_V2"),
            ("resnext101_64x4d", 224, 1, 2048, "ResNeXt101_64X4D_Weights.IMAGENET1K_V1"),
            ("wide_resnet50_2", 224, 1, 2048, "Wide_ResNet50_2_Weights.IMAGENET1K_V2"),
            ("wide_resnet101_2", 224, 1, 2048, "Wide_ResNet101_2_Weights.IMAGENET1K_V2"),
        ),
    ),
    *_family(
        "shufflenet",
        batchnorm=True,
        random=False,
        rows=(
            ("shufflenet_v2_x0_5", 224, 1, 1024, "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"),
            ("shufflenet_v2_x1_0", 224, 1, 1024, "ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1"),
            ("shufflenet_v2_x1_5", 224, 1, 1024, "ShuffleNet_V2_X1_5_Weights.IMAGENET1K_V1"),
            ("shufflenet_v2_x2_0", 224, 1, 2048, "ShuffleNet_V2_X2_0_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "squeezenet",
        batchnorm=False,
        random=True,
        rows=(
            ("squeezenet1_0", 224, 21, 512, "SqueezeNet1_0_Weights.IMAGENET1K_V1"),
            ("squeezenet1_1", 224, 17, 512, "SqueezeNet1_1_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "swin",
        batchnorm=False,
        random=True,
        rows=(
            ("swin_b", 224, 4, 1024, "Swin_B_Weights.IMAGENET1K_V1"),
            ("swin_s", 224, 4, 768, "Swin_S_Weights.IMAGENET1K_V1"),
            ("swin_t", 224, 4, 768, "Swin_T_Weights.IMAGENET1K_V1"),
            ("swin_v2_b", 256, 4, 1024, "Swin_V2_B_Weights.IMAGENET1K_V1"),
            ("swin_v2_s", 256, 4, 768, "Swin_V2_S_Weights.IMAGENET1K_V1"),
            ("swin_v2_t", 256, 4, 768, "Swin_V2_T_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "vgg",
        batchnorm=False,
        random=True,
        rows=(
            ("vgg11", 224, 32, 4096, "VGG11_Weights.IMAGENET1K_V1"),
            ("vgg13", 224, 32, 4096, "VGG13_Weights.IMAGENET1K_V1"),
            ("vgg16", 224, 32, 4096, "VGG16_Weights.IMAGENET1K_V1"),
            ("vgg19", 224, 32, 4096, "VGG19_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "vgg",
        batchnorm=True,
        random=True,
        rows=(
            ("vgg11_bn", 224, 32, 4096, "VGG11_BN_Weights.IMAGENET1K_V1"),
            ("vgg13_bn", 224, 32, 4096, "VGG13_BN_Weights.IMAGENET1K_V1"),
            ("vgg16_bn", 224, 32, 4096, "VGG16_BN_Weights.IMAGENET1K_V1"),
            ("vgg19_bn", 224, 32, 4096, "VGG19_BN_Weights.IMAGENET1K_V1"),
        ),
    ),
    *_family(
        "vit",
        batchnorm=False,
        random=False,
        multiples=True,
        rows=(
            ("vit_b_16", 224, 16, 768, "ViT_B_16_Weights.IMAGENET1K_V1"),
            ("vit_b_32", 224, 32, 768, "ViT_B_32_Weights.IMAGENET1K_V1"),
            ("vit_h_14", 518, 14, 1280, "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1"),
            ("vit_l_16", 224, 16, 1024, "ViT_L_16_Weights.IMAGENET1K_V1"),
            ("vit_l_32", 224, 32, 1024, "ViT_L_32_Weights.IMAGENET1K_V1"),
        ),
    ),
)

SPECS: dict[str, BackboneSpec] = {entry.name: entry for entry in sorted(_ALL, key=lambda entry: entry.name)}
