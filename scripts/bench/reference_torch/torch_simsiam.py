"""SimSiam in PyTorch, written from the paper: the reference in tests and the rival in benchmarks.

Needs `pip install "simsiam-tf[parity]"`. After `copy_weights` it computes what our model computes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
STEMS = {"imagenet": (7, 2, True), "cifar": (3, 1, False), "small": (3, 2, False)}  # kernel, stride, pool


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded by half the kernel, with He-normal weights by fan_out."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Residual(nn.Module):
    """relu(shortcut(x) + branch(x)); the last γ of the branch starts at 0."""

    def __init__(self, inputs: int, width: int, stride: int, kind: str) -> None:
        super().__init__()
        if kind == "basic":
            plan = [(width, 3, stride), (width, 3, 1)]
        else:
            plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        self.depth, self.outputs = len(plan), plan[-1][0]
        last = inputs
        for i, (channels, kernel, s) in enumerate(plan, 1):
            setattr(self, f"conv{i}", conv(last, channels, kernel, s))
            setattr(self, f"bn{i}", nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1))
            last = channels
        nn.init.zeros_(getattr(self, f"bn{self.depth}").weight)
        self.projects = stride > 1 or inputs != self.outputs
        if self.projects:
            self.downsample = conv(inputs, self.outputs, 1, stride)
            self.downsample_bn = nn.BatchNorm2d(self.outputs, eps=1e-5, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.depth else y
        short = self.downsample_bn(self.downsample(x)) if self.projects else x
        return F.relu(short + y)


class Backbone(nn.Module):
    """Images [B, C, H, W] → pooled features [B, F]."""

    def __init__(self, name: str, stem: str = "imagenet", width: float = 1.0, channels: int = 3) -> None:
        super().__init__()
        kind, blocks = DEPTHS[name]
        kernel, stride, pool = STEMS[stem]
        base = round(64 * width)
        self.stem_conv = conv(channels, base, kernel, stride)
        self.stem_bn = nn.BatchNorm2d(base, eps=1e-5, momentum=0.1)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if pool else nn.Identity()
        self.stages = nn.ModuleList()
        last = base
        for stage, count in enumerate(blocks):
            self.stages.append(nn.ModuleList())
            for i in range(count):
                step = 2 if stage and not i else 1
                self.stages[-1].append(Residual(last, base << stage, step, kind))
                last = self.stages[-1][-1].outputs
        self.features = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem_bn(self.stem_conv(x))))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x.mean((2, 3))


def mlp(widths: list[int], bn: list[bool]) -> nn.Sequential:
    """fc layers; BN after those where `bn` is true, which have no bias; ReLU after all but the last."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, has_bn in enumerate(bn, 1):
        parts[f"fc{i}"] = nn.Linear(widths[i - 1], widths[i], bias=not has_bn)
        if has_bn:
            parts[f"bn{i}"] = nn.BatchNorm1d(widths[i], eps=1e-5, momentum=0.1)
        if i < len(bn):
            parts[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(parts)


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Eq. 1."""
    return -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(1).mean()


class SimSiam(nn.Module):
    """Eq. 4 on two views. backbone: a `Backbone`; the heads as in Sec. 3."""

    def __init__(
        self,
        backbone: Backbone,
        d: int = 2048,
        projector_hidden: int | None = None,
        predictor_hidden: int | None = None,
        projector_layers: int = 3,
    ) -> None:
        super().__init__()
        hidden = [projector_hidden or backbone.features] * (projector_layers - 1)
        self.backbone = backbone
        self.projector = mlp([backbone.features, *hidden, d], [True] * projector_layers)
        self.predictor = mlp([d, predictor_hidden or d // 4, d], [True, False])

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """(loss, [z1, z2], [p1, p2])"""
        z = [_wide(self.projector(self.backbone(x))) for x in (x1, x2)]
        p = [_wide(self.predictor(u)) for u in z]
        t = [u.detach() for u in z]
        loss = 0.5 * negative_cosine(p[0], t[1]) + 0.5 * negative_cosine(p[1], t[0])
        return loss, z, p

    def groups(self, lr: float, predictor_lr: float) -> list[dict]:
        """Parameter groups for torch.optim: first f, then h."""
        f = [*self.backbone.parameters(), *self.projector.parameters()]
        return [{"params": f, "lr": lr}, {"params": list(self.predictor.parameters()), "lr": predictor_lr}]


def _wide(x: Tensor) -> Tensor:
    """A bfloat16 tensor in float32, in which losses are computed; others unchanged."""
    return x.float() if x.dtype == torch.bfloat16 else x


def to_torch(array: np.ndarray) -> np.ndarray:
    """A Keras kernel, or its gradient, in PyTorch's layout: HWIO → OIHW, [in, out] → [out, in]."""
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


_TENSOR = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def pairs(ours: Any, theirs: SimSiam) -> Iterator[tuple[str, Any, Tensor]]:
    """(name, Keras variable, PyTorch tensor) for every weight of our model, by the names of its layers.

    Raises:
        ValueError: after the last, when our model has no variable for a tensor of `theirs`.
    """
    left = {n for n in theirs.state_dict() if not n.endswith("num_batches_tracked")}
    for part in ("backbone", "projector", "predictor"):
        for layer in getattr(ours, part).layers:
            place = re.sub(r"^stage(\d)_block(\d+)_", _block, layer.name)
            for variable in layer.variables:
                name = f"{part}.{place}.{_TENSOR[variable.name]}"
                module, _, tensor = name.rpartition(".")
                left.discard(name)
                yield name, variable, getattr(theirs.get_submodule(module), tensor)
    if left:
        raise ValueError(f"Our model has no counterpart of {sorted(left)}.")


def _block(match: re.Match) -> str:
    return f"stages.{int(match[1]) - 1}.{int(match[2]) - 1}."


@torch.no_grad()
def copy_weights(ours: Any, theirs: SimSiam) -> None:
    """Copies our weights and moving statistics into theirs."""
    for name, variable, tensor in pairs(ours, theirs):
        array = to_torch(np.asarray(variable))
        if array.shape != tuple(tensor.shape):
            raise ValueError(f"{name}: ours is {array.shape}, theirs {tuple(tensor.shape)}.")
        tensor.copy_(torch.tensor(array.copy()))
