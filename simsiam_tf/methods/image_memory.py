"""A vector for every image of the data, kept across steps and shared out over a machine's replicas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from simsiam_tf.distributed import strategies

SLICES = 8  # image i is in slice i % SLICES, so that a run may change its number of replicas


class PerImage(tf.Module):
    """[images, d] float32 in slices, which the replicas of a machine hold in turn.

    Every machine has all slices, so that its checkpoint is whole: images · d · 4 bytes, an nth of it on each
    of its n replicas. Zeros stand for an image that has not been seen.

    Args:
        images: how many there are; their stable indices are below.
        d: width of a vector.
    """

    def __init__(self, images: int, d: int) -> None:
        super().__init__(name="per_image")
        self.images, self.d = images, d
        devices = strategies.local_devices()
        for s in range(SLICES):
            setattr(self, f"slice{s}", self._made(f"slice{s}", devices[s % len(devices)]))

    def of(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of this replica's images: int64 [B] → [B, d]"""
        everyone, first = strategies.all_gather(index)
        found = tf.zeros([tf.shape(everyone)[0], self.d])
        for s in self._own():
            found += tf.where(
                (everyone % SLICES == s)[:, None], tf.gather(self._slice(s), everyone // SLICES), 0.0
            )
        whole = strategies.all_reduce_sum(found * strategies.this_worker_mask(found)[:, None])
        return whole[first : first + tf.shape(index)[0]]

    def put(self, index: tf.Tensor, vectors: tf.Tensor) -> None:
        """Keeps vectors [B, d] of this replica's images, int64 [B].

        Of an image that is there twice, as where an epoch ends, the last is kept.
        """
        everyone, _ = strategies.all_gather(index)
        values, _ = strategies.all_gather(vectors)
        count = tf.shape(everyone)[0]
        same = everyone[:, None] == everyone[None, :]
        last = tf.reduce_max(tf.where(same, tf.range(count)[None, :], -1), axis=1)
        values = tf.gather(values, last)
        for s in self._own():
            kept = self._slice(s)
            elsewhere = tf.cast(kept.shape[0] - 1, everyone.dtype)
            rows = tf.where(everyone % SLICES == s, everyone // SLICES, elsewhere)
            tf.raw_ops.ResourceScatterUpdate(resource=kept.handle, indices=rows, updates=values)

    def _made(self, name: str, device: str) -> tf.Variable:
        def make() -> tf.Variable:
            # One row more than needed, for what belongs to other slices: shapes stay the same.
            with tf.device(device):
                return tf.Variable(tf.zeros([-(-self.images // SLICES) + 1, self.d]), False, name=name)

        # NOTE: a strategy's scope, which would copy it to all replicas, is that of its thread alone.
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(make).result()

    def _slice(self, s: int) -> tf.Variable:
        return getattr(self, f"slice{s}")

    def _own(self) -> range:
        """Slices of this replica."""
        replica, replicas = strategies.local_replica()
        return range(replica, SLICES, replicas)
