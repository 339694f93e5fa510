"""Every method as a small Keras model, data for it, and the state that its next step depends on."""

import keras
import numpy as np
import tensorflow as tf
from helpers.compared_methods import teacher

from simsiam_tf import nets, optimizers
from simsiam_tf.methods import (
    BYOL,
    Alternation,
    BarlowTwins,
    Distill,
    MoCo,
    MovingAverage,
    SimCLR,
    SimSiam,
    SwAV,
    VICReg,
)  # fmt: skip
from simsiam_tf.optimizers import schedules

IMAGES, BATCH, SIZE, D = 24, 8, 8, 6
SMALL = {"d": D, "projector_layers": 2}
METHODS = {
    "simsiam": lambda b: SimSiam(b, **SMALL, predictor_hidden=32, similarity="cross_entropy"),
    "simsiam fixed": lambda b: SimSiam(b, **SMALL, predictor_hidden=32, predictor="fixed"),
    "alternation": lambda b: Alternation(b, 4, **SMALL, predictor_hidden=32),
    "average": lambda b: MovingAverage(b, IMAGES, 0.7, **SMALL),
    "simclr": lambda b: SimCLR(b, **SMALL, temperature=0.2, predictor="trained", stop_gradient=True),
    "moco": lambda b: MoCo(b, **SMALL, target_momentum=0.9, queue=40, seed=5),
    "moco groups": lambda b: MoCo(b, **SMALL, target_momentum=0.9, queue=40, groups=4),
    "byol": lambda b: BYOL(b, d=D, projector_hidden=12, predictor_hidden=12, target_momentum=0.5, steps=6),
    "swav": lambda b: SwAV(b, d=D, projector_hidden=12, prototypes=5, sinkhorn_epsilon=0.5),
    "vicreg": lambda b: VICReg(b, **SMALL, invariance_weight=1.0, variance_weight=1.0, covariance_weight=0.1),
    "barlow": lambda b: BarlowTwins(b, **SMALL, redundancy_weight=0.1, loss_factor=0.1),
    "distill": lambda b: Distill(b, teacher(), projector_layers=2),
}


def network():
    x = images = keras.Input((SIZE, SIZE, 1))
    for width in (6, 8):
        x = keras.layers.ReLU()(nets.BatchNorm()(nets.Conv(width, 3, 2)(x)))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def compiled_model(name, eagerly=True):
    """A compiled model. Eager, since tracing a step takes longer than the few steps of these tests."""
    keras.utils.set_random_seed(0)
    model = METHODS[name](network())
    rates = schedules.cosine(0.1, 6), 0.9, 1e-4, {"projector": 0.05}
    model.compile(optimizers.SGD(*rates), run_eagerly=eagerly)
    return model


def views(count=IMAGES, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, SIZE, SIZE, 1))
    return tuple((images + rng.normal(0, 0.5, images.shape)).astype("float32") for _ in range(2))


def batches():
    """Three batches, in order."""
    return tf.data.Dataset.from_tensor_slices({"views": views(), "index": np.arange(IMAGES)}).batch(BATCH)


def state(model):
    """All variables that the next step depends on, by name."""
    values = {f"{i} {v.path}": v.numpy() for i, v in enumerate(model.variables + model.optimizer.variables)}
    averages = getattr(model, "averages", None)
    return values | {v.name: v.numpy() for v in (averages.variables if averages else ())}


def arguments(model):
    """Arguments of the constructor; networks are replaced by their numbers of layers."""
    networks = {name: getattr(model, name) for name in ("backbone", "teacher") if hasattr(model, name)}
    return {**model.get_config(), **{name: len(network.layers) for name, network in networks.items()}}


def assert_same(one, two):
    assert len(one) == len(two) > 20
    for (name, a), b in zip(one.items(), two.values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def fit(model, epochs=1, **kwargs):
    return model.fit(batches(), epochs=epochs, verbose=0, **kwargs).history
