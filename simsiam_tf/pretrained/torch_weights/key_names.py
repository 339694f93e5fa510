"""Finds ResNets among the names of a checkpoint, tells which program named them, and writes such names.

A program's names and those of this package are both mapped to torchvision's ("layer1.0.conv1.weight").
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable

_TORCHVISION = r"(?:conv1|bn1|layer[1-4])\..*"
_TRAINING_WRAPPERS = r"(?<![^.])(?:module|_orig_mod)\."  # of data-parallel and of compiled training


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a program names weights.

    title: name of the program, for messages. prefix: prefix of the network's names.
    layer1_place: index of layer1 where the network is an nn.Sequential.
    projector, predictor: template of the names of a head's modules, with {i}, the index in an
        nn.Sequential, or {kind} (fc or bn) and {j}, the index among its kind; empty where there are no heads.
    last_bias: whether the projector's last fc has a bias although BN follows it.
    envelope: whether the program's files hold the weights under "state_dict".
    """

    title: str
    prefix: str = ""
    layer1_place: int | None = None
    projector: str = ""
    predictor: str = ""
    last_bias: bool = False
    envelope: bool = False

    def from_torchvision(self, name: str) -> str:
        """The program's name for a backbone's weight, given torchvision's."""
        if self.title == "detectron2":
            return _to_detectron2(name)
        if self.layer1_place is not None:
            stage, _, rest = name.partition(".")
            places = {"conv1": 0, "bn1": 1, **{f"layer{i + 1}": self.layer1_place + i for i in range(4)}}
            rest = rest.replace("downsample", "shortcut") if self.layer1_place == 2 else rest
            name = f"{places[stage]}.{rest}"
        return self.prefix + name


_LIGHTLY_HEADS = ("projection_head.layers.{i}", "prediction_head.layers.{i}")
LAYOUTS = {
    "torchvision": Layout("torchvision and timm"),
    "facebookresearch": Layout(
        "facebookresearch/simsiam, whose projector is the encoder's fc", "module.encoder.", None,
        "module.encoder.fc.{i}", "module.predictor.{i}", last_bias=True, envelope=True,
    ),
    "mmselfsup": Layout(
        "open-mmlab/mmselfsup", "backbone.", None, "neck.{kind}{j}", "head.predictor.{kind}{j}", envelope=True
    ),
    "solo_learn": Layout(
        "vturrisi/solo-learn, of any age", "backbone.", None, "projector.{i}", "predictor.{i}",
        last_bias=True, envelope=True,
    ),
    "lightly": Layout(
        "lightly, around a torchvision network", "backbone.", 4, *_LIGHTLY_HEADS, envelope=True
    ),
    "detectron2": Layout("detectron2"),
    "lightly_small": Layout(
        "lightly, around its own ResNet for small images", "backbone.", 2, *_LIGHTLY_HEADS, envelope=True
    ),
}  # fmt: skip
READ_ONLY = {  # program → title
    "patrickhua": "PatrickHua/SimSiam",
    "moco": "facebookresearch/moco",
    "moco_v3": "facebookresearch/moco-v3",
    "byol": "an implementation of BYOL",
    "dino": "an implementation of DINO",
    "other": "a program that is not known here",
}
STEM_3X3 = {  # programs that have only one 3×3 stem
    "patrickhua": "cifar", "mmselfsup": "cifar", "lightly_small": "cifar", "solo_learn": "cifar_pad2",
}  # fmt: skip

# The network that its authors evaluate: for facebookresearch/dino, timm and DeiT the average; for MoCo,
# MoCo v3, BYOL and solo-learn the one that learns, not its momentum copy.
_PREFERENCE = (
    (re.compile(r"teacher|(?<![^._])ema(?![^._])"), 1),
    (re.compile(r"student|encoder_k|momentum|target|(?<![^._])key"), -1),
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A ResNet found among the names of a checkpoint.

    prefix: prefix of its names, without training wrappers; ends with a dot where it is not empty.
    form: "named", "detectron2", or the place of layer1 in an nn.Sequential.
    names: torchvision's name → the checkpoint's, without training wrappers.
    has_shortcuts: whether it calls its downsampling "shortcut".
    """

    prefix: str
    form: str | int
    names: dict[str, str]
    has_shortcuts: bool

    @property
    def rank(self) -> int:
        """Higher for the network that the authors evaluate, where there are several."""
        return sum(worth for pattern, worth in _PREFERENCE if pattern.search(self.prefix))

    @property
    def attribute(self) -> str:
        """The last part of the prefix, such as "encoder"."""
        return self.prefix.rstrip(".").rpartition(".")[2]


def strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Name → the same without the "module." and "_orig_mod." of data-parallel and compiled training."""
    names = list(names)
    stripped = {name: re.sub(_TRAINING_WRAPPERS, "", name) for name in names}
    return stripped if len(set(stripped.values())) == len(names) else {name: name for name in names}


def find_networks(names: Collection[str]) -> list[Network]:
    """All ResNets among names without wrappers, those with shorter prefixes first."""
    names = dict.fromkeys(names)
    forms: dict[str, str | int] = {}
    for name in names:
        for first, form, block in (
            ("stem.conv1.weight", "detectron2", "res2"),
            ("conv1.weight", "named", "layer1"),
            *(("0.weight", place, str(place)) for place in range(2, 6)),
        ):
            prefix = name.removesuffix(first)
            is_prefix = prefix != name and (not prefix or prefix.endswith("."))
            if is_prefix and f"{prefix}{block}.0.conv1.weight" in names:
                forms.setdefault(prefix, form)
    return [_network(prefix, forms[prefix], names) for prefix in sorted(forms, key=lambda p: (len(p), p))]


def _network(prefix: str, form: str | int, names: Iterable[str]) -> Network:
    by_torchvision: dict[str, str] = {}
    has_shortcuts = False
    for name in names:
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if form == "detectron2":
            rest = _from_detectron2(rest)
        else:
            has_shortcuts |= ".shortcut." in rest
            rest = rest.replace(".shortcut.", ".downsample.")
        if isinstance(form, int):
            place, dot, rest = rest.partition(".")
            stages = {"0": "conv1", "1": "bn1", **{str(form + i): f"layer{i + 1}" for i in range(4)}}
            rest = stages.get(place, "") + dot + rest
        if re.fullmatch(_TORCHVISION, rest):
            by_torchvision.setdefault(rest, name)
    return Network(prefix, form, by_torchvision, has_shortcuts)


def program_of(network: Network, names: Collection[str]) -> str:
    """The program that named a network and its heads: a key of `LAYOUTS` or `READ_ONLY`."""
    last = network.attribute
    parent = network.prefix.removesuffix(f"{last}.") if last else ""

    def has(pattern: str) -> bool:
        return any(re.match(re.escape(parent) + pattern, name) for name in names)

    if network.form == "detectron2":
        return "detectron2"
    if isinstance(network.form, int) and last == "backbone":
        return {4: "lightly", 2: "lightly_small"}.get(network.form, "other")
    if has(r"\w*(projector|predictor)\.layer1\.0\.weight"):
        return "patrickhua"
    if last in ("encoder", "backbone"):
        for pattern, program in (
            (r"projection_head\.", "lightly"),
            (r"neck\.|head\.predictor\.", "mmselfsup"),
            (r"projector\.\d", "solo_learn"),
        ):
            if has(pattern):
                return program
        if last == "encoder" and has(r"encoder\.fc\.\d|predictor\."):
            return "facebookresearch"
    for pattern, program in (("encoder_q", "moco"), ("base_encoder", "moco_v3"), ("online", "byol"),
                             ("teacher|student", "dino")):  # fmt: skip
        if re.search(pattern, network.prefix):
            return program
    is_plain = network.form == "named" and re.fullmatch(r"(state_dict|model)?(_ema)?", last)
    return "torchvision" if is_plain else "other"


def stem_by_names(program: str, network: Network, names: Collection[str]) -> str | None:
    """The stem of a network whose first kernel is 3×3, by the names beside it; None if they do not show it.

    Stride and padding leave no trace in weights. Checkpoints of solo-learn are recognised by its
    classifier, since others also have a "backbone" and a "projector".
    """
    if program == "solo_learn" and not any(re.match(r"(.*\.)?(classifier|momentum_\w+)\.", n) for n in names):
        return None
    return "cifar" if network.has_shortcuts else STEM_3X3.get(program)


def _to_detectron2(name: str) -> str:
    name = name if name.startswith("layer") else f"stem.{name}"
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
    return re.sub(r"bn(\d)", r"conv\1.norm", name)


def _from_detectron2(name: str) -> str:
    name = re.sub(r"conv(\d)\.norm\.", r"bn\1.", name.removeprefix("stem."))
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
