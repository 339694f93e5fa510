"""The text that a command prints when its run has ended."""

from __future__ import annotations

import shlex
from pathlib import Path

from simsiam_tf.config import METHODS, PretrainConfig, field_types
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import as_flags
from simsiam_tf.training.pretraining import COLLAPSED, DIVERGED, DONE, INTERRUPTED, Outcome
from simsiam_tf.training.supervised import CLASSIFIER, RESULT

STATUS = {
    DONE: "done", COLLAPSED: "stopped: collapsed", DIVERGED: "stopped: diverged",
    INTERRUPTED: "interrupted; the same command continues",
}  # fmt: skip


def pretraining_summary(config: PretrainConfig, outcome: Outcome) -> str:
    """Loss, std and rank, diagnosis, kNN accuracy beside its baselines, paths, and what to type next."""
    lines = [
        "",
        f"{METHODS[config.method].title} on {config.data}: {STATUS[outcome.status]}, step {outcome.step}",
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
        order = [n for n in ("raw pixels", "untrained backbone", "backbone") if n in outcome.accuracy]
        whitened = all("whitened_knn20" in outcome.accuracy[name] for name in order)
        head = f"  {f'kNN accuracy, {which}':26}{'k = 20':>8}{'k = 200':>9}"
        lines += ["", head + f"{'whitened: k = 20':>18}{'k = 200':>9}" * whitened]
        for name in order:
            a = outcome.accuracy[name]
            label = "this backbone" if name == "backbone" else name
            lines.append(f"  {label:26}{a['knn20']:8.1%}{a['knn200']:9.1%}")
            if whitened:
                lines[-1] += f"{a['whitened_knn20']:18.1%}{a['whitened_knn200']:9.1%}"
    workdir = outcome.workdir
    lines.append("")
    if outcome.status == DONE:
        lines.append(f"  weights   {workdir / backbone_file.EXPORTED}")
    tensorboard = f"tensorboard --logdir={shlex.quote(str(workdir / 'tb'))}"
    report = f"python -m simsiam_tf.report --workdir={shlex.quote(str(workdir))}"
    look = tensorboard if "tensorboard" in config.record else report
    if "jsonl" in config.record:
        lines.append(f"  records   {workdir / 'metrics.jsonl'}")
    lines += [
        "",
        "Next: look at the curves and the views,",
        f"  {look}",
    ]
    if outcome.status == INTERRUPTED:
        lines += ["or continue:", f"  {_continue_command('simsiam_tf.pretrain', workdir)}"]
    elif not config.data.startswith("folder:"):
        lines += [
            "or train on your own images:",
            "  python -m simsiam_tf.pretrain --flagfile=flags/folder.cfg --data=folder:/my/photos",
        ]
    return "\n".join(lines)


def supervised_summary(outcome: Outcome, command: str) -> str:
    """Metrics on training views and test images, paths, and how to continue an interrupted run.

    command: the module that was run, such as "simsiam_tf.finetune".
    """
    workdir = outcome.workdir
    lines = ["", f"{workdir}: {STATUS[outcome.status]}, step {outcome.step}"]
    if outcome.records:
        last = outcome.records[-1]
        lines.append(f"  training views   loss {last['loss']:.3f}, accuracy {last['accuracy']:.1%}")
    if "classifier" in outcome.accuracy:
        test = outcome.accuracy["classifier"]
        lines.append(f"  test images      top-1 {test['top1']:.2%}, top-5 {test['top5']:.2%}")
    if not outcome.diagnosis.healthy:
        lines.append(f"  diagnosis        {outcome.diagnosis}")
    if outcome.status == DONE:
        lines += ["", f"  classifier  {workdir / CLASSIFIER}", f"  result      {workdir / RESULT}"]
    if outcome.status == INTERRUPTED:
        lines += ["", f"Continue:  {_continue_command(command, workdir)}"]
    return "\n".join(lines)


def _continue_command(command: str, workdir: Path) -> str:
    """The command that continues a run, quoted for a shell."""
    return f"python -m {command} --flagfile={shlex.quote(str(workdir / 'config.flags'))}"
