"""Work folders for tests of the report."""

import dataclasses
import json

from helpers import small_backbones

from simsiam_tf import html_report
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.pretrained import backbone_file

SMALL = dataclasses.replace(AUGMENTATIONS["grayscale"], size=16, area=(0.5, 1.0))


def write_records(folder, **changes):
    """Writes the records of six steps into a folder, without a backbone."""
    config = PretrainConfig(**{"data": "digits", "workdir": str(folder), **changes})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**dataclasses.asdict(config), "facts": {}}))
    record = {"loss_spread": 0.01, "std": 0.95, "rank": 9.0, "lr": 0.1, "lr_predictor": 0.1}
    lines = [{"step": 0, "epoch": 0, "knn20": 0.3, "knn200": 0.2}]
    lines += [{"step": 10 * i, "loss": -0.1 * i, **record} for i in range(1, 7)]
    lines += [{"step": 60, "epoch": 1, "knn20": 0.8, "knn200": 0.7}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"step": 70, "lo')
    return folder


def write_finished_run(folder):
    """Writes records, a backbone, results of other commands, and the report into a folder."""
    write_records(folder)
    small_backbones.exported(folder, SMALL, channels=1, settled=True)
    card = folder / "export" / "backbone.json"
    facts = {**json.loads(card.read_text()), "accuracy": {"raw pixels": {"knn20": 0.5, "knn200": 0.4}}}
    card.write_text(backbone_file.card_text(facts))
    (folder / "result.json").write_text(json.dumps({"what": "linear evaluation", "top1": 0.9, "top5": 0.99}))
    long = {"what": "evaluation_" * 9, "accuracy": {"method_" * 9: {"k=1 ": 0.5}}}
    (folder / "probe-0.1.json").write_text(json.dumps(long))
    (folder / "probe.json").write_text("no JSON")
    html_report.write_report(folder, images=60, neighbours=5)
    return folder
