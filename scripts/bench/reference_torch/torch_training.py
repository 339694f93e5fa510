"""A training step of SimSiam as users of PyTorch write it: channels-last memory, autocast, SGD."""

from __future__ import annotations

from collections.abc import Callable

import torch

from reference_torch import torch_simsiam
from simsiam_tf.config import PretrainConfig

Step = Callable[[torch.Tensor, torch.Tensor], None]


def build(
    config: PretrainConfig,
    size: int,
    channels: int,
    precision: str,
    compiled: bool = False,
    device: str = "cpu",
) -> tuple[Step, int]:
    """(step of a configuration for two views [B, C, H, W], number of parameters).

    size, channels: of the views. compiled: whether torch.compile compiles the model.
    device: "cpu", or "cuda", where float32 products take TF32 as TensorFlow's do, cuDNN tries its algorithms
        and keeps the fastest, and a step returns before the GPU is done, so its loss is not checked.
    """
    if device != "cpu":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    stem = config.stem_for(size)
    backbone = torch_simsiam.Backbone(config.backbone, stem, config.width, channels)
    model = torch_simsiam.SimSiam(
        backbone, config.d, config.projector_hidden, config.predictor_hidden, config.projector_layers
    )
    count = sum(p.numel() for p in model.parameters())
    model = model.train().to(device, memory_format=torch.channels_last)
    lr = config.base_lr * config.batch_size / 256
    sgd = torch.optim.SGD(
        model.groups(lr, lr), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    forward = torch.compile(model) if compiled else model

    def step(*views: torch.Tensor) -> None:
        sgd.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(*(x.contiguous(memory_format=torch.channels_last) for x in views))[0]
        loss.backward()
        sgd.step()
        if device == "cpu" and not torch.isfinite(loss):
            raise SystemExit(f"PyTorch's loss became {loss.item()}.")

    return step, count
