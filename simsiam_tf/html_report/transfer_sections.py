"""Sections of a transfer run: its metrics, curves, and test images with truth and prediction."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.config import TransferConfig, field_types
from simsiam_tf.dense_tasks import predictions
from simsiam_tf.dense_tasks.annotations import DETECTION, TASKS
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.picture_files import file_picture
from simsiam_tf.html_report.sections import Picture, Section, photo
from simsiam_tf.pretrained.backbone_file import card_entries
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import as_flags
from simsiam_tf.training.labelled_task import RESULT, loss_diagnosis

METRICS = {  # of test images → what it is; in the order of the page
    "AP": "average precision: mean over the classes, and over thresholds of the IoU from 50 % to 95 %",
    "AP50": "average precision where an IoU of 50 % counts as found",
    "AP75": "average precision where an IoU of 75 % counts as found",
    "mIoU": "intersection over union of predicted and true masks, mean over the classes",
    "pixel accuracy": "share of the pixels that have the right class",
}
TRAINING_METRICS = {
    "class_accuracy": "Accuracy of the classes in training, %",
    "pixel_accuracy": "Accuracy of the pixels in training, %",
}


@dataclasses.dataclass(frozen=True)
class TransferHistory:
    """A transfer run, read from the files of its work folder.

    records: records of training steps, at least one. evaluations: records of the metrics on test images.
    card: the content of result.json; empty where the run has not ended.
    """

    workdir: Path
    config: dict[str, Any]
    records: list[dict]
    evaluations: list[dict]
    card: dict[str, Any]

    @property
    def task(self) -> str:
        """One of `TASKS`."""
        return self.config["task"]

    @property
    def title(self) -> str:
        return f"{self.task.capitalize()} on {self.config.get('data', '?')}"

    @property
    def subtitle(self) -> str:
        init, weights = self.config.get("init"), self.config.get("weights", "?")
        start = f"random weights, to compare with {weights}" if init == "random" else str(weights)
        state = "" if self.card else ", not ended"
        return f"from {start}; {counted(self.records[-1]['step'], 'step')}{state}, {self.workdir.name}"

    @property
    def diagnosis(self) -> Diagnosis:
        return loss_diagnosis(self.records)

    @property
    def finds_nothing(self) -> bool:
        """Whether no box on the test images is right."""
        return self.card.get("AP50") == 0

    @property
    def healthy(self) -> bool:
        return self.diagnosis.healthy and not self.finds_nothing


def is_transfer(config: Any) -> bool:
    """Whether the content of a config.json is that of a transfer run."""
    return isinstance(config, dict) and config.get("task") in TASKS


def transfer_history(workdir: Path, config: dict, every: list[dict]) -> TransferHistory:
    """The history of a transfer run. every: the records of metrics.jsonl, at least one with a loss."""
    by_step = {r["step"]: r for r in every if metrics_of(r)}
    records = [r for r in every if "loss" in r]
    return TransferHistory(workdir, config, records, list(by_step.values()), read_result(workdir / RESULT))


def read_result(path: Path) -> dict[str, Any]:
    """The result of a transfer run; empty where the file is missing, damaged or of another command."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result if transfer_metrics(result) else {}


def transfer_metrics(result: Any) -> dict[str, float]:
    """The metrics in the content of a result.json; empty for that of another command."""
    return metrics_of(result) if isinstance(result, dict) and result.get("what") in TASKS else {}


def metrics_of(values: dict) -> dict[str, float]:
    """The metrics on test images in a result or a record."""
    return {name: values[name] for name in METRICS if isinstance(values.get(name), int | float)}


def metrics_text(metrics: dict[str, float]) -> str:
    """Metrics as words, such as "AP 12.0 %, AP50 30.1 %"."""
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in metrics.items())


def result_title(result: dict[str, Any]) -> str:
    """What a result is of, such as "detection on scenes:digits, random weights, 10 % of the images"."""
    options = card_entries(result, "configuration")
    parts = [f"{result['what']} on {result.get('test', '?')}"]
    parts += ["random weights"] if result.get("init") == "random" else []
    parts += ["backbone kept as it is"] if options.get("freeze") else []
    parts += [f"{100 * options['labels']:g} % of the images"] if options.get("labels", 1) != 1 else []
    parts += [f"seed {options['seed']}"] if options.get("seed") else []
    return ", ".join(parts)


def transfer_sections(history: TransferHistory) -> list[Section]:
    """The sections before the configuration."""
    return [_outcome_section(history), _curves_section(history), _predictions_section(history)]


def _outcome_section(history: TransferHistory) -> Section:
    """The diagnosis and the metrics in words, and as a table that says what they are."""
    result, last, steps = history.card, history.records[-1], history.records[-1]["step"]
    network = "detector" if history.task == DETECTION else "segmenter"
    section, metrics = Section("Outcome"), metrics_of(result)
    if not history.diagnosis.healthy:
        section.text.append(as_flags(str(history.diagnosis), field_types(TransferConfig)))
    elif history.finds_nothing:
        section.text.append(
            f"The detector found no object of the test images with an IoU of 50 % or more, in {steps} steps. "
            "Try more --epochs."
        )
    elif metrics:
        section.text.append(f"On test images the {network} reaches {metrics_text(metrics)}.")
    else:
        section.text.append(f"The run has not ended: these are its metrics at step {steps}.")
    if result:
        section.text.append(
            f"It learned from {result.get('images', '?')} images of {result.get('train', '?')}; the test "
            f"images are of {result.get('test', '?')}."
        )
    elif history.evaluations:
        metrics = metrics_of(history.evaluations[-1])
        section.text.append(f"The test images were last evaluated at step {history.evaluations[-1]['step']}.")
    else:
        section.text.append("The test images were not evaluated yet.")
    by_voc = history.config.get("metric") != "coco"
    rows = [["loss at the last record", f"{last['loss']:.3f}", ""]]
    for name, value in metrics.items():
        about = METRICS[name] + ", by VOC's definition" * (name.startswith("AP") and by_voc)
        rows.append([name, f"{100 * value:.1f} %", about])
    section.tables.append([["metric", "value", ""], *rows])
    return section


def _curves_section(history: TransferHistory) -> Section:
    """Loss, metric in training, metrics on test images, learning rate."""
    records = history.records
    steps = [r["step"] for r in records]
    section = Section("Training", [f"Records: {len(records)}, up to step {steps[-1]}."])
    curves = {"Loss": {"loss": [r["loss"] for r in records]}}
    for name, title in TRAINING_METRICS.items():
        if all(name in r for r in records):
            curves[title] = {"accuracy": [100 * r[name] for r in records]}
    if all("lr" in r for r in records):
        curves["Learning rate"] = {"learning rate": [r["lr"] for r in records]}
    section.charts = [charts.line_chart(steps, values, title, {}) for title, values in curves.items()]
    evaluations = history.evaluations
    if evaluations:
        names = metrics_of(evaluations[-1])
        on_test = {name: [100 * r.get(name, np.nan) for r in evaluations] for name in names}
        title = "Metrics on test images, %"
        chart = charts.line_chart([r["step"] for r in evaluations], on_test, title, {}, marked=True)
        section.charts.insert(len(section.charts) - ("Learning rate" in curves), chart)
    return section


def _predictions_section(history: TransferHistory) -> Section:
    """Test images with their truth and prediction, from the files that the run has exported."""
    section, path = Section("Predictions"), history.workdir / predictions.PICTURE
    if not path.exists():
        missing = f"No pictures: {predictions.PICTURE} is missing."
        section.text.append(missing if history.card else "No pictures yet: the run makes them at its end.")
        return section
    section.pairs = prediction_pairs(history.workdir, history.task)
    if not section.pairs:  # what the picture shows is not known
        sheet = file_picture(str(path), {})
        if sheet is None:
            section.text.append(f"No pictures: {predictions.PICTURE} cannot be read.")
            return section
        alt = "Rows of a test image: on the left with its truth, on the right with the prediction"
        section.charts.append(photo(sheet, alt, "Left: truth. Right: prediction."))
    if history.task == DETECTION:
        what = f"Predicted are boxes with a score of {100 * predictions.SHOWN_SCORE:.0f} % or more."
    else:
        what = "The background keeps its colours; what has no truth is gray."
    section.text.append(f"Test images, each with the truth first, then with the prediction. {what}")
    return section


def prediction_pairs(
    workdir: Path, task: str, most: int | None = None, prefix: str = ""
) -> list[tuple[Picture, Picture]]:
    """Pictures of test images, all or the first `most`, with the truth and with the prediction.

    prefix: the beginning of captions. Empty where the run has written none, or these cannot be read.
    """
    sheet = file_picture(str(workdir / predictions.PICTURE), {})
    if sheet is None:
        return []
    drawn, of = ("boxes", "") if task == DETECTION else ("mask", " of the pixels")
    pairs = []
    for image in predictions.read_shown(workdir, sheet)[:most]:
        title, pictures = f"Test image {image.index}", []
        for name, part in (("truth", image.truth), ("prediction", image.prediction)):
            objects = f"{part.objects}{of}" if part.objects else "no object"
            alt = f"{title} with {'its true' if name == 'truth' else 'the predicted'} {drawn}: {objects}"
            pictures.append(photo(part.pixels, alt, f"{prefix}{title}, {name}: {objects}"))
        pairs.append((pictures[0], pictures[1]))
    return pairs
