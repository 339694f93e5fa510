"""Losses of detection and segmentation, means over images, so that replicas can share a batch."""

from __future__ import annotations

import tensorflow as tf

from simsiam_tf.dense_tasks.annotations import IGNORE

BETA = 0.1  # error, in units of the box code, from which the smooth L1 loss is linear
BACKGROUND, NO_TRUTH = -1, -2  # classes of anchors on no object, and of those that count for nothing


def focal(logits: tf.Tensor, classes: tf.Tensor, alpha: float = 0.25, gamma: float = 2.0) -> tf.Tensor:
    """The focal loss of RetinaNet (Lin et al., arXiv 1708.02002, Eq. 5): a scalar in [0, inf).

    Summed over the anchors and classes of an image, divided by its number of anchors on objects, at least 1.

    logits: [B, A, K] of the K classes. classes: int [B, A], 0 to K − 1, `BACKGROUND` or `NO_TRUTH`.
    """
    truth = tf.one_hot(classes, logits.shape[-1], dtype=logits.dtype)  # zeros for both negative classes
    p = tf.sigmoid(logits)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits)
    wrong = truth * (1 - p) + (1 - truth) * p  # 1 − p_t
    weight = (truth * alpha + (1 - truth) * (1 - alpha)) * wrong**gamma
    counts = tf.expand_dims(tf.cast(classes != NO_TRUTH, logits.dtype), -1)
    return tf.reduce_mean(tf.reduce_sum(weight * entropy * counts, [1, 2]) / _positives(classes))


def smooth_l1(codes: tf.Tensor, truth: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The smooth L1 loss of box codes (Girshick, arXiv 1504.08083, Eq. 3) with β: a scalar in [0, inf).

    Summed over the anchors on objects of an image and the four numbers, divided by the number of these
    anchors, at least 1.

    codes, truth: [B, A, 4]. classes: as for `focal`.
    """
    on_object = tf.expand_dims(classes >= 0, -1)
    # Chosen before anything else, since codes of other anchors may be infinite: their gradient would be NaN.
    error = tf.abs(tf.where(on_object, codes - tf.cast(truth, codes.dtype), 0.0))
    loss = tf.where(error < BETA, 0.5 * error**2 / BETA, error - 0.5 * BETA)
    return tf.reduce_mean(tf.reduce_sum(loss, [1, 2]) / _positives(classes))


def hits(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The share of an image's anchors on objects whose class has the largest logit, and if it has anchors.

    float32 [B, 2]: the share in [0, 1], 0 without such anchors; 1 for an image that has some, else 0.
    """
    right = tf.argmax(logits, axis=-1, output_type=tf.int32) == classes
    return _share(right, classes >= 0)


def pixel_cross_entropy(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Cross-entropy over the pixels of an image that have a class, mean over images: in [0, inf).

    logits: [B, H, W, K]. mask: uint8 [B, H, W].
    """
    known = mask != IGNORE
    labels = tf.where(known, tf.cast(mask, tf.int32), 0)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(_mean_where(loss, known))


def pixel_accuracy(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The share of an image's pixels with a class whose logit is the largest, and if it has such pixels.

    float32 [B, 2], as of `hits`.
    """
    right = tf.argmax(logits, axis=-1, output_type=tf.int32) == tf.cast(mask, tf.int32)
    return _share(right, mask != IGNORE)


def _share(right: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    some = tf.reduce_any(known, list(range(1, len(known.shape))))
    return tf.stack([_mean_where(tf.cast(right, tf.float32), known), tf.cast(some, tf.float32)], axis=-1)


def _mean_where(x: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    axes = list(range(1, len(known.shape)))
    count = tf.reduce_sum(tf.cast(known, x.dtype), axes)
    return tf.reduce_sum(tf.where(known, x, 0.0), axes) / tf.maximum(count, 1.0)


def _positives(classes: tf.Tensor) -> tf.Tensor:
    return tf.maximum(tf.reduce_sum(tf.cast(classes >= 0, tf.float32), 1), 1.0)
