"""How programs in PyTorch name the weights of a ResNet and of SimSiam's heads, and what we call that.

One name a weight stands between them and us: torchvision's for the backbone ("layer1.0.conv1.weight"),
"projector.0.weight" and "predictor.0.weight" for the heads, counted as in an nn.Sequential of fc, BN, ReLU.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

Rule = tuple[str, str]  # pattern of a whole name, replacement

_HEADS = ((r"projector\.(.*)", r"projector.\1"), (r"predictor\.(.*)", r"predictor.\1"))


@dataclasses.dataclass(frozen=True)
class Layout:
    """rules: from a program's names to those between. back: the other way, for the backbone."""

    about: str
    rules: tuple[Rule, ...]
    back: tuple[Rule, ...]

    def between(self, name: str) -> str | None:
        """What stands between for a program's name; None for a name that means nothing here."""
        return _renamed(self.rules, name)

    def theirs(self, name: str) -> str:
        """A program's name for a weight of the backbone."""
        return _renamed(self.back, name) or name


def _renamed(rules: Iterable[Rule], name: str) -> str | None:
    for pattern, replacement in rules:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def _numbered(places: dict[str, str]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Rules of a backbone that is an nn.Sequential: place in it → torchvision's name."""
    to = tuple((rf"backbone\.{n}\.(.*)", rf"{name}.\1") for n, name in places.items())
    back = tuple((rf"{name}\.(.*)", rf"backbone.{n}.\1") for n, name in places.items())
    return to, back


def _as_replacement(pattern: str) -> str:
    """A pattern whose groups are a block's number and the rest → what puts the same there."""
    for group, name in enumerate(re.findall(r"\([^)]*\)", pattern), 1):
        pattern = pattern.replace(name, f"\\{group}", 1)
    return pattern.replace(r"\.", ".")


def _mm(head: str, ours: str) -> tuple[Rule, ...]:
    """mmselfsup counts fc and BN apart: fc0, bn0, fc1, …"""
    parts = [(rf"{head}\.fc{i}\.(.*)", rf"{ours}.{3 * i}.\1") for i in range(4)]
    return (*parts, *((rf"{head}\.bn{i}\.(.*)", rf"{ours}.{3 * i + 1}.\1") for i in range(4)))


_BACKBONE = r"((?:conv1|bn1|layer\d)\..*)"
_STAGES = {f"layer{i}": i for i in range(1, 5)}
_LIGHTLY = _numbered({"0": "conv1", "1": "bn1", **{str(3 + i): name for name, i in _STAGES.items()}})
_SMALL = _numbered({"0": "conv1", "1": "bn1", **{str(1 + i): name for name, i in _STAGES.items()}})
_BLOCK = r"(\d+)\."  # its number in a stage
_DETECTRON2 = (  # (there, in torchvision), as patterns with the same two groups
    (r"stem\.conv1\.norm\.(.*)", r"bn1\.(.*)"),
    (r"stem\.conv1\.(.*)", r"conv1\.(.*)"),
    *(
        (rf"res{1 + i}\.{_BLOCK}{theirs}(.*)", rf"{name}\.{_BLOCK}{ours}(.*)")
        for name, i in _STAGES.items()
        for theirs, ours in (
            (r"shortcut\.norm\.", r"downsample\.1\."),
            (r"shortcut\.", r"downsample\.0\."),
            *((rf"conv{n}\.norm\.", rf"bn{n}\.") for n in (1, 2, 3)),
            *((rf"conv{n}\.", rf"conv{n}\.") for n in (1, 2, 3)),
        )
    ),
)
_LIGHTLY_HEADS = tuple(
    (rf"{theirs}\.layers\.(.*)", rf"{ours}.\1")
    for theirs, ours in (("projection_head", "projector"), ("prediction_head", "predictor"))
)

LAYOUTS = {
    "torchvision": Layout("torchvision and timm", ((_BACKBONE, r"\1"),), ((_BACKBONE, r"\1"),)),
    "facebookresearch": Layout(
        "facebookresearch/simsiam, whose projector is the encoder's fc",
        ((rf"encoder\.{_BACKBONE}", r"\1"), (r"encoder\.fc\.(.*)", r"projector.\1"), _HEADS[1]),
        ((_BACKBONE, r"module.encoder.\1"),),
    ),
    "mmselfsup": Layout(
        "open-mmlab/mmselfsup",
        (
            (rf"backbone\.{_BACKBONE}", r"\1"),
            *_mm("neck", "projector"), *_mm(r"head\.predictor", "predictor"),
        ),
        ((_BACKBONE, r"backbone.\1"),),
    ),
    "solo_learn": Layout(
        "vturrisi/solo-learn, of any age",
        ((rf"(?:backbone|encoder)\.{_BACKBONE}", r"\1"), *_HEADS),
        ((_BACKBONE, r"backbone.\1"),),
    ),
    "lightly": Layout(
        "lightly, around a torchvision network",
        (*_LIGHTLY[0], (rf"backbone\.{_BACKBONE}", r"\1"), *_LIGHTLY_HEADS),
        _LIGHTLY[1],
    ),
    "detectron2": Layout(
        "detectron2",
        tuple((theirs, _as_replacement(ours)) for theirs, ours in _DETECTRON2),
        tuple((ours, _as_replacement(theirs)) for theirs, ours in _DETECTRON2),
    ),
    "lightly_small": Layout(
        "lightly, around its own ResNet for small images",
        (
            *((pattern.replace("(.*)", r"(\d+)\.shortcut\.(.*)"), rf"{name[:-2]}\1.downsample.\2")
              for pattern, name in _SMALL[0][2:]),
            *_SMALL[0], *_LIGHTLY_HEADS,
        ),
        (
            *((pattern.replace("(.*)", r"(\d+)\.downsample\.(.*)"), rf"{name[:-2]}\1.shortcut.\2")
              for pattern, name in _SMALL[1][2:]),
            *_SMALL[1],
        ),
    ),
}  # fmt: skip


def bare(names: Iterable[str]) -> dict[str, str]:
    """Name → the same without the "module." of data-parallel training."""
    return {name: name.removeprefix("module.") for name in names}


def detect(names: Iterable[str]) -> str | None:
    """The layout that names (as `bare` gives them) belong to; None for none that is known."""
    names = set(names)

    def has(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    if "stem.conv1.weight" in names:
        return "detectron2"
    if "encoder.conv1.weight" in names:
        return "solo_learn" if has("projector.") else "facebookresearch"
    if "backbone.conv1.weight" in names and has("projection_head."):
        return "lightly"
    if "backbone.conv1.weight" in names:
        return "mmselfsup" if has("neck.") or has("head.predictor.") else "solo_learn"
    if "backbone.0.weight" in names:
        return "lightly" if "backbone.7.0.conv1.weight" in names else "lightly_small"
    return "torchvision" if "conv1.weight" in names else None
