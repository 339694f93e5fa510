"""Distillation by regression on features, as SimReg (Navaneet et al., BMVC 2021, arXiv 2201.05131)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.methods import losses
from simsiam_tf.methods.base import TRAINING, SiameseModel
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.nets import BatchNorm, heads


class Distill(SiameseModel):
    """L = ‖z̄ − t̄‖² = 2 − 2 cos(z, t), in [0, 4]: the student's z = g(f(x)) predicts the teacher's features t.

    f is the backbone, g the projector, which only the training needs; z̄ is z/‖z‖. Student and teacher see
    the same view, as Beyer et al. advise (arXiv 2106.05237); L is the mean over views and images.

    NOTE: SimReg takes t as it is. Here t are the teacher's features with mean 0 and variance 1 over the
    batch: features behind a ReLU are all positive, so that a constant z would predict most of them.

    The teacher computes in inference mode, and gets no gradient. It is no part of the model's variables: a
    checkpoint of a run has the student alone. `model.save` stores both.

    Args, beside the backbone:
        teacher: the same views → features [B, T].
        projector_hidden: width of the projector's hidden layers; that of the backbone's features when None.
        projector_layers: fc layers of the projector; 1: linear. SimReg finds deeper ones better.
    """

    teacher: keras.Model

    def __init__(
        self,
        backbone: keras.Model,
        teacher: keras.Model,
        projector_hidden: int | None = None,
        projector_layers: int = 3,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        teacher.trainable = False
        self.__dict__["teacher"] = teacher  # past Keras' and TensorFlow's tracking of attributes
        self.table_bytes = 4 * teacher.count_params()
        self.d = teacher.output_shape[-1]
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, self.d, projector_hidden, projector_layers, "hidden")
        self.standardise = BatchNorm(affine=False, name="standardise", dtype="float32")
        self.standardise.build((None, self.d))
        self.built = True

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> Distill:
        """options["teacher"] is the network here. Its other options made that network; z has its width."""
        del run, options["teacher_pixels"], options["teacher_size"], options["d"]
        return cls(backbone, **options)

    def t(self, x: tf.Tensor) -> tf.Tensor:
        """View [B, H, W, C] → the teacher's features [B, T], standardised over the batch of all replicas."""
        features = tf.cast(self.teacher(x, training=False), tf.float32)
        return tf.stop_gradient(self.standardise(features, training=TRAINING.get()))

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        views = self.views(batch)
        z = self.each(self.f, views)
        each = [2 + 2 * losses.negative_cosine(u, self.t(x)) for u, x in zip(z, views, strict=True)]
        return {"loss": tf.add_n(each) / len(each), "z": z[0]}
