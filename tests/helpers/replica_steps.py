"""Twenty steps with every BN placement, and with Keras' BN in the backbone, on N replicas.

    python tests/helpers/replica_steps.py N OUT.npz

Seed and global batch are the same for each N. Runs in a process of its own, since the strategies of one
process share TensorFlow's collective keys. Writes example ids and views of every step, losses, stds, and the
weights before and after 20 steps.
"""

import dataclasses
import sys

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS, Views, from_arrays
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.methods import SimSiam
from simsiam_tf.nets.heads import BN_PLACEMENT
from simsiam_tf.training import build_run

STEPS, BATCH, SIZE, IMAGES = 20, 32, 8, 100


def main(replicas: int, out: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = strategies.strategy_by_name("mirrored" if replicas > 1 else "one_device")
    assert strategy.num_replicas_in_sync == replicas
    config = cli.parse(
        PretrainConfig, ["--data=digits", f"--batch_size={BATCH}", "--base_lr=0.3", "--seed=3"]
    )
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 12, 12, 1), np.uint8)
    source = from_arrays("noise", images)
    views = Views(dataclasses.replace(AUGMENTATIONS["grayscale"], size=SIZE, blur_p=0.5))
    results = {}
    for bn in (*BN_PLACEMENT, "stock"):
        components = _components(strategy, config, source, views, bn)
        before = [v.numpy() for v in components.model.weights]
        iterator, steps = (
            compiled_steps.batches(components, config, 0),
            compiled_steps.compiled_steps(components, config),
        )
        rows, z = (t.numpy() for t in steps(iterator, tf.constant(STEPS)))
        results |= {f"{bn}/losses": rows[:, 0], f"{bn}/stds": rows[:, 1], f"{bn}/z": z}
        for i, (v, w) in enumerate(zip(components.model.weights, before, strict=True)):
            copies = [c.numpy() for c in strategy.experimental_local_results(v.value)]
            assert all(np.array_equal(c, copies[0]) for c in copies), v.path
            results[f"{bn}/weights/{i:02} {v.path}"] = copies[0]
            results[f"{bn}/before/{i:02} {v.path}"] = w
    iterator = compiled_steps.batches(components, config, 0)
    for step in range(STEPS):
        batch = next(iterator)
        results[f"ids/{step:02}"] = _gather(strategy, batch["index"])
        results[f"views/{step:02}"] = np.stack([_gather(strategy, v) for v in batch["views"]])
    np.savez(out, **results)


def _gather(strategy: tf.distribute.Strategy, value) -> np.ndarray:
    return np.concatenate([t.numpy() for t in strategy.experimental_local_results(value)])


def _components(strategy, config, source, views, bn: str) -> RunComponents:
    """bn: a key of BN_PLACEMENT; "stock": Keras' BN in the backbone, synchronised as a run does."""
    norm = keras.layers.BatchNormalization if bn == "stock" else nets.BatchNorm
    with strategy.scope():
        keras.utils.set_random_seed(config.seed)
        x = images = keras.Input((SIZE, SIZE, 1))
        for width in (8, 16):
            x = keras.layers.Activation("softplus")(norm()(nets.Conv(width, 3, 2)(x)))
        backbone = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
        nets.synchronise(backbone)
        model = SimSiam(backbone, d=16, predictor_hidden=8, bn="default" if bn == "stock" else bn)
        _smooth(model.projector, model.predictor)
        model.compile(build_run.build_optimizer(config, 100, source.size))
        model.optimizer.build(model.learned_variables())
    return RunComponents(Workers(strategy), source, views, model, 100)


def _smooth(*heads: keras.Sequential) -> None:
    """Puts softplus in ReLU's place, whose gradient jumps at zero: runs would differ by 1e-3."""
    for layer in (layer for head in heads for layer in head.layers):
        if isinstance(layer, keras.layers.ReLU):
            layer.call = tf.nn.softplus


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
