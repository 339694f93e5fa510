"""Where ResNets lie among the names of a checkpoint, whose names those are, and how they are written.

Torchvision's names ("layer1.0.conv1.weight") stand between a program's names and ours.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable

_TORCHVISION = r"(?:conv1|bn1|layer[1-4])\..*"
_STRIPPED = r"(?<![^.])(?:module|_orig_mod)\."  # of data-parallel and of compiled training


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a program names weights.

    prefix: of the network's names. first: place of layer1 where the network is an nn.Sequential.
    projector, predictor: names of a head's modules by {i}, their place in an nn.Sequential, or by {kind}
        (fc or bn) and {j}, counted apart; empty where the program has no heads.
    last_bias: whether the projector's last fc has a bias although BN follows it.
    envelope: whether the program's files hold the weights under "state_dict".
    """

    about: str
    prefix: str = ""
    first: int | None = None
    projector: str = ""
    predictor: str = ""
    last_bias: bool = False
    envelope: bool = False

    def theirs(self, name: str) -> str:
        """The program's name for a weight of the backbone that torchvision calls so."""
        if self.about == "detectron2":
            return _to_detectron2(name)
        if self.first is not None:
            stage, _, rest = name.partition(".")
            place = {"conv1": 0, "bn1": 1}.get(stage, self.first - 1 + int(stage[-1]))
            name = f"{place}.{rest.replace('downsample', 'shortcut') if self.first == 2 else rest}"
        return self.prefix + name


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
        "lightly, around a torchvision network", "backbone.", 4,
        "projection_head.layers.{i}", "prediction_head.layers.{i}", envelope=True,
    ),
    "detectron2": Layout("detectron2"),
    "lightly_small": Layout(
        "lightly, around its own ResNet for small images", "backbone.", 2,
        "projection_head.layers.{i}", "prediction_head.layers.{i}", envelope=True,
    ),
}  # fmt: skip
OTHERS = {  # programs whose names are read only
    "patrickhua": "PatrickHua/SimSiam",
    "moco": "facebookresearch/moco",
    "moco_v3": "facebookresearch/moco-v3",
    "byol": "an implementation of BYOL",
    "dino": "an implementation of DINO",
    "other": "a program that is not known here",
}
STEMS_OF = {  # the 3×3 stem of programs that have only one
    "patrickhua": "cifar", "mmselfsup": "cifar", "lightly_small": "cifar", "solo_learn": "cifar_pad2",
}  # fmt: skip

# Of several networks the one that its authors evaluate: facebookresearch/dino, timm and DeiT the average;
# MoCo, MoCo v3, BYOL and solo-learn the one that learns, not the one that follows it.
_EVALUATED = (
    (re.compile(r"teacher|(?<![^._])ema(?![^._])"), 1),
    (re.compile(r"student|encoder_k|momentum|target|(?<![^._])key"), -1),
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A ResNet among names.

    prefix: of its names, as `bare` gives them; ends with a dot where it is not empty.
    form: "named", "detectron2", or the place of layer1 in an nn.Sequential.
    names: torchvision's name → the bare name.
    shortcut: whether it calls its downsampling so.
    """

    prefix: str
    form: str | int
    names: dict[str, str]
    shortcut: bool

    @property
    def rank(self) -> int:
        """Higher for the network that is evaluated of several."""
        return sum(worth for pattern, worth in _EVALUATED if pattern.search(self.prefix))


def bare(names: Iterable[str]) -> dict[str, str]:
    """Name → the same without the "module." and "_orig_mod." of data-parallel and compiled training."""
    names = list(names)
    stripped = {name: re.sub(_STRIPPED, "", name) for name in names}
    return stripped if len(set(stripped.values())) == len(names) else {name: name for name in names}


def networks(names: Collection[str]) -> list[Network]:
    """All ResNets among names (as `bare` gives them), those with shorter prefixes first."""
    names = dict.fromkeys(names)
    places: dict[str, str | int] = {}
    for name in names:
        for first, form, block in (
            ("stem.conv1.weight", "detectron2", "res2"),
            ("conv1.weight", "named", "layer1"),
            *(("0.weight", place, str(place)) for place in range(2, 6)),
        ):
            prefix = name.removesuffix(first)
            begins = prefix != name and (not prefix or prefix.endswith("."))
            if begins and f"{prefix}{block}.0.conv1.weight" in names:
                places.setdefault(prefix, form)
    return [_network(prefix, places[prefix], names) for prefix in sorted(places, key=lambda p: (len(p), p))]


def _network(prefix: str, form: str | int, names: Iterable[str]) -> Network:
    found: dict[str, str] = {}
    shortcut = False
    for name in names:
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if form == "detectron2":
            rest = _from_detectron2(rest)
        else:
            shortcut |= ".shortcut." in rest
            rest = rest.replace(".shortcut.", ".downsample.")
        if isinstance(form, int):
            place, dot, rest = rest.partition(".")
            stages = {"0": "conv1", "1": "bn1", **{str(form + i): f"layer{i + 1}" for i in range(4)}}
            rest = stages.get(place, "") + dot + rest
        if re.fullmatch(_TORCHVISION, rest):
            found.setdefault(rest, name)
    return Network(prefix, form, found, shortcut)


def program(network: Network, names: Collection[str]) -> str:
    """Whose names those around a network are: a key of `LAYOUTS` or `OTHERS`."""
    last = network.prefix.rstrip(".").rpartition(".")[2]
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
        if has(r"projection_head\."):
            return "lightly"
        if has(r"neck\.|head\.predictor\."):
            return "mmselfsup"
        if has(r"projector\.\d"):
            return "solo_learn"
        if last == "encoder" and has(r"encoder\.fc\.\d|predictor\."):
            return "facebookresearch"
    for pattern, name in (("encoder_q", "moco"), ("base_encoder", "moco_v3"), ("online", "byol"),
                          ("teacher|student", "dino")):  # fmt: skip
        if re.search(pattern, network.prefix):
            return name
    known = network.form == "named" and re.fullmatch(r"(state_dict|model)?(_ema)?", last)
    return "torchvision" if known else "other"


def detect(names: Collection[str]) -> str | None:
    """Whose names (as `bare` gives them) those of a checkpoint are; None where no ResNet is among them."""
    found = networks(names)
    return program(max(found, key=lambda network: network.rank), names) if found else None


def stem_of(whose: str, network: Network, names: Collection[str]) -> str | None:
    """The stem that a first kernel of 3×3 has by the names around it; None where they do not tell.

    Stride and padding leave no trace in weights. solo-learn's own classifier tells its checkpoints from
    others with a "backbone" and a "projector".
    """
    if whose == "solo_learn" and not any(re.match(r"(.*\.)?(classifier|momentum_\w+)\.", n) for n in names):
        return None
    return "cifar" if network.shortcut else STEMS_OF.get(whose)


def _to_detectron2(name: str) -> str:
    name = name if name.startswith("layer") else f"stem.{name}"
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
    return re.sub(r"bn(\d)", r"conv\1.norm", name)


def _from_detectron2(name: str) -> str:
    name = re.sub(r"conv(\d)\.norm\.", r"bn\1.", name.removeprefix("stem."))
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
