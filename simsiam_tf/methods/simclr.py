"""SimCLR (Chen et al., arXiv 2002.05709), with the predictor and stop-gradient of Sec. 6.2 as variants."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import HAS_PREDICTOR, STOP, SiameseModel
from simsiam_tf.nets import heads


class SimCLR(SiameseModel):
    """NT-Xent between both views of the batch, over all replicas (ImageNet top-1 66.5 %).

    The loss is the sum of two directions, each a mean over images, as in SimCLR's code: twice the mean over
    all 2 B queries that Eq. 1 of SimCLR takes.

    Args, beside those of `SiameseModel`:
        projector_layers: 3 in Table 4.
        temperature: τ > 0.
        predictor: "trained": queries are predictions by h (66.4 %).
        stop_gradient: let no gradient through the keys (with a predictor 66.0 %).
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 2048,
        projector_hidden: int | None = None,
        projector_layers: int = 3,
        temperature: float = 0.1,
        predictor: str = "none",
        predictor_hidden: int | None = None,
        stop_gradient: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        # The output BN has a scale and no shift, as in SimCLR's code.
        self.projector = heads.projector(
            backbone.output_shape[-1], d, projector_hidden, projector_layers, output_shift=False
        )
        self.predictor = heads.predictor(d, predictor_hidden) if HAS_PREDICTOR[predictor] else None
        self.stop = STOP[stop_gradient]
        self.temperature, self.d = temperature, d
        self.built = True

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        z = [self.f(x) for x in self.views(batch)]
        queries = tf.concat([self.h(u) for u in z], axis=0)
        (keys1, first), (keys2, _) = (strategies.all_gather(self.stop(u)) for u in z)
        views1 = first + tf.range(tf.shape(z[0])[0])  # rows of this replica's first views among the keys
        views2 = views1 + tf.shape(keys1)[0]  # rows of the same images' second views
        loss = losses.nt_xent(
            queries,
            keys=tf.concat([keys1, keys2], axis=0),
            self_key=tf.concat([views1, views2], axis=0),
            positive=tf.concat([views2, views1], axis=0),
            temperature=self.temperature,
        )
        return {"loss": 2 * loss, "z": z[0]}
