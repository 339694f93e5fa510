"""Accuracies as text, with what the number of test images says about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from simsiam_tf.evaluate.verdict import margin
from simsiam_tf.runtime.display_text import counted

FEW = 100  # test images; of fewer, the number of right answers is shown beside the accuracy


def accuracy_text(accuracy: float, images: int | None = None, form: str = ".1%") -> str:
    """An accuracy in [0, 1] as text, as in "66.7% (4/6)" of FEW images or fewer; None: not known."""
    right = f" ({round(accuracy * images)}/{images})" if images is not None and images <= FEW else ""
    return f"{accuracy:{form}}{right}"


def classifier_text(metrics: Mapping[str, float], images: int | None = None, form: str = ".2%") -> str:
    """ "top1" and, if it is known, "top5" of a classifier on so many test images, as text."""
    names = {"top1": "top-1", "top5": "top-5"}
    known = (name for name in names if name in metrics)
    return ", ".join(f"{names[name]} {accuracy_text(metrics[name], images, form)}" for name in known)


def chance_text(accuracies: Iterable[float], images: int) -> str:
    """The largest difference of accuracies on so many test images that may be chance, as a sentence.

    To each accuracy a right and a wrong answer are added, so that 6 of 6 is no certainty.
    """
    rates = [(accuracy * images + 1) / (images + 2) for accuracy in accuracies]
    points = 100 * max(margin(rate, rate, images) for rate in rates)
    few = " They are few: label more images." if images <= FEW else ""
    return (
        f"On {counted(images, 'test image', form=',')}, a difference of up to {points:.1f} points may be "
        f"chance.{few}"
    )
