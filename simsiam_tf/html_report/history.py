"""What a work folder says of its run: configuration, records, diagnosis, results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from simsiam_tf.config import LOOKS, PretrainConfig, default, kinds, loss_kind
from simsiam_tf.evaluate.diagnosis import Diagnosis, diagnose
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.sections import Section, Table
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError

RESULTS = ("knn.json", "probe.json", "probe-*.json", "result.json", "*/result.json")


@dataclasses.dataclass(frozen=True)
class History:
    """records: of training. scores: of epochs' ends. card: of the exported backbone; empty where none is."""

    workdir: Path
    config: dict[str, Any]
    records: list[dict]
    scores: list[dict]
    card: dict[str, Any]

    @property
    def diagnosis(self) -> Diagnosis:
        """As the records tell it now."""
        steps = self.card.get("step") or max((r["step"] for r in self.records), default=0)
        return diagnose(self.records, steps, loss_kind(self.config))


def read(workdir: Path) -> History:
    """The history of a pre-training. Raises UserError where the folder has none."""
    if not workdir.is_dir():
        raise UserError(f"workdir={workdir}: no such folder. Pass that of a pre-training.")
    try:
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"workdir={workdir}: has no config.json and metrics.jsonl of a pre-training ({error})."
        ) from error
    whole = [record for record in map(_record, lines) if record]
    records = [r for r in whole if "loss" in r]
    if not isinstance(config, dict) or not all({"std", "rank"} <= set(r) for r in records):
        raise UserError(f"workdir={workdir}: is not the folder of a pre-training.")
    if not records:
        raise UserError(f"workdir={workdir}: has no record of a step yet. Wait for the first.")
    scores = [r for r in whole if "knn20" in r and "epoch" in r]
    return History(workdir, config, records, scores, backbone_file.read_card(workdir))


def _record(line: str) -> dict | None:
    try:
        record = json.loads(line)
        return record if isinstance(record, dict) and "step" in record else None
    except ValueError:  # cut off by a crash
        return None


def outcome(history: History) -> Section:
    """What came of it, in words and figures."""
    last, found, card = history.records[-1], history.diagnosis, history.card
    section = Section("Outcome", [f"{found}"])
    rows = [
        ["loss", f"{last['loss']:.3f}", "least possible −1; 0 at the start"],
        ["std of z, × √d", f"{last['std']:.3f}", "0: collapsed; about 1: healthy"],
        [
            "effective rank of z",
            f"{last['rank']:.1f}",
            "directions that a batch spreads over",
        ],
    ]
    section.tables.append(Table(["at the last record", "", ""], rows))
    accuracy = card.get("accuracy") or {}
    names = {"backbone": "this backbone"}
    kept = [[names.get(n, n), f"{a['knn20']:.1%}", f"{a['knn200']:.1%}"] for n, a in accuracy.items()]
    if kept:
        section.tables.append(Table(["kNN accuracy", "k = 20", "k = 200"], kept))
    elif not card:
        section.text.append(f"The run has not ended: this is how it stands at step {last['step']}.")
    return section


def curves(history: History) -> Section:
    """Loss, std, rank, kNN and learning rates over the steps."""
    records, scores = history.records, history.scores
    steps = [r["step"] for r in records]
    of = lambda name: [r[name] for r in records]  # noqa: E731
    section = Section(
        "Training", [f"{len(records)} record{'s' * (len(records) > 1)} up to step {steps[-1]}."]
    )
    section.charts = [
        charts.lines(steps, {"loss": of("loss")}, "Loss"),
        charts.lines(steps, {"std·√d": of("std")}, "std of z, × √d", {"isotropic": 1.0, "collapse": 0.1}),
        charts.lines(steps, {"effective rank": of("rank")}, "Effective rank of z"),
    ]
    if scores:
        levels = {}
        for name in ("raw pixels", "untrained backbone"):
            if name in (history.card.get("accuracy") or {}):
                levels[name] = 100 * history.card["accuracy"][name]["knn20"]
        values = {"kNN, k = 20": [100 * r["knn20"] for r in scores]}
        section.charts.append(
            charts.lines([r["step"] for r in scores], values, "kNN accuracy, %", levels, marked=True)
        )
    section.charts.append(
        charts.lines(steps, {"encoder": of("lr"), "predictor": of("lr_predictor")}, "Learning rates")
    )
    return section


def results(history: History) -> Section | None:
    """What the other commands found and left in the folder; None where they did not."""
    rows = []
    for path in sorted({p for pattern in RESULTS for p in history.workdir.glob(pattern)}):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            name = path.relative_to(history.workdir).as_posix()
            if "top1" in found:
                rows.append([found["what"], f"top-1 {found['top1']:.1%}, top-5 {found['top5']:.1%}", name])
            for method, values in found.get("accuracy", {}).items():
                shown = ", ".join(f"{k} {v:.1%}" for k, v in values.items())
                rows.append([f"{found['what']}, {method}", shown, name])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not one of ours
    return Section("Results", tables=[Table(["what", "accuracy", "file"], rows)]) if rows else None


def configuration(history: History) -> Section:
    """Every flag, those that are not defaults first."""
    shown = [name for name in kinds(PretrainConfig) if name in history.config and name not in LOOKS]
    held = {name: history.config[name] for name in shown}
    usual = {name: default(PretrainConfig, name) for name in held}
    rows = [[f"--{k}", str(v), "" if v == usual[k] else f"default: {usual[k]}"] for k, v in held.items()]
    rows.sort(key=lambda row: row[2] == "")
    section = Section("Configuration", tables=[Table(["flag", "value", ""], rows)])
    made = dict(history.card.get("made with") or {})
    if made:
        count = made.pop("replicas", 1)
        where = f"on {count} replica{'s' * (count != 1)}"
        section.text.append(f"Made {where} with {', '.join(f'{k} {v}' for k, v in made.items())}.")
    if history.card.get("sha256"):
        section.text.append(f"SHA-256 of the backbone: {history.card['sha256']}")
    return section
