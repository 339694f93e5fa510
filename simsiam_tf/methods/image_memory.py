"""A table with a vector for every image, stored in slices on the replicas of a machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from simsiam_tf.distributed import strategies

SLICES = 8  # image i is in slice i % SLICES, so that a run may change its number of replicas


class PerImage(tf.Module):
    """[images, d] float32 in slices, which the replicas of a machine take in turn.

    Every machine has all slices, so that its checkpoint is complete: images · d · 4 bytes, divided over its
    replicas. The vector of an image that has not been seen is zero.

    Args:
        images: their number; every index is in [0, images).
        d: width of a vector.
    """

    def __init__(self, images: int, d: int) -> None:
        super().__init__(name="per_image")
        self.images, self.rows, self.d = images, -(-images // SLICES), d  # rows of a slice
        devices = strategies.local_devices()
        for s in range(SLICES):
            setattr(self, f"slice{s}", self._new_slice(f"slice{s}", devices[s % len(devices)]))

    def read_rows(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of this replica's images: int64 [B] → [B, d]"""
        all_index, first = strategies.all_gather(index)
        vectors = tf.zeros([tf.shape(all_index)[0], self.d])
        for s in self._replica_slices():
            in_slice = (tf.math.floormod(all_index, SLICES) == s)[:, None]
            vectors += tf.where(in_slice, tf.gather(self._slice(s), all_index // SLICES), 0.0)
        vectors = strategies.all_reduce_sum(vectors * strategies.this_worker_mask(vectors)[:, None])
        return vectors[first : first + tf.shape(index)[0]]

    def write_rows(self, index: tf.Tensor, vectors: tf.Tensor) -> None:
        """Stores vectors [B, d] of this replica's images, int64 [B].

        An image may be in the batch twice, where an epoch ends; its last vector is stored.
        """
        all_index, _ = strategies.all_gather(index)
        values, _ = strategies.all_gather(vectors)
        count = tf.shape(all_index)[0]
        same = all_index[:, None] == all_index[None, :]
        last = tf.reduce_max(tf.where(same, tf.range(count)[None, :], -1), axis=1)
        values = tf.gather(values, last)
        for s in self._replica_slices():
            table = self._slice(s)
            spare_row = tf.cast(self.rows, all_index.dtype)
            rows = tf.where(tf.math.floormod(all_index, SLICES) == s, all_index // SLICES, spare_row)
            tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=rows, updates=values)

    def _new_slice(self, name: str, device: str) -> tf.Variable:
        def make() -> tf.Variable:
            # With a spare row for images of other slices, so that shapes stay the same.
            with tf.device(device):
                return tf.Variable(tf.zeros([self.rows + 1, self.d]), False, name=name)

        # NOTE: in a strategy's scope it would be copied to all replicas. A new thread is in no scope.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()

    def _slice(self, s: int) -> tf.Variable:
        return getattr(self, f"slice{s}")

    def _replica_slices(self) -> range:
        """Numbers of the slices on this replica."""
        replica, replicas = strategies.local_replica()
        return range(replica, SLICES, replicas)
