"""Whether the features of a run beat raw pixels and untrained weights; if not, what to change."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simsiam_tf.config import loss_kind, with_method_defaults
from simsiam_tf.config.backbones import is_published
from simsiam_tf.evaluate.advice import advice
from simsiam_tf.evaluate.diagnosis import NEAR_STD, Diagnosis
from simsiam_tf.runtime.display_text import counted

# A difference of two accuracies counts if it is above this number of its standard errors; where the number
# of queries is not recorded, if it is above MARGIN.
STANDARD_ERRORS, MARGIN = 2.0, 0.01
FEW_STEPS = 1000  # a run of fewer steps is short
LOW_RANK = 4.0  # an effective rank of z below it is low
FALLING = 0.1  # a loss is still falling if more than this share of its fall came after the middle third
MILD_CROPS = 0.4  # value of `crop_area`
NOT_EVALUATED = ("monitor=none", "final_images=0")  # reasons for which `knn_eval` can compare afterwards
UNFINISHED = "the run has not come to its end; its command, typed again, goes on and compares"


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure of features, for tables and sentences.

    title: heading of its column; "": no column. words: its name in a sentence. form: format specification
    of its values. by_labels: whether it needs labels.
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
    "inference_std": Measure("", "std of features at inference, times √F", ".3f"),
    "knn_queries": Measure("", "queries of the kNN accuracy", ",.0f"),
    "recall1_queries": Measure("", "queries of recall at 1", ",.0f"),
}
COLUMNS = tuple(name for name, measure in MEASURES.items() if measure.title)
# The first of these that was evaluated decides. Whitened features come first: the export whitens them.
DECIDING = ("whitened_knn20", "knn20", "whitened_recall1", "recall1")
BASELINES = {"raw pixels": "raw pixels", "untrained backbone": "untrained weights"}


def measures_text(measures: Mapping[str, float]) -> str:
    """Measures as text, as in "kNN-20 84.5 %, kNN-200 82.3 %"."""
    known = (name for name in MEASURES if name in measures)
    return ", ".join(f"{MEASURES[name].words} {MEASURES[name].text(measures[name])}" for name in known)


def measured_title(name: str, config: Mapping[str, Any]) -> str:
    """The title in tables and logs of a key of `accuracy` (see `verdict`).

    The title of "untrained backbone" is "initial weights" for a run that began with trained weights.
    """
    if name == "untrained backbone" and _has_weights(config):
        return "initial weights"
    return "this backbone" if name == "backbone" else name


def verdict(
    accuracy: Mapping[str, Mapping[str, float]],
    diagnosis: Diagnosis,
    records: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
) -> str:
    """The verdict in one or two sentences: whether the features beat their baselines; if not, the advice.

    Compares by the first of `DECIDING` that was evaluated: kNN accuracy where the images have labels, else
    recall at 1 (`label_free.retrieval`); either of whitened features where the export whitens them. A
    difference within `margin` is none.

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
        reason, compare = _reason(config, diagnosis), ""
        if config.get("workdir") and reason in NOT_EVALUATED:
            weights = f"--weights={shlex.quote(str(config['workdir']))}"
            compare = f" python -m simsiam_tf.knn_eval {weights} compares by labels."
        baselines = "raw pixels" if config.get("epochs") == 0 else f"raw pixels and {start}"
        return f"Not compared with {baselines} ({reason}).{compare}{unfit}"
    titles = {**BASELINES, "untrained backbone": start}
    queries = trained.get("knn_queries" if MEASURES[name].by_labels else "recall1_queries")
    beaten, level, unbeaten, margins = [], [], [], []
    for key, title in titles.items():
        if name in accuracy.get(key, {}):
            value = accuracy[key][name]
            least, gain = margin(trained[name], value, queries), trained[name] - value
            group = beaten if gain > least else unbeaten if gain < -least else level
            group.append(f"{title} ({MEASURES[name].text(value)})")
            margins += [least] * (group is level)
    result = f"{MEASURES[name].words} {MEASURES[name].text(trained[name])}{_whitening_cost(name, trained)}"
    if not unbeaten and not level:
        return f"The features beat {' and '.join(beaten)}: {result}."
    also = f"; they beat {beaten[0]}" if beaten else ""
    text = f"The features do not beat {' or '.join(unbeaten)}: {result}{also}." if unbeaten else ""
    if level:
        result, also = ("", "") if unbeaten else (f": {result}", also)
        text = f"{text} There is no clear difference from {' and '.join(level)}{result}{also}. "
        text += f"Up to {100 * max(margins):.1f} points may be chance{_by_queries(queries)}."
    lost_to_start = _has_weights(config) and start in " ".join(unbeaten + level)
    return f"{text.strip()} {_advice(diagnosis, records, config, lost_to_start)}"


def margin(a: float, b: float, queries: float | None) -> float:
    """The largest difference of accuracies a and b that counts as none, both in [0, 1].

    It is two standard errors of the difference, at least one query. The errors are added as for different
    queries, though both accuracies have the same, so that the margin is rather too wide.

    queries: number of queries of each; None: unknown.
    """
    if not queries:
        return MARGIN
    return max(STANDARD_ERRORS * ((a * (1 - a) + b * (1 - b)) / queries) ** 0.5, 1 / queries)


def _whitening_cost(name: str, trained: Mapping[str, float]) -> str:
    """A note for features that whitening makes clearly worse, with what to do; else empty."""
    plain = name.removeprefix("whitened_")
    value = trained.get(plain, 0.0)
    queries = trained.get("knn_queries" if MEASURES[name].by_labels else "recall1_queries")
    if value - trained[name] <= margin(value, trained[name], queries):
        return ""
    better = MEASURES[plain].text(value)
    return f" (without whitening {better}: remove the folder `export` and rerun with finish=none)"


def _by_queries(queries: float | None) -> str:
    if not queries:
        return ""
    return f" (two standard errors of a difference on {counted(int(queries), 'query', 'queries', ',')})"


def _has_weights(config: Mapping[str, Any]) -> bool:
    """Whether the run began with trained weights."""
    return bool(config.get("weights")) or is_published(str(config.get("backbone", "")))


def _reason(config: Mapping[str, Any], diagnosis: Diagnosis) -> str:
    """The reason why a run has no measures at its end."""
    if diagnosis.name == "divergence":
        return "the run diverged"
    if config.get("monitor") == "none":
        return "monitor=none"
    return "final_images=0" if config.get("final_images") == 0 else UNFINISHED


def _advice(
    diagnosis: Diagnosis,
    records: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    lost_to_start: bool = False,
) -> str:
    """The first advice that applies to the diagnosis, records and options of the run.

    lost_to_start: whether the features do not beat the weights that the run began with.
    """
    if not diagnosis.healthy:
        return diagnosis.advice
    if lost_to_start:
        lower = "Begin anew in another `workdir` at a lower `base_lr`"
        return f"{lower}, or use the weights that the run began with as they are."
    if config.get("epochs") == 0:
        return "Train on the images: with minutes=30, without epochs=0 and in another `workdir`."
    longer, last = "`minutes`" if config.get("minutes") else "`epochs`", records[-1] if records else {}
    if last and (last["std"] < NEAR_STD or last["rank"] < LOW_RANK):
        options = with_method_defaults(config)
        return advice("partial collapse", loss_kind(options), options=options)
    if last and last["step"] < FEW_STEPS:
        crop_area, ways = config.get("crop_area"), ["a higher `base_lr`"]
        if config.get("method") != "simclr":
            ways.insert(0, "method=simclr")
        if crop_area is None or crop_area < MILD_CROPS:
            ways.append(f"milder crops (crop_area={MILD_CROPS})")
        tries = " or ".join(filter(None, (", ".join(ways[:-1]), ways[-1])))
        return f"{last['step']} steps are few: train longer ({longer}), or try {tries}."
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
