"""SimSiam with a moving average of each image's embeddings as its target, without a predictor (Sec. 5.3)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods.base import TRAINING, RunSize
from simsiam_tf.methods.image_memory import PerImage
from simsiam_tf.methods.simsiam import SimSiam
from simsiam_tf.runtime.errors import UserError


class MovingAverage(SimSiam):
    """η ← m η + (1 − m) F(T'(x)) with one η for each image, the target of θ (ImageNet top-1 55.0 %).

    The average estimates the expectation over T, which the predictor h is thought to learn (Sec. 5.3; with
    neither, 0.1 %). In each direction the target is the average updated with the other view's embedding;
    the mean of both is stored. The target of an image that is seen for the first time is its
    embedding. So are all targets in `evaluate`, whose images may not be those of the training.

    Args:
        backbone, switches: as for `SimSiam`, with predictor="none" by default.
        images: number of images in the data; `batch["index"]` names those of a batch.
        m: share of the old average, in [0, 1); 0.8 in Sec. 5.3.
    """

    def __init__(self, backbone: keras.Model, images: int, m: float = 0.8, **switches) -> None:
        super().__init__(backbone, **{"predictor": "none", **switches})
        self.m, self.averages = m, PerImage(images, self.d)

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> MovingAverage:
        if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
            raise UserError("`average`: its table of images cannot be kept on TPUs. Leave `average` out.")
        more = {"m": options["average"], "images": run.images}
        return super().from_options(backbone, {**options, **more}, run)

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
        for name, variable in self._slices().items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: dict) -> None:
        slices = self._slices()
        super().load_own_variables({k: store[k] for k in store.keys() if k not in slices})  # noqa: SIM118
        for name, variable in slices.items():
            variable.assign(store[name])

    def _slices(self) -> dict[str, tf.Variable]:
        return {v.name.partition(":")[0]: v for v in self.averages.variables}
