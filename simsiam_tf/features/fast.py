"""Features in less time, which differ from the exact ones by about 1 % (docs/performance.md)."""

from __future__ import annotations

import dataclasses

from simsiam_tf.data import Source
from simsiam_tf.data.augment.eval_transform import shorter_side
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.nets.folding import fold_batch_norms
from simsiam_tf.pretrained.pretrained_backbone import Pretrained


def faster(pretrained: Pretrained, source: Source) -> tuple[Pretrained, Source]:
    """The backbone and the images of which features are computed in less time.

    BN is folded into the convolutions. JPEG files are decoded at a part of their size, at least at that at
    which the backbone reads them.
    """
    pretrained = dataclasses.replace(pretrained, backbone=fold_batch_norms(pretrained.backbone), exact=False)
    if isinstance(source, EncodedSource):
        least = shorter_side(pretrained.augmentation.size)
        source = dataclasses.replace(source, rule=dataclasses.replace(source.rule, least_side=least))
    return pretrained, source
