"""The text that a command prints when its run has ended."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path

from simsiam_tf.config import PretrainConfig, field_types, method_row
from simsiam_tf.config.places import is_encoded
from simsiam_tf.evaluate.chance import chance_text, classifier_text
from simsiam_tf.evaluate.verdict import COLUMNS, MEASURES, measured_title, verdict
from simsiam_tf.loop.task import Accuracies
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import as_flags
from simsiam_tf.training.labelled_task import RESULT
from simsiam_tf.training.pretraining import COLLAPSED, DIVERGED, DONE, INTERRUPTED, Outcome
from simsiam_tf.training.supervised import CLASSIFIER

STATUS = {
    DONE: "done", COLLAPSED: "stopped: collapsed", DIVERGED: "stopped: diverged",
    INTERRUPTED: "interrupted; the same command continues",
}  # fmt: skip


def pretraining_summary(config: PretrainConfig, outcome: Outcome) -> str:
    """Loss, std, rank, diagnosis, measures of backbone and baselines, paths, next commands, verdict."""
    method, ended = method_row(config.method), f"{STATUS[outcome.status]}, step {outcome.step}"
    lines = ["", f"{method.title} on {config.data}: {ended}"]
    if config.trains_nothing:
        ended = "read as it is, nothing trained" if outcome.status == DONE else STATUS[outcome.status]
        lines = ["", f"{config.weights or config.backbone} on {config.data}: {ended}"]
    if outcome.records:
        last, most = outcome.records[-1], config.batch_size - 1
        most = min(config.d, most) if method.d else most
        first = f"from {outcome.records[0]['loss']:.3f}" if len(outcome.records) > 1 else "of one record"
        least = {"cosine": "; least possible -1", "other": ""}.get(config.loss, "; least possible 0")
        lines += [
            f"  loss            {last['loss']:8.3f}   ({first}{least})",
            f"  std of z, × √d  {last['std']:8.3f}   (0: collapsed, about 1: healthy)",
            f"  effective rank  {last['rank']:8.1f}   (at most {most})",
        ]
    if not (config.trains_nothing and outcome.diagnosis.healthy):
        lines.append(f"  diagnosis       {as_flags(str(outcome.diagnosis), field_types(PretrainConfig))}")
    lines += _measures_table(outcome.accuracy, config)
    workdir = outcome.workdir
    lines.append("")
    if outcome.status == DONE:
        lines.append(f"  weights   {workdir / backbone_file.EXPORTED}")
    tensorboard = f"tensorboard --logdir={shlex.quote(str(workdir / 'tb'))}"
    report = f"python -m simsiam_tf.report --workdir={shlex.quote(str(workdir))}"
    look = tensorboard if "tensorboard" in config.record else report
    if "jsonl" in config.record:
        lines.append(f"  records   {workdir / 'metrics.jsonl'}")
    lines += ["", *_next_commands(config, outcome, look)]
    if outcome.status != INTERRUPTED:
        text = verdict(outcome.accuracy, outcome.diagnosis, outcome.records, dataclasses.asdict(config))
        text = as_flags(text, field_types(PretrainConfig))
        lines += ["", *textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(lines)


def _next_commands(config: PretrainConfig, outcome: Outcome, look: str) -> list[str]:
    """The commands to type next, as lines. look: the command that shows the curves."""
    commands, workdir = {}, outcome.workdir
    if not config.trains_nothing:
        commands["look at the curves and the views"] = look
    if outcome.status == INTERRUPTED:
        commands["continue"] = _continue_command("simsiam_tf.pretrain", workdir)
    elif not is_encoded(config.data):
        train = "python -m simsiam_tf.pretrain --flagfile=flags/folder.cfg --data=folder:/my/photos"
        commands["train on your own images"] = train
    elif outcome.status == DONE:
        ask = [f"--weights={workdir}", f"--data={config.data}", f"--out={workdir / 'answers'}"]
        commands["ask about the images"] = f"python -m simsiam_tf.curate {shlex.join(ask)}"
    if outcome.status == DONE:
        export = shlex.join([f"--weights={workdir}", "--format=saved_model"])
        commands["make a model for other programs"] = f"python -m simsiam_tf.export {export}"
    first, *_ = commands
    heads = {what: f"Next: {what}," if what == first else f"or {what}:" for what in commands}
    return [line for what, command in commands.items() for line in (heads[what], f"  {command}")]


def _measures_table(accuracy: Accuracies, config: PretrainConfig) -> list[str]:
    """The measures of the baselines and of the backbone, as lines."""
    names = [n for n in ("raw pixels", "untrained backbone", "backbone") if n in accuracy]
    if not names:
        return []
    columns = [c for c in COLUMNS if all(c in accuracy[name] for name in names)]
    images = f"{config.final_images:,} images" if config.final_images else "all images"
    which = images if "backbone" in accuracy else "a sample"
    title = f"kNN accuracy, {which}" if "knn20" in columns else "without labels"
    lines = ["", f"  {title:26}{''.join(f'{MEASURES[c].title:>11}' for c in columns)}"]
    for name in names:
        values = (f"{accuracy[name][c]:11{MEASURES[c].form}}" for c in columns)
        lines.append(f"  {measured_title(name, dataclasses.asdict(config)):26}{''.join(values)}")
    return lines


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
        images = backbone_file.read_card(workdir / CLASSIFIER).get("test images")
        lines.append(f"  test images      {classifier_text(test, images)}")
        lines += [f"                   {chance_text([test['top1']], images)}"] if images else []
    if not outcome.diagnosis.healthy:
        lines.append(f"  diagnosis        {outcome.diagnosis}")
    if outcome.status == DONE:
        lines += ["", f"  classifier  {workdir / CLASSIFIER}", f"  result      {workdir / RESULT}"]
    if outcome.status == INTERRUPTED:
        lines += ["", f"Continue:  {_continue_command(command, workdir)}"]
    return "\n".join(lines)


def transfer_summary(outcome: Outcome, files: Mapping[str, Path]) -> str:
    """Metrics on training and test images, paths, and how to continue an interrupted run.

    files: title of a file of a finished run → its path within the work folder.
    """
    workdir, task = outcome.workdir, outcome.config.task
    lines = ["", f"{workdir}: {STATUS[outcome.status]}, step {outcome.step}"]
    if outcome.records:
        last = outcome.records[-1]
        measured = [name for name in ("class_accuracy", "pixel_accuracy") if name in last]
        accuracy = "".join(f", {name.replace('_', ' ')} {last[name]:.1%}" for name in measured)
        lines.append(f"  training images  loss {last['loss']:.3f}{accuracy}")
    if task in outcome.accuracy:
        scores = ", ".join(f"{name} {value:.1%}" for name, value in outcome.accuracy[task].items())
        lines.append(f"  test images      {scores}")
    if not outcome.diagnosis.healthy:
        lines.append(f"  diagnosis        {outcome.diagnosis}")
    if outcome.status == DONE:
        lines += ["", *(f"  {what:11} {workdir / path}" for what, path in files.items())]
        lines += ["", f"Next:  python -m simsiam_tf.report --workdir={shlex.quote(str(workdir))}"]
    if outcome.status == INTERRUPTED:
        lines += ["", f"Continue:  {_continue_command('simsiam_tf.transfer', workdir)}"]
    return "\n".join(lines)


def _continue_command(command: str, workdir: Path) -> str:
    """The command that continues a run, quoted for a shell."""
    return f"python -m {command} --flagfile={shlex.quote(str(workdir / 'config.flags'))}"
