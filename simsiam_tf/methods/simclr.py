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

    With N small views of each image, it is twice the mean over (2 + 2N) B queries: each small view is a query
    for the first and for the second full view of its image, the other of which is no negative. Keys are full
    views alone:
    −log exp(cos(p_l, z_k) / τ) / Σ_m exp(cos(p_l, z_m) / τ), k = 1, 2, m over k and both of all other images.

    Args, beside those of `SiameseModel`:
        projector_layers: 3 in Table 4.
        temperature: τ > 0.
        predictor: "trained": queries are predictions by h (66.4 %).
        stop_gradient: let no gradient through the keys (with a predictor 66.0 %).
        local_views: N, the number of small views of an image, which come after the two of full size.
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
        local_views: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        # The output BN has a scale and no shift, as in SimCLR's code.
        self.projector = heads.projector(
            backbone.output_shape[-1], d, projector_hidden, projector_layers, output_shift=False
        )
        self.predictor = heads.predictor(d, predictor_hidden) if HAS_PREDICTOR[predictor] else None
        self.stop = STOP[stop_gradient]
        small = range(2, 2 + local_views)
        self.pairs = ((0, 1), (1, 0), *((i, j) for i in small for j in (0, 1)))  # query i, its positive j
        self.local_views, self.view_count = local_views, 2 + local_views
        self.temperature, self.d = temperature, d
        self.built = True

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        z = self.project(self.views(batch))
        p = self.each(self.h, z)
        (keys1, first), (keys2, _) = (strategies.all_gather(self.stop(u)) for u in z[:2])
        views1 = first + tf.range(tf.shape(z[0])[0])  # rows of this replica's first views among the keys
        views2 = views1 + tf.shape(keys1)[0]  # rows of the same images' second views
        rows = views1, views2
        loss = losses.nt_xent(
            tf.concat([p[i] for i, _ in self.pairs], axis=0),
            keys=tf.concat([keys1, keys2], axis=0),
            self_key=tf.concat([rows[1 - j] for _, j in self.pairs], axis=0),
            positive=tf.concat([rows[j] for _, j in self.pairs], axis=0),
            temperature=self.temperature,
        )
        return {"loss": 2 * loss, "z": z[0]}
