"""Sections from the files of a work folder: outcome, curves, results, configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from simsiam_tf.config import LOOKS, PretrainConfig, default, field_types, loss_kind
from simsiam_tf.evaluate.diagnosis import Diagnosis, diagnose
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.sections import Section
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError

RESULTS = ("knn.json", "probe.json", "probe-*.json", "result.json", "*/result.json")


@dataclasses.dataclass(frozen=True)
class History:
    """A pre-training, read from the files of its work folder.

    records: records of training steps, at least one. evaluations: records of kNN accuracy, at the start and
    the ends of epochs. card: the model card of the exported backbone; empty where none is exported.
    """

    workdir: Path
    config: dict[str, Any]
    records: list[dict]
    evaluations: list[dict]
    card: dict[str, Any]

    @property
    def accuracy(self) -> dict[str, dict[str, float]]:
        """kNN accuracy by name, from the model card."""
        return self.card.get("accuracy") or {}

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the run by its records so far."""
        steps = self.card.get("step") or max(r["step"] for r in self.records)
        return diagnose(self.records, steps, loss_kind(self.config))


def read_history(workdir: Path) -> History:
    """The history of a pre-training. Raises UserError where the folder has none."""
    if not workdir.is_dir():
        raise UserError(f"workdir={workdir}: no such folder. Pass the work folder of a pre-training.")
    try:
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        missing = f"has no config.json and metrics.jsonl of a pre-training ({error})"
        raise UserError(f"workdir={workdir}: {missing}.") from error
    every = [record for line in lines if "step" in (record := _parse_record(line))]
    records = [r for r in every if "loss" in r]
    if not isinstance(config, dict) or not all({"std", "rank"} <= set(r) for r in records):
        raise UserError(f"workdir={workdir}: is not the folder of a pre-training.")
    if not records:
        raise UserError(f"workdir={workdir}: has no record of a step yet. Wait for the first.")
    evaluations = [r for r in every if "knn20" in r and "epoch" in r]
    return History(workdir, config, records, evaluations, backbone_file.read_card(workdir))


def _parse_record(line: str) -> dict:
    try:
        record = json.loads(line)
        return record if isinstance(record, dict) else {}
    except ValueError:  # cut off by a crash
        return {}


def outcome_section(history: History) -> Section:
    """The diagnosis, the metrics of the last record, and the kNN accuracy beside its baselines."""
    last, cosine = history.records[-1], loss_kind(history.config) == "cosine"
    least = f"least possible {'−1; about 0 at the start' if cosine else '0'}"
    metrics = [
        ["at the last record", "", ""],
        ["loss", f"{last['loss']:.3f}", least],
        ["std of z, × √d", f"{last['std']:.3f}", "0: collapsed; about 1: healthy"],
        ["effective rank of z", f"{last['rank']:.1f}", "directions that a batch spreads over"],
    ]
    section = Section("Outcome", [str(history.diagnosis)], tables=[metrics])
    names = {"backbone": "this backbone"}
    columns = {
        "knn20": "k = 20", "knn200": "k = 200",
        "whitened_knn20": "whitened, k = 20", "whitened_knn200": "whitened, k = 200",
    }  # fmt: skip
    columns = {c: title for c, title in columns.items() if all(c in a for a in history.accuracy.values())}
    rows = [[names.get(n, n), *(f"{a[c]:.1%}" for c in columns)] for n, a in history.accuracy.items()]
    if rows:
        section.tables.append([["kNN accuracy", *columns.values()], *rows])
    elif not history.card:
        section.text.append(f"The run has not ended: these are its metrics at step {last['step']}.")
    return section


def curves_section(history: History) -> Section:
    """Loss, std, rank, kNN accuracy and learning rates over the steps."""
    records, evaluations, accuracy = history.records, history.evaluations, history.accuracy
    baselines = {n: 100 * accuracy[n]["knn20"] for n in ("raw pixels", "untrained backbone") if n in accuracy}
    rows = [  # (title, curve → its values, level → its value)
        ("Loss", {"loss": [r["loss"] for r in records]}, {}),
        ("std of z, × √d", {"std·√d": [r["std"] for r in records]}, {"isotropic": 1.0, "collapse": 0.1}),
        ("Effective rank of z", {"effective rank": [r["rank"] for r in records]}, {}),
        ("kNN accuracy, %", {"kNN, k = 20": [100 * r["knn20"] for r in evaluations]}, baselines),
        ("Learning rates", {
            "encoder": [r["lr"] for r in records], "predictor": [r["lr_predictor"] for r in records]
        }, {}),
    ]  # fmt: skip
    section = Section("Training", [f"Records: {len(records)}, up to step {records[-1]['step']}."])
    for title, curves, levels in rows:
        recorded = evaluations if title.startswith("kNN") else records
        if recorded:
            steps = [r["step"] for r in recorded]
            marked = recorded is evaluations
            section.charts.append(charts.line_chart(steps, curves, title, levels, marked))
    return section


def results_section(history: History) -> Section | None:
    """The results that other commands have written into the folder; None without any."""
    rows = []
    for path in sorted({p for pattern in RESULTS for p in history.workdir.glob(pattern)}):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            name = path.relative_to(history.workdir).as_posix()
            if "top1" in result:
                rows.append([result["what"], f"top-1 {result['top1']:.1%}, top-5 {result['top5']:.1%}", name])
            for method, values in result.get("accuracy", {}).items():
                shown = ", ".join(f"{k} {v:.1%}" for k, v in values.items())
                rows.append([f"{result['what']}, {method}", shown, name])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a file of another program
    return Section("Results", tables=[[["evaluation", "accuracy", "file"], *rows]]) if rows else None


def configuration_section(history: History) -> Section:
    """The flags of the run, those that differ from their default first; versions; the backbone's digest."""
    rows = []
    for name in field_types(PretrainConfig):
        if name in history.config and name not in LOOKS:
            value, usual = history.config[name], default(PretrainConfig, name)
            rows.append([f"--{name}", str(value), "" if value == usual else f"default: {usual}"])
    rows.sort(key=lambda row: row[2] == "")
    section = Section("Configuration", tables=[[["flag", "value", ""], *rows]])
    versions = dict(history.card.get("made with") or {})
    if versions:
        replicas = versions.pop("replicas", 1)
        named = ", ".join(f"{library} {version}" for library, version in versions.items())
        section.text.append(f"Made with {named}; replicas: {replicas}.")
    if history.card.get("sha256"):
        section.text.append(f"SHA-256 of the backbone: {history.card['sha256']}")
    return section
