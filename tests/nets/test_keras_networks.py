"""Networks of stock layers and of training's layers are the same network."""

import random

import keras
import numpy as np
import pytest
from keras import layers

from simsiam_tf import nets
from simsiam_tf.nets.keras_networks import to_stock_layers, to_training_layers


def settled(network, seed=0):
    """The network with BN as after training."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if variable.name != "kernel":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return network


def names(network):
    return [(layer.name, type(layer)) for layer in network.layers]


NETWORKS = {
    **{stem: lambda stem=stem: nets.resnet10(stem, width=0.125) for stem in nets.STEMS},
    "bottlenecks": lambda: nets.resnet50("imagenet", width=0.125),
    "projector": lambda: nets.projector(24, 8),
    "projector without γ and β": lambda: nets.projector(24, 8, output_affine=False),
    "projector without β": lambda: nets.projector(24, 8, output_shift=False),
    "sequential": lambda: keras.Sequential(
        [keras.Input((16, 16, 3)), nets.Conv(8, 3, 2), nets.BatchNorm(), layers.GlobalAveragePooling2D()]
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "bottlenecks" else n for n in NETWORKS]
)
def test_there_and_back_is_the_same_network(name):
    network = settled(NETWORKS[name]())
    drawn = random.getstate()
    stock = to_stock_layers(network)
    back = to_training_layers(stock)
    assert random.getstate() == drawn  # which Keras' initial values come from
    assert {type(layer).__module__.split(".")[0] for layer in stock.layers} == {"keras"}
    assert names(back) == names(network)
    shape = (4, *(side or 16 for side in network.input_shape[1:]))
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    y = network(x, training=False).numpy()
    assert np.abs(stock(x, training=False) - y).max() < 1e-5 * np.abs(y).max()
    for training in (False, True):
        np.testing.assert_array_equal(back(x, training=training), network(x, training=training))
    for ours, theirs in zip(network.weights, back.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_stock_layers_train_on_the_same_moments():
    """Keras' moving variance is the biased one; mean and momentum are alike."""
    network = nets.resnet10("cifar", width=0.125)
    stock = to_stock_layers(network)
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(stock(x, training=True), network(x, training=True), atol=1e-5)
    means = [net.get_layer("stem_bn").moving_mean.numpy() for net in (network, stock)]
    np.testing.assert_allclose(*means, atol=1e-6)
    assert np.abs(means[0]).max() > 0


def test_what_training_layers_do_not_compute_stays_stock():
    images = keras.Input((16, 16, 3))
    padded = layers.ZeroPadding2D(1)(images)
    x = layers.Conv2D(4, 3, 2, use_bias=False)(padded)
    y = layers.Conv2D(4, 3, 2, use_bias=False)(padded)  # the padding is for both
    z = layers.Conv2D(4, 3, 2, use_bias=False)(layers.ZeroPadding2D(2)(images))
    x = layers.Concatenate()([x, y, layers.Cropping2D(((0, 1), (1, 0)))(z)])
    for options in (
        {"use_bias": True}, {"activation": "relu"}, {"groups": 2}, {"dilation_rate": 2}, {"strides": 2},
        {"kernel_size": 2}, {"padding": "valid"},
    ):  # fmt: skip
        x = layers.Conv2D(
            **{"filters": 8, "kernel_size": 3, "padding": "same", "use_bias": False, **options}
        )(x)
    x = layers.BatchNormalization(beta_regularizer="l2")(layers.BatchNormalization(scale=False)(x))
    network = keras.Model(images, x)
    rebuilt = to_training_layers(network)
    assert names(rebuilt)[1:] == names(network)[1:]
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    for training in (False, True):
        np.testing.assert_array_equal(rebuilt(x, training=training), network(x, training=training))


def test_a_network_within_and_a_frozen_layer_are_rebuilt():
    inner = settled(nets.resnet10("small", width=0.125, channels=1))
    inner.get_layer("stem_bn").trainable = False
    images = keras.Input((16, 16, 1), name="images")
    network = keras.Model(images, layers.Dense(3)(inner(images)))
    stock = to_stock_layers(network)
    back = to_training_layers(stock)
    assert names(back.get_layer("backbone")) == names(inner) and names(stock.get_layer("backbone")) != names(
        inner
    )
    assert [v.path for v in back.trainable_variables] == [v.path for v in network.trainable_variables]
    x = np.ones((2, 16, 16, 1), np.float32)
    np.testing.assert_array_equal(back(x, training=True), network(x, training=True))
