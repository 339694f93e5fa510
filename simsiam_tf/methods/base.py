"""What every method shares: one update, served to Keras' `fit` and to `train.run` alike."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf import metrics

STOP = {True: tf.stop_gradient, False: tf.identity}  # Sec. 4.1, Fig. 2


class ViewModel(keras.Model):
    """A backbone and what is on it, trained on views of images.

    A method subclasses this and writes `objective` and `figure`. It owns the tape, the mean over
    replicas, the update and the metrics. `fit` accepts a `tf.data.Dataset` of tuples of views or of
    {"views": (x1, x2, …), "index": …}; each view is [B, H, W, C].

    d: width of "z". figure_name: what `figure` is called.
    """

    d: int
    figure_name: str

    def __init__(self, backbone: keras.Model, **kwargs) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._figure_mean = keras.metrics.Mean(name=self.figure_name)

    def objective(self, batch: dict[str, Any]) -> dict[str, tf.Tensor]:
        """{"views", "index"} → {"loss": scalar, "z": [B, d]}, of this replica's rows."""
        raise NotImplementedError(f"{type(self).__name__} must define objective(batch).")

    def figure(self, z: tf.Tensor) -> tf.Tensor:
        """The "z" of a batch, [B, d] → the scalar that is watched beside the loss."""
        raise NotImplementedError(f"{type(self).__name__} must define figure(z).")

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        """Moving averages and queues; nothing by default."""
        del outputs

    def learned_variables(self) -> list[keras.Variable]:
        """The variables that the optimizer updates."""
        return self.trainable_variables

    def step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update from one batch of this replica.

        Returns:
            "loss" and the figure, scalars of this replica's rows, and "z", [B, d] in float32.
        """
        batch = data if isinstance(data, dict) else {"views": data}
        with tf.GradientTape() as tape:
            outputs = self.objective(batch)
            # Keras optimizers sum over replicas, so each contributes its share of the mean.
            share = outputs["loss"] / tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.learned_variables()
        self.optimizer.apply(tape.gradient(share, variables), variables)
        self.after_step(outputs)
        z = outputs["z"]
        return {"loss": outputs["loss"], self.figure_name: self.figure(z), "z": z}

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        outputs = self.step(data)
        self._loss_mean.update_state(outputs["loss"])
        self._figure_mean.update_state(outputs[self.figure_name])
        return {m.name: m.result() for m in self.metrics}

    def compile(self, optimizer="rmsprop", jit_compile=False, **kwargs) -> None:
        """As Keras' own, but without XLA unless asked: on CPUs it halves the speed."""
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss_mean, self._figure_mean]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.backbone(images, training=training)


class SiameseModel(ViewModel):
    """A backbone and its heads, trained to agree on views; `model(images)` gives backbone features.

    "z" are the embeddings of the first view; "std" tells whether they collapse
    (`metrics.collapse_std`). f is the backbone with the projector, h the predictor, where there is one.

    view_count: how many views of each image the loss takes.
    """

    figure_name = "std"
    view_count = 2
    projector: keras.Model
    predictor: keras.Model | None = None

    def figure(self, z: tf.Tensor) -> tf.Tensor:
        return metrics.collapse_std(z)

    def f(self, x: tf.Tensor) -> tf.Tensor:
        """View [B, H, W, C] → projection z [B, d], float32, in training mode."""
        z = self.projector(self.backbone(x, training=True), training=True)
        return tf.cast(z, tf.float32)

    def h(self, z: tf.Tensor) -> tf.Tensor:
        """Projection z [B, d] → prediction p [B, d], float32; z itself without a predictor."""
        if self.predictor is None:
            return z
        return tf.cast(self.predictor(z, training=True), tf.float32)

    def views(self, batch: dict) -> tuple[tf.Tensor, ...]:
        """The views of a batch, as many as the loss takes. Raises ValueError for another number."""
        views = batch["views"]
        if len(views) != self.view_count:
            raise ValueError(
                f"This loss compares {self.view_count} views of an image. Received: {len(views)} views."
            )
        return views
