"""Convolution with PyTorch's padding."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.nets.cpu import dispatch


@keras.saving.register_keras_serializable("simsiam_tf")
class Conv(keras.layers.Conv2D):
    """Convolution with PyTorch's padding, kernel_size // 2 on every side, whose only weight is the kernel.

    On CPUs a training step uses the algorithm that is fastest for the shape (`nets.cpu.dispatch`).

    Args:
        kwargs: other arguments of Conv2D; `padding` is ignored.

    Raises:
        ValueError: the arguments make a layer for which `is_plain` is false.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs) -> None:
        kwargs = {
            "use_bias": False,
            "kernel_initializer": keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            **kwargs,
            "padding": "valid",
        }
        super().__init__(filters, kernel_size, strides, **kwargs)
        if not is_plain(self):
            raise ValueError(
                "Conv has an odd square kernel, one stride, channels_last, and neither bias, activation, "
                "groups nor dilation. Use keras.layers.Conv2D. "
                f"Received: {kernel_size=}, {strides=}, {kwargs}."
            )
        self.stride, self.pad = self.strides[0], self.kernel_size[0] // 2
        # "same" pads as PyTorch does at stride 1 only. At stride 2 the padding is an op of its own: on CPUs
        # the gradient of a convolution with explicit padding is 30× slower in bfloat16.
        if self.stride == 1:
            self.padding, self.pad = "same", 0

    def call(self, inputs: tf.Tensor, training: bool = False) -> Any:
        if training and dispatch.is_dispatched(inputs, self.kernel_size[0], self.stride):
            return dispatch.conv_training(inputs, tf.convert_to_tensor(self.kernel), self.stride)
        if self.pad:
            inputs = tf.pad(inputs, [[0, 0], [self.pad] * 2, [self.pad] * 2, [0, 0]])
        return super().call(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        b, h, w, _ = input_shape
        return (b, *(None if n is None else (n - 1) // self.stride + 1 for n in (h, w)), self.filters)


def is_plain(layer: keras.layers.Conv2D) -> bool:
    """Whether a `Conv` can compute the layer, provided that its padding is PyTorch's."""
    return (
        not layer.use_bias
        and layer.activation is keras.activations.linear
        and (layer.groups, layer.dilation_rate, layer.data_format) == (1, (1, 1), "channels_last")
        and len({*layer.kernel_size}) == len({*layer.strides}) == layer.kernel_size[0] % 2 == 1
    )
