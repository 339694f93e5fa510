"""Mean IoU and pixel accuracy of semantic segmentation, from a confusion matrix over all images."""

from __future__ import annotations

import numpy as np

from simsiam_tf.dense_tasks.annotations import IGNORE


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts pixels by true class (row) and predicted class (column): int64 [classes, classes].

    Pixels whose truth is `IGNORE` are left out. The matrices of images add up to that of a set.

    truth, predicted: uint8 [H, W], classes of the pixels. classes: their number, the background's included.

    Raises:
        ValueError: the shapes differ, or a value is not a class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"Masks must have the same shape. Received: truth {truth.shape}, prediction {predicted.shape}"
        )
    kept = truth != IGNORE
    pairs = {"truth": truth[kept].astype(np.int64), "prediction": predicted[kept].astype(np.int64)}
    for title, values in pairs.items():
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"Values of a {title} must be in 0 … {classes - 1}. Received: {values.min()} … {values.max()}"
            )
    cells = classes * pairs["truth"] + pairs["prediction"]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def scores(confusion: np.ndarray) -> dict[str, float]:
    """Mean IoU and pixel accuracy in [0, 1], from the sum of the images' confusion matrices.

    The IoU of a class is the number of its pixels in both truth and prediction, over that in either, of all
    images together, as PASCAL VOC defines it; it is not a mean over images. "mIoU" is the mean over the
    classes, the background included, that occur in truth or prediction (scikit-learn's macro average): a
    class that occurs in neither has no IoU. "pixel accuracy" is the share of right pixels. Both are NaN
    without pixels.

    confusion: int [classes, classes], true classes by predicted ones.
    """
    right = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - right
    if not union.any():
        return {"mIoU": float("nan"), "pixel accuracy": float("nan")}
    return {
        "mIoU": float((right[union > 0] / union[union > 0]).mean()),
        "pixel accuracy": float(right.sum() / confusion.sum()),
    }
