"""Convolution with PyTorch's padding."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.nets.cpu import dispatch


@keras.saving.register_keras_serializable("simsiam_tf")
class Conv(keras.layers.Conv2D):
    """Bias-free convolution with PyTorch's padding: kernel_size // 2 on every side.

    On CPUs a training step computes it in the way that is fastest for its shape (`nets.cpu.dispatch`).
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs) -> None:
        kwargs = {
            "use_bias": False,
            "kernel_initializer": keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            **kwargs,
        }
        self.pad = _side(kernel_size) // 2 if _side(strides) > 1 else 0
        # "same" pads as PyTorch does at stride 1 only. At stride 2 the padding is its own op:
        # the gradient of a convolution with explicit padding is 30× slower in bfloat16.
        kwargs["padding"] = "same" if self.pad == 0 and _side(strides) == 1 else "valid"
        super().__init__(filters, kernel_size, strides, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> Any:
        stride = _side(self.strides)
        if training and dispatch.is_dispatched(inputs, _side(self.kernel_size), stride):
            return dispatch.conv_training(inputs, tf.convert_to_tensor(self.kernel), stride)
        if self.pad:
            inputs = tf.pad(inputs, [[0, 0], [self.pad] * 2, [self.pad] * 2, [0, 0]])
        return super().call(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        b, h, w, _ = input_shape
        stride = _side(self.strides)
        return (b, *(None if n is None else (n - 1) // stride + 1 for n in (h, w)), self.filters)


def _side(value: int | tuple) -> int:
    return value if isinstance(value, int) else value[0]
