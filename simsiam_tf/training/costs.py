"""The work of a network: its multiply-adds, and the time that they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from simsiam_tf.runtime.devices import on_cpu
from simsiam_tf.runtime.display_text import counted

Network = Callable[..., Any]  # (images [1, H, W, C], training=…) → outputs

PASSES = 3  # the forward pass, and the gradients of activations and of weights, each about as much work
SPEEDS = {  # whether on a CPU → (multiply-adds a second in training, by order of magnitude; device)
    True: (5e10, "two CPU cores"),
    False: (1e13, "one GPU in bfloat16"),
}


def multiply_adds(network: Network, shape: Sequence[int]) -> int:
    """The multiply-adds of a forward pass for one image, in convolutions and matrix products.

    shape: [H, W, C] of the image.
    """
    return sum(_multiply_adds(op) for op in _operations(network, shape))


def work_in_words(total: float) -> str:
    """The work and the time of a training, as text. total: its multiply-adds, gradients included."""
    speed, device = SPEEDS[on_cpu()]
    return f"about {total:.2g} multiply-adds; {duration(total / speed)} at {speed:.0e} a second, as {device}"


def duration(seconds: float) -> str:
    """Seconds in words: "12 minutes", "3.5 hours" or "2.1 days"."""
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return counted(math.ceil(seconds / 60), "minute")


def _operations(network: Network, shape: Sequence[int]) -> list[tf.Operation]:
    """The operations of a network's graph in inference."""
    forward = tf.function(lambda x: network(x, training=False), autograph=False)
    graph = forward.get_concrete_function(tf.TensorSpec([1, *shape])).graph
    return graph.get_operations()


def _multiply_adds(op: tf.Operation) -> int:
    if op.type not in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum"):
        return 0
    (out, *_), (first, second, *_) = op.outputs, op.inputs
    if op.type == "Einsum":
        equation = op.get_attr("equation").decode()
        sizes: dict[str, int] = {}
        for letters, tensor in zip(equation.split("->")[0].split(","), op.inputs, strict=True):
            sizes |= dict(zip(letters, _shape(tensor), strict=True))
        return math.prod(sizes.values())
    outputs = math.prod(_shape(out))
    if op.type == "Conv2D":
        return outputs * math.prod(_shape(second)[:3])
    if op.type == "DepthwiseConv2dNative":
        return outputs * math.prod(_shape(second)[:2])
    return outputs * _shape(first)[-2 if _transposed(op) else -1]


def _shape(tensor: Any) -> list[int]:
    return tensor.shape.as_list()


def _transposed(op: tf.Operation) -> bool:
    return op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
