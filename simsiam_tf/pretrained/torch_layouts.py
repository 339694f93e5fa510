"""The names that programs for PyTorch give to the weights of ResNets and heads; finds ResNets by them.

The names of every program are mapped to torchvision's ("layer1.0.conv1.weight"). Imports no Keras.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin")
WRITABLE_SUFFIXES = (".safetensors", ".pth", ".pt")
_FIRST_WORDS = ("bn1", "conv1", "layer1", "layer2", "layer3", "layer4")


@dataclasses.dataclass(frozen=True)
class Naming:
    """A program's words in the names of a ResNet's weights.

    first_words: how names begin, for each of torchvision's `_FIRST_WORDS`.
    block_words: pairs of torchvision's word and the program's within blocks; longer words come first.
    """

    first_words: tuple[str, ...]
    block_words: tuple[tuple[str, str], ...] = ()

    def from_torchvision(self, name: str) -> str:
        """The program's name for a weight, given torchvision's."""
        first, dot, rest = name.partition(".")
        rest = dot + rest
        for torchvision, word in self.block_words:
            rest = rest.replace(f".{torchvision}.", f".{word}.")
        return self.first_words[_FIRST_WORDS.index(first)] + rest

    def to_torchvision(self, name: str) -> str | None:
        """torchvision's name for a weight, given the program's; None for a weight outside the backbone."""
        for first, word in zip(_FIRST_WORDS, self.first_words, strict=True):
            if name.startswith(f"{word}."):
                rest = name.removeprefix(word)
                for torchvision, other in (*self.block_words, ("downsample", "shortcut")):
                    rest = rest.replace(f".{other}.", f".{torchvision}.")
                return first + rest
        return None


def _sequential(layer1: int, *block_words: tuple[str, str]) -> Naming:
    """Names in an nn.Sequential whose first stage has the index `layer1`."""
    return Naming(("1", "0", *(str(layer1 + i) for i in range(4))), block_words)


TORCHVISION = Naming(_FIRST_WORDS)
_DETECTRON2 = Naming(
    ("stem.conv1.norm", "stem.conv1", "res2", "res3", "res4", "res5"),
    (("downsample.1", "shortcut.norm"), ("downsample.0", "shortcut"),
     ("bn1", "conv1.norm"), ("bn2", "conv2.norm"), ("bn3", "conv3.norm")),
)  # fmt: skip
_LIGHTLY_SMALL = _sequential(2, ("downsample", "shortcut"))
_NAMINGS = (_DETECTRON2, TORCHVISION, _LIGHTLY_SMALL, *map(_sequential, (3, 4, 5)))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a program names the weights of a model.

    title: name of the program, for messages. naming: its names for the backbone's weights.
    prefix: what precedes these names.
    projector, predictor: template of the names of a head's modules, with {i}, the index in an
        nn.Sequential, or {kind} (fc or bn) and {j}, the index among its kind; empty where there are no heads.
    last_bias: whether the projector's last fc has a bias although BN follows it.
    """

    title: str
    naming: Naming = TORCHVISION
    prefix: str = ""
    projector: str = ""
    predictor: str = ""
    last_bias: bool = False

    def fits(self, network: Network) -> bool:
        """Whether a network's names could be the program's."""
        return network.naming == self.naming and network.prefix.endswith(strip_wrappers(self.prefix))


_LIGHTLY_HEADS = ("projection_head.layers.{i}", "prediction_head.layers.{i}")
LAYOUTS = {
    "torchvision": Layout("torchvision and timm"),
    "facebookresearch": Layout(
        "facebookresearch/simsiam, whose projector is the encoder's fc", TORCHVISION, "module.encoder.",
        "module.encoder.fc.{i}", "module.predictor.{i}", last_bias=True,
    ),
    "mmselfsup": Layout(
        "open-mmlab/mmselfsup", TORCHVISION, "backbone.", "neck.{kind}{j}", "head.predictor.{kind}{j}"
    ),
    "solo_learn": Layout(
        "vturrisi/solo-learn, any version", TORCHVISION, "backbone.", "projector.{i}", "predictor.{i}", True
    ),
    "lightly": Layout(
        "lightly, around a torchvision network", _sequential(4), "backbone.", *_LIGHTLY_HEADS
    ),
    "detectron2": Layout("detectron2", _DETECTRON2),
    "lightly_small": Layout(
        "lightly, around its own ResNet for small images", _LIGHTLY_SMALL, "backbone.", *_LIGHTLY_HEADS
    ),
}  # fmt: skip
READ_ONLY = {  # programs whose checkpoints are only read → (title, pattern in one of their names)
    "patrickhua": ("PatrickHua/SimSiam", r"(projector|predictor)\.layer1\.0\.weight"),
    "moco": ("facebookresearch/moco", "encoder_q"),
    "moco_v3": ("facebookresearch/moco-v3", "base_encoder"),
    "byol": ("an implementation of BYOL", "online"),
    "dino": ("an implementation of DINO", "teacher|student"),
    "other": ("a program that is not known here", ""),
}
STEM_3X3 = {  # program → its stem, for programs whose 3×3 stem is always the same
    "patrickhua": "cifar", "mmselfsup": "cifar", "lightly_small": "cifar", "solo_learn": "cifar_pad2",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
    """A ResNet found among the names of a checkpoint.

    prefix: prefix of its names; ends with a dot where it is not empty. naming: how its program names weights.
    names: torchvision's name → the checkpoint's.
    """

    prefix: str
    naming: Naming
    names: Mapping[str, str]

    @property
    def rank(self) -> int:
        """The order among the networks of a checkpoint: the one that its authors evaluate ranks highest.

        For facebookresearch/dino, timm and DeiT that is the moving average; for MoCo, MoCo v3, BYOL and
        solo-learn it is the network that learns, not its momentum copy.
        """
        is_average = re.search(r"teacher|(?<![^._])ema(?![^._])", self.prefix)
        is_copy = re.search(r"student|encoder_k|momentum|target|(?<![^._])key", self.prefix)
        return bool(is_average) - bool(is_copy)

    @property
    def attribute(self) -> str:
        """The last part of the prefix, such as "encoder"."""
        return self.prefix.rstrip(".").rpartition(".")[2]


def strip_wrappers(name: str) -> str:
    """A name without the "module." and "_orig_mod." of data-parallel and compiled training."""
    return re.sub(r"(?<![^.])(?:module|_orig_mod)\.", "", name)


def find_networks(names: Collection[str]) -> list[Network]:
    """All ResNets among names without wrappers, those with shorter prefixes first."""
    names = dict.fromkeys(names)
    namings: dict[str, Naming] = {}
    for naming in _NAMINGS:
        first, block = map(naming.from_torchvision, ("conv1.weight", "layer1.0.conv1.weight"))
        for name in names:
            prefix = name.removesuffix(first)
            if f".{name}".endswith(f".{first}") and prefix + block in names:
                namings.setdefault(prefix, naming)
    networks = []
    for prefix in sorted(namings, key=lambda p: (len(p), p)):
        naming, inner = namings[prefix], [name for name in names if name.startswith(prefix)]
        by_torchvision = {naming.to_torchvision(name.removeprefix(prefix)): name for name in inner}
        networks.append(Network(prefix, naming, {k: v for k, v in by_torchvision.items() if k}))
    return networks


def program_of(network: Network, names: Collection[str]) -> str:
    """The program that named a network and its heads: a key of `LAYOUTS` or `READ_ONLY`."""
    parent = network.prefix.removesuffix(f"{network.attribute}.")
    beside = [name for name in names if name.startswith(parent)]
    is_plain, in_model = network.naming == TORCHVISION, network.attribute in ("backbone", "encoder")
    for program, layout in LAYOUTS.items():
        if layout.naming != TORCHVISION and layout.fits(network):
            return program
        head = strip_wrappers(layout.projector).format(i=r"\d", kind="(fc|bn)", j=r"\d")
        has_head = head and any(re.match(head, name.removeprefix(parent)) for name in beside)
        if has_head and is_plain and in_model:
            return program
    if is_plain and re.fullmatch(r"(state_dict|model)?(_ema)?", network.attribute):
        return "torchvision"
    return next(
        program for program, (_, sign) in READ_ONLY.items() if any(re.search(sign, name) for name in beside)
    )


def stem_by_names(program: str, network: Network, names: Iterable[str]) -> str | None:
    """The stem of a network whose first kernel is 3×3, by the names; None if they do not show it.

    Stride and padding leave no trace in weights. Checkpoints of solo-learn are recognised by their
    classifier or momentum networks, since other programs also have a "backbone" and a "projector".

    names: all names of the checkpoint.
    """
    if any(".shortcut." in name for name in network.names.values()):
        return "cifar"
    if program == "solo_learn" and not any(re.match(r"(.*\.)?(classifier|momentum_\w+)\.", n) for n in names):
        return None
    return STEM_3X3.get(program)
