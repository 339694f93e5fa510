"""Features in less time, which differ from the exact ones by about 1 % (docs/performance.md)."""

from __future__ import annotations

import dataclasses

from simsiam_tf.data import Source
from simsiam_tf.data.augment.eval_transform import shorter_side
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.nets.folding import fold_batch_norms
from simsiam_tf.pretrained.pretrained_backbone import Pretrained


def fold(pretrained: Pretrained) -> Pretrained:
    """The backbone with BN folded into the convolutions."""
    return dataclasses.replace(pretrained, backbone=fold_batch_norms(pretrained.backbone), exact=False)


def shrink_images(pretrained: Pretrained, source: Source) -> Source:
    """The images; JPEG files are decoded at a reduced size, at least the one that the backbone takes."""
    if not isinstance(source, EncodedSource):
        return source
    least = shorter_side(pretrained.augmentation.size)
    return dataclasses.replace(source, rule=dataclasses.replace(source.rule, least_side=least))
