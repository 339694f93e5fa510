"""The multiply-adds of networks as published and by hand."""

import keras
import pytest
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.training import costs


def test_resnet18_as_published():
    backbone = nets.build_backbone("resnet18", size=224, channels=3, stem="imagenet")
    assert costs.multiply_adds(backbone, (224, 224, 3)) / 1e9 == pytest.approx(1.81, abs=0.01)


def test_other_layers_by_hand():
    images = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(images)  # 4·4·3 outputs of 9
    x = keras.layers.Reshape((16, 3))(x)
    x = keras.layers.EinsumDense("abc,cd->abd", (16, 5))(x)  # 16·5 outputs of 3
    x = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))  # 16·16 outputs of 5
    network = keras.Model(images, keras.layers.Dense(7)(keras.layers.Flatten()(x)))  # 7 outputs of 256
    by_hand = 4 * 4 * 3 * 9 + 16 * 5 * 3 + 16 * 16 * 5 + 7 * 256
    assert costs.multiply_adds(network, (8, 8, 3)) == by_hand


def test_a_matrix_product_counts_its_inner_length():
    def network(x, training):
        del training
        flat = tf.reshape(x, (4, 6))
        return tf.matmul(flat, tf.ones((4, 5)), transpose_a=True)

    assert costs.multiply_adds(network, (2, 4, 3)) == 6 * 5 * 4


def test_durations_in_words():
    assert [costs.duration(s) for s in (61, 7199, 7200, 90000, 200000)] == [
        "2 minutes", "120 minutes", "2.0 hours", "25.0 hours", "2.3 days",
    ]  # fmt: skip
