"""SimSiam with a moving average of each image's embeddings as its target, without a predictor (Sec. 5.2)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods.base import TRAINING
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.methods.simsiam import SimSiam
from simsiam_tf.runtime.errors import UserError

SLICES = 8  # image i is in slice i % SLICES, so that a run may change its number of replicas


class MovingAverage(SimSiam):
    """η ← m η + (1 − m) F(T'(x)) with one η for each image, the target of θ (ImageNet top-1 55.0 %).

    The average estimates the expectation over T, which the predictor h is thought to learn (Sec. 5.2; with
    neither, 0.1 %). In each direction the target is the average updated with the other view's embedding;
    the mean of both is stored. The target of an image that is seen for the first time is its
    embedding. In `evaluate`, whose images may not be those of the training, all targets are embeddings.

    Args:
        backbone, switches: as for `SimSiam`, with predictor="none" by default.
        images: number of images in the data; `batch["index"]` has the ids of those in a batch.
        m: share of the old average, in [0, 1); 0.8 in Sec. 5.2.
    """

    def __init__(self, backbone: keras.Model, images: int, m: float = 0.8, **switches) -> None:
        super().__init__(backbone, **{"predictor": "none", **switches})
        self.m, self.averages = m, ImageMemory(images, self.d)

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> MovingAverage:
        if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
            raise UserError("`average`: its table of images cannot be kept on TPUs. Leave `average` out.")
        return cls(backbone, run.images, options.pop("average"), **options)

    @property
    def table_bytes(self) -> int:
        return 4 * self.averages.images * self.d // len(strategies.local_devices())

    def targets(self, batch: dict, z: list[tf.Tensor]) -> list[tf.Tensor]:
        if not TRAINING.get():
            return z
        if batch.get("index") is None:
            raise ValueError(
                "MovingAverage needs to know which images a batch has. "
                'Pass {"views": (x1, x2), "index": np.arange(len(x1))}, or a dataset of data.pretraining.'
            )
        old = self.averages.read_rows(batch["index"])
        seen = tf.reduce_any(old != 0, axis=1, keepdims=True)
        return [tf.where(seen, self.m * old + (1 - self.m) * u, u) for u in z]

    def after_step(self, outputs: dict[str, Any]) -> None:
        targets = [outputs["targets"][j] for _, j in self.pairs]
        self.averages.write_rows(outputs["index"], tf.add_n(targets) / len(targets))

    def save_own_variables(self, store: dict) -> None:
        """Saves the averages, too: they are variables of TensorFlow, which Keras would leave out."""
        super().save_own_variables(store)
        for s, table in enumerate(self.averages.slices):
            store[f"slice{s}"] = table.numpy()

    def load_own_variables(self, store: dict) -> None:
        super().load_own_variables({k: store[k] for k in store.keys() if not k.startswith("slice")})  # noqa: SIM118
        for s, table in enumerate(self.averages.slices):
            table.assign(store[f"slice{s}"])


class ImageMemory(tf.Module):
    """A table [images, d], float32, in slices, which are spread over the replicas of a process.

    Every process has all slices, so that its checkpoint is complete. The vector of an image that has not been
    seen is zero.
    """

    def __init__(self, images: int, d: int) -> None:
        super().__init__(name="image_memory")
        self.images, self.rows, self.d = images, -(-images // SLICES), d  # rows of a slice
        devices = strategies.local_devices()
        # NOTE: in a strategy's scope slices would be copied to all replicas. A new thread is in no scope.
        with ThreadPoolExecutor(1) as thread:
            self.slices = [
                thread.submit(self._new_slice, s, devices[s % len(devices)]).result() for s in range(SLICES)
            ]

    def _new_slice(self, s: int, device: str) -> tf.Variable:
        # The last row is spare, to be written for images of other slices, so that shapes stay the same.
        with tf.device(device):
            return tf.Variable(tf.zeros([self.rows + 1, self.d]), False, name=f"slice{s}")

    def read_rows(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of this replica's images: int64 [B] → [B, d]"""
        all_index, first = strategies.all_gather(index)
        vectors = tf.zeros([tf.shape(all_index)[0], self.d])
        for s in self._replica_slices():
            in_slice = (tf.math.floormod(all_index, SLICES) == s)[:, None]
            vectors += tf.where(in_slice, tf.gather(self.slices[s], all_index // SLICES), 0.0)
        vectors = strategies.all_reduce_sum(vectors * strategies.this_worker_mask(vectors)[:, None])
        return vectors[first : first + tf.shape(index)[0]]

    def write_rows(self, index: tf.Tensor, vectors: tf.Tensor) -> None:
        """Stores vectors [B, d] of this replica's images, int64 [B].

        An image may be in the batch twice, where an epoch ends; its last vector is stored.
        """
        all_index, _ = strategies.all_gather(index)
        values, _ = strategies.all_gather(vectors)
        same = all_index[:, None] == all_index[None, :]
        last = tf.reduce_max(tf.where(same, tf.range(tf.shape(all_index)[0])[None, :], -1), axis=1)
        values = tf.gather(values, last)
        spare_row = tf.cast(self.rows, all_index.dtype)
        for s in self._replica_slices():
            rows = tf.where(tf.math.floormod(all_index, SLICES) == s, all_index // SLICES, spare_row)
            handle = self.slices[s].handle
            tf.raw_ops.ResourceScatterUpdate(resource=handle, indices=rows, updates=values)

    def _replica_slices(self) -> range:
        """Numbers of the slices on this replica."""
        replica, replicas = strategies.local_replica()
        return range(replica, SLICES, replicas)
