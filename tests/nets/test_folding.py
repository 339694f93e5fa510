"""BN folded into convolutions leaves the features of inference as they are."""

import keras
import numpy as np
import pytest
from keras import layers

from simsiam_tf import nets
from simsiam_tf.nets.folding import fold_batch_norms
from simsiam_tf.nets.keras_networks import to_stock_layers


def settled(network, seed=0):
    """The network with BN and biases as after training."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if "kernel" not in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return network


def count(network, kind):
    return sum(kind in type(layer).__name__ for layer in network._flatten_layers())


def assert_same_features(network, folded):
    shape = (3, *(side or 33 for side in network.input_shape[1:]))
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    y = network(x, training=False).numpy()
    assert np.ptp(y) > 0
    np.testing.assert_allclose(folded(x, training=False), y, rtol=0, atol=1e-5 * np.abs(y).max())


NETWORKS = {
    **{stem: lambda stem=stem: nets.resnet10(stem, width=0.125) for stem in nets.STEMS},
    "bottlenecks": lambda: nets.resnet50("imagenet", width=0.125),
    "stock layers": lambda: to_stock_layers(nets.resnet10("small", width=0.125)),
    "depthwise": lambda: keras.applications.MobileNetV2(
        (32, 32, 3), 0.35, include_top=False, weights=None, pooling="avg"
    ),
    "biases": lambda: keras.applications.ResNet50(
        include_top=False, weights=None, pooling="avg", input_shape=(32, 32, 3)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_batch_norm_is_left_and_features_are_the_same(name):
    network = settled(NETWORKS[name]())
    folded = fold_batch_norms(network)
    assert count(network, "BatchNorm") > 3 and count(folded, "BatchNorm") == 0
    assert_same_features(network, folded)


def test_folded_depthwise_filters_with_a_multiplier():
    images = keras.Input((16, 16, 3))
    network = keras.Model(
        images, layers.BatchNormalization(center=False)(layers.DepthwiseConv2D(3, depth_multiplier=4)(images))
    )
    folded = fold_batch_norms(settled(network))
    assert count(folded, "BatchNorm") == 0
    assert_same_features(network, folded)


def test_batch_norm_that_no_convolution_alone_precedes_stays():
    images = keras.Input((16, 16, 3), name="images")
    conv = layers.Conv2D(4, 3, activation="relu")(images)
    shared = layers.Conv2D(4, 3)(layers.BatchNormalization(name="after_activation")(conv))
    normalised = layers.BatchNormalization(name="of_shared")(shared)
    joined = layers.BatchNormalization(name="after_add")(layers.Add()([shared, normalised]))
    output = layers.Conv2D(2, 3)(joined)
    network = keras.Model(images, [layers.BatchNormalization(name="of_output")(output), output])
    folded = fold_batch_norms(settled(network))
    kept = {layer.name for layer in folded.layers if "BatchNorm" in type(layer).__name__}
    assert kept == {"after_activation", "of_shared", "after_add", "of_output"}
    x = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    for a, b in zip(network(x), folded(x), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_a_network_within_is_folded_and_the_given_one_is_unchanged():
    inner = settled(nets.resnet10("small", width=0.125))
    images = keras.Input((16, 16, 3), name="images")
    network = keras.Model(images, layers.Dense(3)(inner(images)))
    before = [w.copy() for w in network.get_weights()]
    folded = fold_batch_norms(network)
    assert count(folded, "BatchNorm") == 0
    assert_same_features(network, folded)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
