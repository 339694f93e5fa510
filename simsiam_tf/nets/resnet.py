"""ResNets as PyTorch defines them (v1.5), with ImageNet, CIFAR and small stems."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras

from simsiam_tf.nets.batch_norm import BatchNorm
from simsiam_tf.nets.conv import Conv

STEMS = ("imagenet", "cifar", "small", "cifar_pad2")
RESNETS = {  # name: (block, blocks in each of the four stages)
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "wide_resnet50": ("wide", (3, 4, 6, 3)),
    "wide_resnet101": ("wide", (3, 4, 23, 3)),
}


_BLOCKS = {  # convolutions of a block: kernel, expansion of the width, whether it has the stride (v1.5)
    "basic": ((3, 1, True), (3, 1, False)),
    "bottleneck": ((1, 1, False), (3, 1, True), (1, 4, False)),
    "wide": ((1, 2, False), (3, 2, True), (1, 4, False)),  # Zagoruyko and Komodakis 2016, as torchvision's
}


def _block(x: Any, kind: str, width: int, stride: int, name: str) -> Any:
    """A residual block: [B, H, W, C] → [B, ⌈H/stride⌉, ⌈W/stride⌉, expansion · width]."""
    convolutions, y, channels = _BLOCKS[kind], x, 0
    for i, (kernel, expansion, has_stride) in enumerate(convolutions, 1):
        channels, is_last = expansion * width, i == len(convolutions)
        y = Conv(channels, kernel, stride if has_stride else 1, name=f"{name}_conv{i}")(y)
        y = BatchNorm(zero_gamma=is_last, name=f"{name}_bn{i}")(y)
        if not is_last:
            y = keras.layers.ReLU(name=f"{name}_relu{i}")(y)
    if stride != 1 or x.shape[-1] != channels:
        x = Conv(channels, 1, stride, name=f"{name}_downsample")(x)
        x = BatchNorm(name=f"{name}_downsample_bn")(x)
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def _stem(x: Any, stem: str, width: int) -> Any:
    kernel, stride = {"imagenet": (7, 2), "small": (3, 2)}.get(stem, (3, 1))
    if stem == "cifar_pad2":
        x = keras.layers.ZeroPadding2D(1, name="stem_wider")(x)
    x = Conv(width, kernel, stride, name="stem_conv")(x)
    x = BatchNorm(name="stem_bn")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    if stem == "imagenet":
        # The maximum of a ReLU's outputs is the same with a padding of 0 and of PyTorch's −∞.
        x = keras.layers.ZeroPadding2D(1, name="stem_pad")(x)
        x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return x


def resnet(name: str, stem: str = "imagenet", width: float = 1.0, channels: int = 3) -> keras.Model:
    """A backbone: images [B, H, W, channels], normalised → pooled features [B, F].

    Args:
        name: a key of `RESNETS`. F = 512 · width (basic blocks) or 2048 · width.
        stem: "imagenet" (7×7 stride 2, max-pool), "cifar" (3×3 stride 1, no pool; App. D),
            "small" (3×3 stride 2, no pool: small images on a CPU), or "cifar_pad2" ("cifar" with one
            more pixel of padding, as in solo-learn).
        width: multiplies all channel counts, 64 at the first stage.
        channels: channels of the images: 3 for colour, 1 for gray, or any other number.

    Raises:
        ValueError: an unknown name or stem, or a width that leaves no channels.
    """
    if name not in RESNETS:
        raise ValueError(f"No ResNet is called {name!r}. Choose from {', '.join(RESNETS)}.")
    if stem not in STEMS:
        raise ValueError(f"No stem is called {stem!r}. Choose from {', '.join(STEMS)}.")
    base = round(64 * width)
    if base < 1:
        raise ValueError(f"width={width} leaves no channels. Try a width of 0.125 or more.")
    block, counts = RESNETS[name]
    images = keras.Input((None, None, channels), name="images")
    x = _stem(images, stem, base)
    for stage, count in enumerate(counts):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            x = _block(x, block, base * 2**stage, stride, f"stage{stage + 1}_block{i + 1}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, x, name="backbone")


def build_resnet(size: int, channels: int, options: Mapping[str, Any]) -> keras.Model:
    """The builder of all rows of `config.backbones.BACKBONES`; `size` is not used."""
    return resnet(options["name"], options["stem"], options["width"], channels)


resnet10 = functools.partial(resnet, "resnet10")
resnet18 = functools.partial(resnet, "resnet18")
resnet34 = functools.partial(resnet, "resnet34")
resnet50 = functools.partial(resnet, "resnet50")
resnet101 = functools.partial(resnet, "resnet101")
