"""Whether the features of a run beat raw pixels and untrained weights; if not, what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simsiam_tf.config.backbones import is_network, parse_backbone
from simsiam_tf.evaluate.diagnosis import ADVICE, NEAR_STD, Diagnosis

MARGIN = 0.01  # least gain over a baseline; accuracies on 2,000 images often differ by less by chance
FEW_STEPS = 1000
LOW_RANK = 4.0  # effective rank of z
FALLING = 0.1  # a loss is still falling if more than this share of its fall came after the middle third
MILD_CROPS = 0.4


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure of features, for tables and sentences.

    title: heading of its column. words: its name in a sentence. form: format specification of its values.
    by_labels: whether it needs labels.
    """

    title: str
    words: str
    form: str = ".1%"
    by_labels: bool = False

    def text(self, value: float) -> str:
        return format(value, self.form).replace("%", " %")


MEASURES = {  # name in records and model cards → measure
    "knn20": Measure("k = 20", "kNN-20", by_labels=True),
    "knn200": Measure("k = 200", "kNN-200", by_labels=True),
    "whitened_knn20": Measure("whitened", "kNN-20 of whitened features", by_labels=True),
    "recall1": Measure("own image", "own image found"),
    "whitened_recall1": Measure("whitened", "own image found by whitened features"),
    "mrr": Measure("MRR", "mean reciprocal rank", ".3f"),
    "rankme": Measure("RankMe", "RankMe", ".1f"),
}
# The first of these that was evaluated decides. Whitened features come first: the export whitens them.
DECIDING = ("whitened_knn20", "knn20", "whitened_recall1", "recall1")
BASELINES = {"raw pixels": "raw pixels", "untrained backbone": "untrained weights"}


def measures_text(measures: Mapping[str, float]) -> str:
    """Measures as text, as in "kNN-20 84.5 %, kNN-200 82.3 %"."""
    known = (name for name in MEASURES if name in measures)
    return ", ".join(f"{MEASURES[name].words} {MEASURES[name].text(measures[name])}" for name in known)


def measured_title(name: str, config: Mapping[str, Any]) -> str:
    """How tables and logs call a key of `accuracy`, as in `verdict`: a run may begin with trained weights."""
    if name == "untrained backbone" and _has_weights(config):
        return "initial weights"
    return "this backbone" if name == "backbone" else name


def verdict(
    accuracy: Mapping[str, Mapping[str, float]],
    diagnosis: Diagnosis,
    records: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
) -> str:
    """Says in one or two sentences whether the features beat their baselines; if not, what to change.

    Compares by the first of `DECIDING` that was evaluated: kNN accuracy where the images have labels, else
    recall at 1 (`label_free.retrieval`); either of whitened features where the export whitens them.

    Args:
        accuracy: "backbone" or a key of `BASELINES` → key of `MEASURES` → final value; any may be missing.
        diagnosis: diagnosis of the run.
        records: training records, the oldest first.
        config: options of the run.
    """
    trained = accuracy.get("backbone", {})
    start = "the weights that the run began with" if _has_weights(config) else BASELINES["untrained backbone"]
    name = next((name for name in DECIDING if name in trained), None)
    if name is None:
        unfit = "" if diagnosis.healthy else f" {_advice(diagnosis, records, config)}"
        return f"Not compared with raw pixels and {start} ({_reason(config)}).{unfit}"
    titles = {**BASELINES, "untrained backbone": start}
    beaten, unbeaten = [], []
    for key, title in titles.items():
        if name in accuracy.get(key, {}):
            wins = trained[name] > accuracy[key][name] + MARGIN
            (beaten if wins else unbeaten).append(f"{title} ({MEASURES[name].text(accuracy[key][name])})")
    figure = f"{MEASURES[name].words} {MEASURES[name].text(trained[name])}"
    if not unbeaten:
        return f"The features beat {' and '.join(beaten)}: {figure}."
    also = f"; they beat {beaten[0]}" if beaten else ""
    text = f"The features do not beat {' or '.join(unbeaten)}: {figure}{also}."
    lost_to_start = _has_weights(config) and start in " ".join(unbeaten)
    return f"{text} {_advice(diagnosis, records, config, lost_to_start)}"


def _has_weights(config: Mapping[str, Any]) -> bool:
    """Whether the run began with trained weights."""
    backbone = str(config.get("backbone", ""))
    return bool(config.get("weights") or (is_network(backbone) and parse_backbone(backbone).weights))


def _reason(config: Mapping[str, Any]) -> str:
    if config.get("monitor") == "none":
        return "monitor=none"
    return "final_images=0" if config.get("final_images") == 0 else "the run has not come to its end"


def _advice(
    diagnosis: Diagnosis,
    records: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    lost_to_start: bool = False,
) -> str:
    """Says what to change: the first advice that applies to the diagnosis, records and options of the run."""
    if not diagnosis.healthy:
        return diagnosis.advice
    if lost_to_start:
        return "Train on at a lower `base_lr`, or use the weights that the run began with as they are."
    longer, last = "`minutes`" if config.get("minutes") else "`epochs`", records[-1] if records else {}
    if last and (last["std"] < NEAR_STD or last["rank"] < LOW_RANK):
        return ADVICE["partial collapse"]
    if last and last["step"] < FEW_STEPS:
        crop_area, ways = config.get("crop_area"), ["a higher `base_lr`"]
        if config.get("method") != "simclr":
            ways.insert(0, "method=simclr, which learns faster at few steps")
        if crop_area is None or crop_area < MILD_CROPS:
            ways.append(f"milder crops (crop_area={MILD_CROPS})")
        return f"{last['step']} steps are few: train longer ({longer}), or try {', '.join(ways)}."
    if _is_falling([record["loss"] for record in records]):
        return f"The loss was still falling: train longer ({longer})."
    return (
        "Begin with published weights (such as backbone=keras:EfficientNetV2B0+imagenet), or train several "
        f"times as long ({longer})."
    )


def _is_falling(losses: Sequence[float]) -> bool:
    """Whether more than the share `FALLING` of the loss' fall came after the middle third of the records."""
    third = len(losses) // 3
    if third < 1:
        return False
    middle, last = (float(np.median(part)) for part in (losses[-2 * third : -third], losses[-third:]))
    return middle - last > FALLING * max(losses[0] - last, 0.0)
