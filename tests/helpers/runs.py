"""Runs of seconds, a callback that ends them at a step, and digests to compare them."""

import hashlib
import os
import signal

import keras

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig

TINY = [
    "--data=digits", "--backbone=resnet10", "--stem=cifar", "--width=0.125", "--d=64",
    "--predictor_hidden=32", "--projector_layers=2", "--batch_size=64", "--base_lr=0.4",
    "--epochs=1", "--log_every=5", "--precision=float32", "--strategy=one_device",
]  # fmt: skip


def tiny(workdir, *more):
    return cli.parse(PretrainConfig, [*TINY, f"--workdir={workdir}", *more])


def state(workdir):
    """(name and digest of the newest checkpoint, the records)."""
    newest = max((workdir / "checkpoints").iterdir())
    data = (newest / "state.data-00000-of-00001").read_bytes()
    return newest.name, hashlib.sha256(data).hexdigest(), (workdir / "metrics.jsonl").read_text()


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.at = step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 >= self.at:
            os.kill(os.getpid(), signal.SIGTERM)
