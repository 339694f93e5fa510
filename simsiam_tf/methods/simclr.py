"""SimCLR (Chen et al., arXiv 2002.05709), also with the predictor and stop-gradient of Sec. 6.2."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import STOP, SiameseModel
from simsiam_tf.nets import heads


class SimCLR(SiameseModel):
    """NT-Xent between both views of the whole batch, over all replicas (ImageNet top-1 66.5 %).

    The loss is the sum over the two directions, each a mean over the images, as in their code: twice the
    mean over all 2 B queries of their Eq. 1.

    Args:
        backbone: [B, H, W, C] → [B, F].
        d: width of z.
        projector_hidden: width of its hidden layers; that of the features when None.
        projector_layers: fc layers of the projector; three in the paper's comparison (Table 4).
        temperature: τ > 0.
        predictor: whether h, too, is trained, and queries are its predictions (66.4).
        predictor_hidden: width of its hidden layer; d // 4 when None.
        stop_gradient: whether keys get no gradient (with a predictor 66.0).
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 2048,
        projector_hidden: int | None = None,
        projector_layers: int = 3,
        temperature: float = 0.1,
        predictor: bool = False,
        predictor_hidden: int | None = None,
        stop_gradient: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        # As in their code, the output BN has a scale and no shift.
        self.projector = heads.projector(
            backbone.output_shape[-1], d, projector_hidden, projector_layers, output_shift=False
        )
        self.predictor = heads.predictor(d, predictor_hidden) if predictor else None
        self.stop = STOP[stop_gradient]
        self.temperature, self.d = temperature, d
        self.built = True

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        z = [self.f(x) for x in self.views(batch)]
        queries = tf.concat([self.h(u) for u in z], axis=0)
        (keys1, first), (keys2, _) = (strategies.all_gather(self.stop(u)) for u in z)
        here = first + tf.range(tf.shape(z[0])[0])  # of this replica's images in the whole batch
        there = here + tf.shape(keys1)[0]  # the same images' second views
        loss = losses.nt_xent(
            queries,
            keys=tf.concat([keys1, keys2], axis=0),
            own=tf.concat([here, there], axis=0),
            positive=tf.concat([there, here], axis=0),
            temperature=self.temperature,
        )
        return {"loss": 2 * loss, "z": z[0]}
