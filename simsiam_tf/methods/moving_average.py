"""A moving average of each image's embedding as its target, without a predictor (Sec. 5.3)."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.methods.base import TRAINING
from simsiam_tf.methods.image_memory import PerImage
from simsiam_tf.methods.simsiam import SimSiam


class MovingAverage(SimSiam):
    """η ← m η + (1 − m) F(T'(x)), one η an image; θ is learned against it (55.0; without it 0.1).

    What h is thought to learn, the expectation over T, the average estimates instead: Sec. 5.3 has no
    predictor. In either direction the target is the average with the other view's embedding; the mean of
    both is kept. An image seen for the first time has its embedding for average, and so has every image in
    `evaluate`, which may be given others than those of the training.

    Args:
        backbone, switches: as for `SimSiam`, with predictor="none" by default.
        images: how many the data has; `batch["index"]` tells which are in a batch.
        m: share of the old average, in [0, 1); 0.8 there.
    """

    def __init__(self, backbone: keras.Model, images: int, m: float = 0.8, **switches) -> None:
        super().__init__(backbone, **{"predictor": "none", **switches})
        self.m, self.averages = m, PerImage(images, self.d)

    def targets(self, batch: dict, z: list[tf.Tensor]) -> list[tf.Tensor]:
        if not TRAINING.get():
            return z
        if batch.get("index") is None:
            raise ValueError(
                "MovingAverage keeps an average of each image, and needs to know which ones a batch has. "
                'Pass {"views": (x1, x2), "index": np.arange(len(x1))}, or a dataset of data.pretraining.'
            )
        old = self.averages.of(batch["index"])
        seen = tf.reduce_any(old != 0, axis=1, keepdims=True)
        return [tf.where(seen, self.m * old + (1 - self.m) * u, u) for u in z]

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        used = [outputs["targets"][j] for _, j in self.pairs]
        self.averages.put(outputs["index"], tf.add_n(used) / len(used))

    def save_own_variables(self, store: dict) -> None:
        """With the averages, which are TensorFlow's variables and no layer's."""
        super().save_own_variables(store)
        for name, variable in self._slices().items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: dict) -> None:
        slices = self._slices()
        super().load_own_variables({k: store[k] for k in store.keys() if k not in slices})  # noqa: SIM118
        for name, variable in slices.items():
            variable.assign(store[name])

    def _slices(self) -> dict[str, tf.Variable]:
        return {v.name.partition(":")[0]: v for v in self.averages.variables}
