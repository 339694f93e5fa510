"""Weights of EfficientNet-Lite by efficientnet_pytorch's names."""

import functools

import numpy as np

EXPANSION, STEM, HEAD = 2, 8, 20
WIDTHS, DEPTHS = (4, 6, 8, 10, 12, 14, 16), (1, 2, 1, 1, 1, 1, 1)


def lite_state(widths=WIDTHS, depths=DEPTHS, channels=3, seed=0):
    """name → random array of a small network; widths, depths: of the seven stages."""
    rng, state = np.random.default_rng(seed), {}

    def conv(name, *shape):
        fan_in = shape[1] * shape[2] ** 2
        state[f"{name}.weight"] = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)

    def bn(name, width):
        for kind, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{name}.{kind}"] = rng.uniform(low, low + 1, width).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(3, np.int64)

    conv("_conv_stem", STEM, channels, 3, 3)
    bn("_bn0", STEM)
    before, number = STEM, 0
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(depth):
            block, inner = f"_blocks.{number}", before * (EXPANSION if stage else 1)
            if stage:
                conv(f"{block}._expand_conv", inner, before, 1, 1)
                bn(f"{block}._bn0", inner)
            size = 5 if stage % 2 else 3
            conv(f"{block}._depthwise_conv", inner, 1, size, size)
            bn(f"{block}._bn1", inner)
            conv(f"{block}._project_conv", width, inner, 1, 1)
            bn(f"{block}._bn2", width)
            before, number = width, number + 1
    conv("_conv_head", HEAD, before, 1, 1)
    bn("_bn1", HEAD)
    state["_fc.weight"], state["_fc.bias"] = np.ones((5, HEAD), np.float32), np.ones(5, np.float32)
    return state


def from_timm(net):
    """The state_dict of timm's network by efficientnet_pytorch's names, in the same order."""
    depths = [len(stage) for stage in net.blocks]
    return dict(zip(lite_state(depths=depths), net.state_dict().values(), strict=True))


def small_timm():
    """timm's EfficientNet-Lite with the architecture of `lite_state`."""
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.efficientnet import EfficientNet
    from torch import nn

    stages = [
        [f"{'ir' if i else 'ds'}_r{depth}_k{5 if i % 2 else 3}_s{stride}_e{EXPANSION if i else 1}_c{width}"]
        for i, (width, depth, stride) in enumerate(zip(WIDTHS, DEPTHS, (1, 2, 2, 2, 1, 2, 1), strict=True))
    ]
    return EfficientNet(
        decode_arch_def(stages), 5, HEAD, stem_size=STEM, fix_stem=True, pad_type="same", act_layer=nn.ReLU6,
        round_chs_fn=lambda channels: channels, norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3),
    )  # fmt: skip
