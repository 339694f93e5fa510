"""Work folders of transfer for tests of the report, written by hand."""

import dataclasses
import json

import numpy as np

from simsiam_tf.config import TransferConfig
from simsiam_tf.dense_tasks import predictions
from simsiam_tf.dense_tasks.predictions import Drawn, ShownImage

METRICS = {
    "detection": {"AP": 0.123, "AP50": 0.345, "AP75": 0.1},
    "segmentation": {"mIoU": 0.456, "pixel accuracy": 0.9},
}
STEP_METRIC = {"detection": "class_accuracy", "segmentation": "pixel_accuracy"}


def write_transfer_records(folder, task="detection", **changes):
    """Writes the configuration and the records of three steps and one evaluation into a folder."""
    config = TransferConfig(**{"weights": "/runs/a", "data": "scenes:digits", "task": task, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**dataclasses.asdict(config), "metadata": {}}))
    lines = [{"step": 10 * i, "loss": 3.0 / i, "loss_spread": 0.1, STEP_METRIC[task]: 0.2 * i, "lr": 0.1}
             for i in (1, 2, 3)]  # fmt: skip
    lines.insert(2, {"step": 20, "epoch": 1, **dict.fromkeys(METRICS[task], 0.05)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_transfer_run(folder, task="detection", shown=None, **changes):
    """Writes the files of a run that has ended: its records, result, and pictures of predictions.

    shown: the predictions; None for two images.
    """
    write_transfer_records(folder, task, **changes)
    config = json.loads((folder / "config.json").read_text())
    result = {"what": task, **METRICS[task], "train": "scenes:digits", "test": "scenes:digits", "images": 16,
              "init": config["init"], "configuration": config, "made with": {"keras": "3.15.1"}}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 30, "images": "all", **METRICS[task]}) + "\n")
    predictions.write_shown(folder, shown or two_images())
    return folder


def two_images():
    """Pictures of one colour each, of two sizes."""
    gray = [
        np.full((h, 120, 3), value, np.uint8) for h, value in ((100, 40), (100, 80), (90, 120), (90, 200))
    ]
    return [
        ShownImage(0, Drawn(gray[0], "2 × bag, boot"), Drawn(gray[1], "bag 87 %")),
        ShownImage(7, Drawn(gray[2], "shirt"), Drawn(gray[3], "")),
    ]
