"""The paper's rows at other scales: each row changes a small base as it changes the paper's baseline.

Some numbers are scaled: batch size, output dimension, epochs, learning rate and weight decay by the ratio
of the small base to the paper's baseline; warm-up by the ratio of their epochs; 1 − target momentum by the
ratio of theirs. All other options are copied.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from scripts.paper.rows import Row
from simsiam_tf.command_line import cli
from simsiam_tf.config import METHODS, PretrainConfig, differences, drop_inapplicable, to_flags

TITLES = ("batch_size", "d", "epochs")  # fields that may appear in titles of rows
PROPORTIONAL = ("batch_size", "d", "epochs", "base_lr", "weight_decay")
PAPER = {"simsiam": "flags/imagenet/simsiam_100ep.cfg"} | {
    method: f"flags/compare/{method}.cfg" for method in ("simclr", "moco", "byol", "swav")
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """A size at which all rows run.

    about: description. bases: method → flagfile that the method's rows change.
    linear: command of the linear evaluation, with its flags.
    cost: time and hardware that a row takes.
    """

    about: str
    bases: Mapping[str, str]
    linear: str
    cost: str


def _bases(folder: str) -> dict[str, str]:
    return {method: f"flags/{folder}/{method}.cfg" for method in PAPER}


SCALES = {
    "fashion_mnist": Scale(
        "20,000 images of Fashion-MNIST, ResNet-10 a quarter as wide, d = 256, 8 epochs, batch 128",
        _bases("fashion_mnist/compare"),
        "probe --raw_pixels=false --strengths=0.001,0.01,0.1,1",
        "2 minutes of a CPU core with AVX512-BF16 a row, 6 of one with AVX2",
    ),
    "cifar10": Scale(
        "CIFAR-10, ResNet-18, d = 2048, App. D's setting",
        _bases("cifar10") | {"simsiam": "flags/cifar10/base.cfg"},  # decays the lr of h, as the paper's does
        "linear_eval --flagfile=flags/cifar10/linear.cfg",
        "half a day of one GPU a row; less with --epochs",
    ),
    "imagenet": Scale(
        "ImageNet, ResNet-50, d = 2048, 100 epochs: the paper's scale",
        PAPER,
        "linear_eval --flagfile=flags/imagenet/linear.cfg",
        "8 GPUs for a day a row",
    ),
}


def row_config(row: Row, scale: Scale, more: tuple[str, ...] = ()) -> PretrainConfig:
    """The configuration of a row at a scale, without a work folder.

    more: flags that the user gives for every row, such as --epochs=5.
    """
    paper_row = _parsed(row.flagfile)
    paper, base = _parsed(PAPER[paper_row.method]), _parsed(scale.bases[paper_row.method], *more)
    changes = {}
    for name in differences(dataclasses.asdict(paper), dataclasses.asdict(paper_row), PretrainConfig):
        value = getattr(paper_row, name)
        if name in PROPORTIONAL:
            value = _like(value, value * getattr(base, name) / getattr(paper, name))
        elif name == "warmup_epochs":
            value = value * base.epochs / paper.epochs
        elif name == "target_momentum":
            now, before = (config.method_option(name) for config in (base, paper))
            if now is None:  # the method has none at this scale
                continue
            value = _like(value, 1 - (1 - value) * (1 - now) / (1 - before))
        changes[name] = value
    if changes.get("stop_gradient") == METHODS[paper_row.method].defaults.get("stop_gradient"):
        changes["stop_gradient"] = None  # the method's default: the same run as without the flag
    changed = dataclasses.replace(base, **changes, workdir=None)
    return drop_inapplicable(changed, set(changes)).validate()


@functools.cache  # many rows share a base
def _parsed(flagfile: str, *more: str) -> PretrainConfig:
    return cli.parse(PretrainConfig, [f"--flagfile={flagfile}", *more])


def _like(value: float, scaled: float) -> float:
    """`scaled` as an int where the paper's value is one; else rounded to six digits."""
    return round(scaled) if isinstance(value, int) else float(f"{scaled:.6g}")


def row_title(row: Row, scale: Scale, more: tuple[str, ...] = ()) -> str:
    """The title of a row with its numbers, and with the paper's where they differ."""
    if "{" not in row.title:
        return row.title
    paper, ours = _parsed(row.flagfile), row_config(row, scale, more)
    return row.title.format_map({name: _number(getattr(ours, name), getattr(paper, name)) for name in TITLES})


def _number(ours: float, paper: float) -> str:
    return f"{ours:g}" + (f" ({paper:g} in the paper)" if ours != paper else "")


def row_flags(config: PretrainConfig) -> str:
    """The text of a row's flagfile at a scale, without defaults. Rows with the same text share their runs."""
    defaults = set(to_flags(PretrainConfig()).splitlines())
    lines = to_flags(dataclasses.replace(config, workdir=None, seed=0)).splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() not in defaults)
