"""What a person wants to know when a run has ended."""

from __future__ import annotations

import shlex
from pathlib import Path

from simsiam_tf.config import METHODS, PretrainConfig, field_types
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import as_flags
from simsiam_tf.training.pretraining import COLLAPSED, DIVERGED, DONE, INTERRUPTED, Outcome
from simsiam_tf.training.supervised import CLASSIFIER, RESULT

_HOW = {
    DONE: "done", COLLAPSED: "stopped: collapsed", DIVERGED: "stopped: diverged",
    INTERRUPTED: "interrupted; the same command continues",
}  # fmt: skip


def text(config: PretrainConfig, outcome: Outcome) -> str:
    """Loss, monitor, kNN beside its baselines, where things are, and what to type next."""
    lines = [
        "",
        f"{METHODS[config.method].title} on {config.data}: {_HOW[outcome.status]}, step {outcome.step}",
    ]
    if outcome.records:
        last = outcome.records[-1]
        lines += [
            f"  loss            {last['loss']:8.3f}   (from {outcome.records[0]['loss']:.3f}; least possible "
            f"{'-1' if config.loss == 'cosine' else '0'})",
            f"  std of z, × √d  {last['std']:8.3f}   (0: collapsed, about 1: healthy)",
            f"  effective rank  {last['rank']:8.1f}   (at most {min(config.d, config.batch_size - 1)})",
        ]
    lines.append(f"  diagnosis       {as_flags(str(outcome.diagnosis), field_types(PretrainConfig))}")
    if outcome.accuracy:
        which = "all images" if "backbone" in outcome.accuracy else "a sample"
        lines += ["", f"  {f'kNN accuracy, {which}':26}{'k = 20':>8}{'k = 200':>9}"]
        order = [n for n in ("raw pixels", "untrained backbone", "backbone") if n in outcome.accuracy]
        for name in order:
            a = outcome.accuracy[name]
            label = "this backbone" if name == "backbone" else name
            lines.append(f"  {label:26}{a['knn20']:8.1%}{a['knn200']:9.1%}")
    here = outcome.workdir
    lines.append("")
    if outcome.status == DONE:
        lines.append(f"  weights   {here / backbone_file.EXPORTED}")
    lines += [
        f"  records   {here / 'metrics.jsonl'}",
        "",
        "Next: look at the curves and the views,",
        f"  tensorboard --logdir={shlex.quote(str(here / 'tb'))}",
    ]
    if outcome.status == INTERRUPTED:
        lines += ["or continue:", f"  {_again('simsiam_tf.pretrain', here)}"]
    elif not config.data.startswith("folder:"):
        lines += [
            "or learn from images of your own:",
            "  python -m simsiam_tf.pretrain --flagfile=flags/folder.cfg --data=folder:/my/photos",
        ]
    return "\n".join(lines)


def of_classifier(outcome: Outcome, command: str) -> str:
    """Accuracy on the test images, where things are, and what to type to go on.

    command: the module that the run belongs to.
    """
    here = outcome.workdir
    lines = ["", f"{here}: {_HOW[outcome.status]}, step {outcome.step}"]
    if outcome.records:
        last = outcome.records[-1]
        lines.append(f"  training views   loss {last['loss']:.3f}, {last['accuracy']:.1%} told right")
    if "classifier" in outcome.accuracy:
        found = outcome.accuracy["classifier"]
        lines.append(f"  test images      top-1 {found['top1']:.2%}, top-5 {found['top5']:.2%}")
    if not outcome.diagnosis.healthy:
        lines.append(f"  diagnosis        {outcome.diagnosis}")
    if outcome.status == DONE:
        lines += ["", f"  classifier  {here / CLASSIFIER}", f"  result      {here / RESULT}"]
    if outcome.status == INTERRUPTED:
        lines += ["", f"Continue:  {_again(command, here)}"]
    return "\n".join(lines)


def _again(command: str, workdir: Path) -> str:
    """The command that continues a run, quoted for a shell."""
    return f"python -m {command} --flagfile={shlex.quote(str(workdir / 'config.flags'))}"
