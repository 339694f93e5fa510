"""Sections from the files of a pre-training's work folder: outcome, curves, results, configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from simsiam_tf.config import (
    LOOKS,
    PretrainConfig,
    TransferConfig,
    default,
    field_types,
    loss_kind,
    method_of,
    with_method_defaults,
)
from simsiam_tf.evaluate.chance import classifier_text
from simsiam_tf.evaluate.diagnosis import Diagnosis, check_features, diagnose
from simsiam_tf.evaluate.verdict import BASELINES, COLUMNS, MEASURES, measured_title, verdict
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.sections import Section
from simsiam_tf.html_report.transfer_sections import (
    TransferHistory,
    is_transfer,
    metrics_text,
    prediction_pairs,
    result_title,
    transfer_history,
    transfer_metrics,
)
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError, as_flags

RUNS = "a pre-training or of transfer"
RESULTS = ("knn.json", "probe.json", "probe-*.json", "result.json", "*/result.json")


@dataclasses.dataclass(frozen=True)
class History:
    """A pre-training, read from the files of its work folder.

    records: records of training steps, at least one unless nothing is trained. evaluations: records of the
    monitor's measures, at the start and the ends of epochs. card: the model card of the exported backbone;
    empty where none is exported.
    """

    workdir: Path
    config: dict[str, Any]
    records: list[dict]
    evaluations: list[dict]
    card: dict[str, Any]

    @property
    def trains_nothing(self) -> bool:
        """Whether the run exports published weights as they are."""
        return self.config.get("epochs") == 0

    @property
    def title(self) -> str:
        if self.trains_nothing:
            return f"{self.config.get('weights') or self.config.get('backbone')} on {self.config.get('data')}"
        return f"{method_of(self.config).title} on {self.config.get('data', '?')}"

    @property
    def subtitle(self) -> str:
        if self.trains_nothing:
            return f"read as it is, nothing trained, {self.workdir.name}"
        state = "" if self.card else ", not ended"
        steps = self.records[-1]["step"]
        return f"{self.config.get('backbone', '?')}, {counted(steps, 'step')}{state}, {self.workdir.name}"

    @property
    def accuracy(self) -> dict[str, dict[str, float]]:
        """Measures by name, from the model card."""
        return self.card.get("accuracy") or {}

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the run by its records so far."""
        steps = self.card.get("step") or max((r["step"] for r in self.records), default=0)
        options = with_method_defaults(self.config)
        found = diagnose(self.records, steps, loss_kind(self.config), options)
        last = self.accuracy.get("backbone") or next((r for r in reversed(self.evaluations) if r["step"]), {})
        return check_features(found, self.records, steps, last.get("inference_std"))

    @property
    def healthy(self) -> bool:
        return self.diagnosis.healthy

    @property
    def measure(self) -> str:
        """The first measure of `MEASURES` that the evaluations have; that of kNN without any."""
        return next((m for m in COLUMNS if any(m in r for r in self.evaluations)), "knn20")


def read_history(workdir: Path) -> History | TransferHistory:
    """The history of a pre-training or of a transfer run. Raises UserError where the folder has none."""
    if not workdir.is_dir():
        raise UserError(f"workdir={workdir}: no such folder. Pass the work folder of {RUNS}.")
    try:
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        missing = f"has no config.json and metrics.jsonl of {RUNS} ({error})"
        raise UserError(f"workdir={workdir}: {missing}.") from error
    every = [record for line in lines if "step" in (record := _parse_record(line))]
    records = [r for r in every if "loss" in r]
    transfer = is_transfer(config)
    if not isinstance(config, dict) or not (transfer or all({"std", "rank"} <= set(r) for r in records)):
        raise UserError(f"workdir={workdir}: is not the folder of {RUNS}.")
    card = {} if transfer else backbone_file.read_card(workdir)
    if not records and not (card and config.get("epochs") == 0):
        raise UserError(f"workdir={workdir}: has no record of a step yet. Wait for the first.")
    if transfer:
        return transfer_history(workdir, config, every)
    evaluations = [r for r in every if "epoch" in r and any(m in r for m in COLUMNS)]
    return History(workdir, config, records, evaluations, card)


def _parse_record(line: str) -> dict:
    try:
        record = json.loads(line)
        return record if isinstance(record, dict) else {}
    except ValueError:  # cut off by a crash
        return {}


def outcome_section(history: History) -> Section:
    """The diagnosis, the verdict, metrics of the last record, and measures beside those of the baselines."""
    config = history.config
    diagnosis = as_flags(str(history.diagnosis), field_types(PretrainConfig))
    section = Section("Outcome", [] if history.trains_nothing else [diagnosis])
    if history.records:
        section.tables.append(_last_metrics(history))
    columns = [c for c in COLUMNS if any(c in measures for measures in history.accuracy.values())]
    rows = [
        [measured_title(n, config), *(f"{a[c]:{MEASURES[c].form}}" if c in a else "" for c in columns)]
        for n, a in history.accuracy.items()
    ]
    if rows:
        head = "kNN accuracy" if "knn20" in columns else "without labels"
        section.tables.append([[head, *(MEASURES[c].title for c in columns)], *rows])
    if history.card:
        text = verdict(history.accuracy, history.diagnosis, history.records, config)
        section.text.append(as_flags(text, field_types(PretrainConfig)))
    else:
        step = history.records[-1]["step"]
        section.text.append(f"The run has not ended: these are its metrics at step {step}.")
    return section


def _last_metrics(history: History) -> list[list[str]]:
    """The table of the metrics of the last record."""
    last, cosine = history.records[-1], loss_kind(history.config) == "cosine"
    least = f"least possible {'−1; about 0 at the start' if cosine else '0'}"
    return [
        ["at the last record", "", ""],
        ["loss", f"{last['loss']:.3f}", least],
        ["std of z, × √d", f"{last['std']:.3f}", "0: collapsed; about 1: healthy"],
        ["effective rank of z", f"{last['rank']:.1f}", "directions that a batch spreads over"],
    ]


def curves_section(history: History) -> Section:
    """Loss, std, rank, the monitor's measure and learning rates over the steps."""
    records, evaluations, accuracy = history.records, history.evaluations, history.accuracy
    measure = history.measure
    title = "kNN accuracy, %" if MEASURES[measure].by_labels else "Own image found, %"
    curve = "kNN, k = 20" if MEASURES[measure].by_labels else "own image found"
    evaluated = [r for r in evaluations if measure in r]
    baselines = {
        measured_title(n, history.config): 100 * accuracy[n][measure]
        for n in BASELINES
        if measure in accuracy.get(n, {})
    }
    rows = [  # (title, curve → its values, level → its value)
        ("Loss", {"loss": [r["loss"] for r in records]}, {}),
        ("std of z, × √d", {"std·√d": [r["std"] for r in records]}, {"isotropic": 1.0, "collapse": 0.1}),
        ("Effective rank of z", {"effective rank": [r["rank"] for r in records]}, {}),
        (title, {curve: [100 * r[measure] for r in evaluated]}, baselines),
        ("Learning rates", {
            "encoder": [r["lr"] for r in records], "predictor": [r["lr_predictor"] for r in records]
        }, {}),
    ]  # fmt: skip
    section = Section("Training", [f"Records: {len(records)}, up to step {records[-1]['step']}."])
    for name, curves, levels in rows:
        recorded = evaluated if name == title else records
        if recorded:
            steps = [r["step"] for r in recorded]
            section.charts.append(charts.line_chart(steps, curves, name, levels, recorded is evaluated))
    return section


def results_section(history: History) -> Section | None:
    """The results that other commands have written into the folder; None without any."""
    rows, pairs = [], []
    for path in sorted({p for pattern in RESULTS for p in history.workdir.glob(pattern)}):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            name = path.relative_to(history.workdir).as_posix()
            if "top1" in result:
                rows.append([result["what"], classifier_text(result, result.get("test images"), ".1%"), name])
            if metrics := transfer_metrics(result):
                rows.append([result_title(result), metrics_text(metrics), name])
                pairs += prediction_pairs(path.parent, result["what"], 1, f"{name}: ")
            for method, values in result.get("accuracy", {}).items():
                shown = ", ".join(f"{k} {v:.1%}" for k, v in values.items())
                rows.append([f"{result['what']}, {method}", shown, name])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a file of another program
    tables = [[["evaluation", "result", "file"], *rows]]
    return Section("Results", tables=tables, pairs=pairs) if rows else None


def configuration_section(history: History | TransferHistory) -> Section:
    """The flags of the run, those that differ from their default first; versions; the backbone's digest."""
    rows, options = [], PretrainConfig if isinstance(history, History) else TransferConfig
    for name in field_types(options):
        if name in history.config and name not in LOOKS:
            value, usual = history.config[name], default(options, name)
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
