"""The compared methods around a small network, and views for them."""

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import nets, optimizers
from simsiam_tf.methods import BYOL, BarlowTwins, Distill, MoCo, SimCLR, SwAV, VICReg

BATCH, SIZE, D = 8, 8, 6
TRAINED = {"predictor": "trained"}
QUEUE = {"temperature": 0.3, "target_momentum": 0.9, "queue": 40}
CODES = {"projector_hidden": 12, "prototypes": 5, "sinkhorn_epsilon": 0.5}
METHODS = {
    "simclr": lambda b: SimCLR(b, d=D, temperature=0.2),
    "simclr predictor": lambda b: SimCLR(b, d=D, temperature=0.2, **TRAINED),
    "simclr predictor stop": lambda b: SimCLR(b, d=D, temperature=0.2, **TRAINED, stop_gradient=True),
    "moco": lambda b: MoCo(b, d=D, **QUEUE, groups=None),
    "moco groups": lambda b: MoCo(b, d=D, **QUEUE, groups=4 // replicas()),
    "byol": lambda b: BYOL(b, d=D, projector_hidden=12, predictor_hidden=12, target_momentum=0.9),
    "swav": lambda b: SwAV(b, d=D, **CODES),
    "swav in loss": lambda b: SwAV(b, d=D, **CODES, prototype_norm="in_loss"),
    "vicreg": lambda b: VICReg(b, d=D, invariance_weight=3.0, variance_weight=4.0, covariance_weight=5.0),
    "barlow": lambda b: BarlowTwins(b, d=D, redundancy_weight=0.3, loss_factor=0.5),
    "swav predictor": lambda b: SwAV(b, d=D, **CODES, **TRAINED),
    "distill": lambda b: Distill(b, teacher(), projector_layers=2),
}


def teacher():
    """A network of fixed weights, views → positive features of width D."""
    images = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Conv2D(D, 3, activation="relu")(images)
    network = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="teacher")
    rng = np.random.default_rng(7)
    network.set_weights([rng.normal(0, 0.5, v.shape) for v in network.weights])
    return network


def replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync


def compiled_model(name, seed=0, lr=0.1):
    keras.utils.set_random_seed(seed)
    x = images = keras.Input((SIZE, SIZE, 1))
    for width in (6, 8):
        x = keras.layers.ReLU()(nets.BatchNorm()(nets.Conv(width, 3, 2)(x)))
    model = METHODS[name](keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)))
    model.compile(optimizers.SGD(lr, 0.9, 1e-4))
    return model


def unchanged_by_a_step(name):
    """A function: weight → whether a step leaves it unchanged. BN of groups updates no moving statistics."""
    return lambda v: name == "moco groups" and v.path.startswith("momentum_") and "moving" in v.name


def views(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(BATCH, SIZE, SIZE, 1))
    return tuple(tf.constant(images + rng.normal(0, 0.5, images.shape), tf.float32) for _ in range(2))


def unit(a):
    a = np.asarray(a, np.float64)
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def gradients(model, loss_of):
    with tf.GradientTape() as tape:
        loss = loss_of()
    return [
        np.zeros(v.shape) if g is None else g.numpy()
        for v, g in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        )
    ]
