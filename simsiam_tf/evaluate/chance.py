"""Accuracies as text, with the uncertainty that follows from the number of test images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from simsiam_tf.evaluate.verdict import margin
from simsiam_tf.runtime.display_text import counted

FEW_IMAGES = 100  # up to this number of test images, the number of right answers is shown, too


def accuracy_text(accuracy: float, images: int | None = None, form: str = ".1%") -> str:
    """An accuracy in [0, 1] as text: "66.7%", or "66.7% (4/6)" on FEW_IMAGES images or fewer.

    images: number of test images; None: unknown. form: format specification of the accuracy.
    """
    right = f" ({round(accuracy * images)}/{images})" if images is not None and images <= FEW_IMAGES else ""
    return f"{accuracy:{form}}{right}"


def classifier_text(metrics: Mapping[str, float], images: int | None = None, form: str = ".2%") -> str:
    """The metrics "top1" and "top5" of a classifier as text, as far as `metrics` has them.

    images, form: as for `accuracy_text`.
    """
    titles = {"top1": "top-1", "top5": "top-5"}
    known = (name for name in titles if name in metrics)
    return ", ".join(f"{titles[name]} {accuracy_text(metrics[name], images, form)}" for name in known)


def chance_text(accuracies: Iterable[float], images: int) -> str:
    """The largest difference between these accuracies that may be chance, as a sentence.

    A right and a wrong answer are added to each accuracy, so that 6 of 6 is no certainty.

    images: number of test images.
    """
    rates = [(accuracy * images + 1) / (images + 2) for accuracy in accuracies]
    points = 100 * max(margin(rate, rate, images) for rate in rates)
    few = " They are few: label more images." if images <= FEW_IMAGES else ""
    return (
        f"On {counted(images, 'test image', form=',')}, a difference of up to {points:.1f} points may be "
        f"chance.{few}"
    )
