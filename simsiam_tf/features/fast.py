"""Features in less time, which differ from the exact ones by about 1 % (docs/performance.md)."""

from __future__ import annotations

import dataclasses

from simsiam_tf.data import Source
from simsiam_tf.data.augment.eval_transform import shorter_side
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.nets.folding import fold_batch_norms
from simsiam_tf.pretrained.pretrained_backbone import Pretrained


def faster(pretrained: Pretrained, source: Source) -> tuple[Pretrained, Source]:
    """The backbone and the images of which features are computed in less time."""
    return fold(pretrained), shrink_images(pretrained, source)


def fold(pretrained: Pretrained) -> Pretrained:
    """The backbone with BN folded into the convolutions."""
    return dataclasses.replace(pretrained, backbone=fold_batch_norms(pretrained.backbone), exact=False)


def shrink_images(pretrained: Pretrained, source: Source) -> Source:
    """The images, of which JPEG files are decoded at a part of their size, but at least at the backbone's."""
    if not isinstance(source, EncodedSource):
        return source
    least = shorter_side(pretrained.augmentation.size)
    return dataclasses.replace(source, rule=dataclasses.replace(source.rule, least_side=least))
