"""The same rows at other scales: a row changes of a small base what it changes of the paper's.

Numbers that belong to the paper's scale go with the base: batch sizes, output dimensions, epochs, learning
rates and weight decay by the ratio of the bases, warm-up by that of the epochs, and what is left of a moving
average's past. Everything else is taken over as it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from scripts.paper.rows import Row
from simsiam_tf.command_line import cli
from simsiam_tf.config import METHODS, PretrainConfig, differences, drop_inapplicable, to_flags

TITLES = ("batch_size", "d", "epochs")  # fields that titles of rows may name
PROPORTIONAL = ("batch_size", "d", "epochs", "base_lr", "weight_decay")
PAPER = {"simsiam": "flags/imagenet/simsiam_100ep.cfg"} | {
    method: f"flags/compare/{method}.cfg" for method in ("simclr", "moco", "byol", "swav")
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """A size at which all rows run.

    about: what it is, in words. bases: method → flagfile. linear: the command that judges, and its
    flags. cost: of a row, as far as known.
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
        _bases("cifar10") | {"simsiam": "flags/cifar10/base.cfg"},  # whose lr of h is decayed, as the paper's
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


def configuration(row: Row, scale: Scale, more: tuple[str, ...] = ()) -> PretrainConfig:
    """What a row runs with at a scale, without a work folder.

    more: flags of the user's that every row takes, such as --epochs=5.
    """
    theirs = _parsed(row.flagfile)
    paper, base = _parsed(PAPER[theirs.method]), _parsed(scale.bases[theirs.method], *more)
    changes = {}
    for name in differences(dataclasses.asdict(paper), dataclasses.asdict(theirs), PretrainConfig):
        value = getattr(theirs, name)
        if name in PROPORTIONAL:
            value = _as(value, value * getattr(base, name) / getattr(paper, name))
        elif name == "warmup_epochs":
            value = value * base.epochs / paper.epochs
        elif name == "target_momentum":
            now, before = (config.method_option(name) for config in (base, paper))
            if now is None:  # a base of a method without one
                continue
            value = _as(value, 1 - (1 - value) * (1 - now) / (1 - before))
        changes[name] = value
    if changes.get("stop_gradient") == METHODS[theirs.method].defaults.get("stop_gradient"):
        changes["stop_gradient"] = None  # said where the paper says it, and the same run
    changed = dataclasses.replace(base, **changes, workdir=None)
    return drop_inapplicable(changed, set(changes)).validate()


@functools.cache  # a base is that of many rows
def _parsed(flagfile: str, *more: str) -> PretrainConfig:
    return cli.parse(PretrainConfig, [f"--flagfile={flagfile}", *more])


def _as(value: float, scaled: float) -> float:
    """A whole number where the paper's value is one; without the last digits of floating point."""
    return round(scaled) if isinstance(value, int) else float(f"{scaled:.6g}")


def title(row: Row, scale: Scale, more: tuple[str, ...] = ()) -> str:
    """The title of a row, with each number that it runs with and the paper's where that is another."""
    if "{" not in row.title:
        return row.title
    paper, ours = _parsed(row.flagfile), configuration(row, scale, more)
    return row.title.format_map({name: _number(getattr(ours, name), getattr(paper, name)) for name in TITLES})


def _number(ours: float, paper: float) -> str:
    return f"{ours:g}" + (f", in the place of {paper:g}" if ours != paper else "")


def flags(config: PretrainConfig) -> str:
    """The flagfile of a row at a scale, without what is default; rows with the same are the same run."""
    plain = set(to_flags(PretrainConfig()).splitlines())
    lines = to_flags(dataclasses.replace(config, workdir=None, seed=0)).splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() not in plain)
