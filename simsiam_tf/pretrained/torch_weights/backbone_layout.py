"""Converts networks from a state_dict and back; infers the architecture from names and shapes."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.nets.variable_paths import variables_by_path
from simsiam_tf.nets.whitening import without_whitening
from simsiam_tf.pretrained import torch_layouts
from simsiam_tf.pretrained.torch_layouts import LAYOUTS, Network
from simsiam_tf.pretrained.torch_weights import head_layout
from simsiam_tf.pretrained.torch_weights.head_layout import BN_NAMES, COUNTER, Arrays
from simsiam_tf.pretrained.torch_weights.torch_files import as_array
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Converted:
    """The networks of a state_dict. Names are without the wrappers of parallel and compiled training.

    heads: "projector" and "predictor", where the state_dict has them.
    program: the program that named them, a key of `LAYOUTS` or `READ_ONLY`.
    prefix: prefix of the backbone's names. other_prefixes: those of networks that were not taken.
    architecture: arguments of `nets.resnet`.
    stem_known: whether the stem is certain: an argument, or clear from the first kernel or the names.
    options: options of `PretrainConfig` that build such heads.
    left_out: names of weights that neither the backbone nor the heads use.
    """

    backbone: keras.Model
    heads: dict[str, keras.Model]
    program: str
    prefix: str
    other_prefixes: tuple[str, ...]
    architecture: dict[str, Any]
    stem_known: bool
    options: dict[str, Any]
    left_out: tuple[str, ...]

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The backbone and the heads by name."""
        return {"backbone": self.backbone, **self.heads}


def torchvision_name(path: str) -> str:
    """torchvision's name of a variable by its path in a `nets.resnet`. Raises UserError for other paths."""
    layer, _, kind = path.rpartition("/")
    array = BN_NAMES.get(kind, "weight")
    if layer.startswith("stem_"):
        return f"{layer.removeprefix('stem_')}1.{array}"
    match = re.fullmatch(r"stage(\d)_block(\d+)_([^/]*)", layer)
    if match is None:
        raise UserError("`weights`: only ResNets of simsiam_tf have a counterpart in PyTorch.")
    stage, block, rest = match.groups()
    rest = {"downsample": "downsample.0", "downsample_bn": "downsample.1"}.get(rest, rest)
    return f"layer{stage}.{int(block) - 1}.{rest}.{array}"


def to_torch(
    backbone: keras.Model, layout: str = "torchvision", heads: Mapping[str, keras.Model] | None = None
) -> dict[str, np.ndarray]:
    """The state_dict of a `nets.resnet`: arrays in torch's order of axes, by the names of a layout.

    A whitening of the features is left out, since those programs' networks have no such layer.
    Arrays are float32; BN's counters are int64 zeros.

    heads: "projector" and "predictor"; left out where the layout has no names for them.

    Raises:
        UserError: the backbone is not a `nets.resnet`.
    """
    names, state = LAYOUTS[layout], {}
    for path, variable in variables_by_path(without_whitening(backbone)).items():
        value = np.asarray(variable.numpy(), np.float32)
        name = names.prefix + names.naming.from_torchvision(torchvision_name(path))
        state[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        if name.endswith(".running_var"):
            state[name.replace("running_var", COUNTER)] = np.array(0, np.int64)
    return {**state, **dict(head_layout.head_arrays(heads or {}, names))}


def from_torch(
    state: Mapping[str, Any],
    layout: str = "auto",
    stem: str = "auto",
    path: str = "",
    prefix: str | None = None,
) -> Converted:
    """A backbone, and heads where there are any, with the weights of a state_dict.

    Args:
        state: name → array or tensor.
        layout: a key of `LAYOUTS`; "auto" decides by the names.
        stem: one of `nets.STEMS`. "auto" decides by the first kernel: "imagenet" for 7×7; for 3×3 by the
            program, "cifar_pad2" for solo-learn and "cifar" for others.
        path: the file, for messages.
        prefix: prefix of the network to take, where there are several; chosen by the names when None.

    Raises:
        UserError: there is no network, or several and the choice is not clear; an unknown ResNet; a stem
            that cannot be inferred; or weights that are missing, unknown or of another shape.
    """
    arrays = {name: as_array(name, value, path) for name, value in state.items()}
    stripped = {torch_layouts.strip_wrappers(name): array for name, array in arrays.items()}
    arrays = stripped if len(stripped) == len(arrays) else arrays
    networks = torch_layouts.find_networks(arrays)
    network = _choose(networks, prefix, layout, arrays, path)
    program = torch_layouts.program_of(network, arrays) if layout == "auto" else layout
    backbone_arrays = {torchvision: arrays[name] for torchvision, name in network.names.items()}
    architecture, stem_known = architecture_of(backbone_arrays, path), True
    if stem == "auto":
        stem, stem_known = _stem(backbone_arrays["conv1.weight"], layout, program, network, arrays, path)
    architecture["stem"] = stem
    backbone = nets.resnet(**architecture)
    variables = {torchvision_name(place): v for place, v in variables_by_path(backbone).items()}
    values = {n: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for n, a in backbone_arrays.items()}
    assign_by_name(variables, values, "a ResNet of this package", path)
    network_names = {name for other in networks for name in other.names.values()}
    rest = {name: array for name, array in arrays.items() if name not in network_names}
    heads, options, used = head_layout.read_heads(rest, network, backbone.output_shape[-1])
    used |= set(network.names.values())
    left_out = tuple(name for name in arrays if name not in used and not name.endswith(COUNTER))
    others = tuple(other.prefix for other in networks if other is not network)
    return Converted(
        backbone, heads, program, network.prefix, others, architecture, stem_known, options, left_out
    )


def _choose(networks: list[Network], prefix: str | None, layout: str, arrays: Arrays, path: str) -> Network:
    """Chooses the network to convert among all in a checkpoint."""
    if not networks:
        raise UserError(
            f"weights={path}: its names fit none of {', '.join(LAYOUTS)}, under any prefix: there is no "
            f"conv1.weight beside a layer1.0.conv1.weight. They are like {_first_names(arrays)}; in all "
            f"{group_names(arrays)}."
        )

    def listed(networks: list[Network]) -> str:
        return printable_text(", ".join(network.prefix.rstrip(".") or "''" for network in networks))

    candidates = [n for n in networks if layout == "auto" or LAYOUTS[layout].fits(n)]
    if prefix is not None:
        asked = torch_layouts.strip_wrappers(prefix.strip(".") + ".").lstrip(".")
        within = [n for n in candidates if asked and f".{asked}" in f".{n.prefix}"]
        candidates = [n for n in candidates if n.prefix == asked] or within
    if not candidates or (prefix is not None and len(candidates) > 1):
        option = f"layout={layout}" if prefix is None else f"prefix={prefix}"
        problem = "fits several networks" if candidates else "fits no network"
        raise UserError(f"{option}: {problem} of {path}. There are {listed(networks)}.")
    best = max(n.rank for n in candidates)
    candidates = [n for n in candidates if n.rank == best]

    def content(network: Network) -> dict[str, bytes]:
        return {name: arrays[stored].tobytes() for name, stored in network.names.items()}

    if any(content(n) != content(candidates[0]) for n in candidates[1:]):  # one network may have two names
        raise UserError(
            f"weights={path}: holds several networks, and their names do not tell which is meant: "
            f"{listed(candidates)}. Pass one of them as `prefix`."
        )
    return candidates[0]


def architecture_of(arrays: Arrays, path: str) -> dict[str, Any]:
    """Arguments of `nets.resnet`, by torchvision's names and shapes; always with the stem "imagenet"."""
    if arrays["conv1.weight"].ndim != 4:
        raise UserError(f"weights={path}: its conv1.weight is not the kernel of a convolution.")
    width, channels, _, _ = arrays["conv1.weight"].shape
    stages = {tuple(name.split(".")[:2]) for name in arrays}
    counts = tuple(sum(stage == f"layer{i}" for stage, _ in stages) for i in range(1, 5))
    block = "basic"
    if "layer1.0.conv3.weight" in arrays:
        block = "bottleneck" if arrays["layer1.0.conv1.weight"].shape[0] == width else "wide"
    for name, plan in nets.RESNETS.items():
        if plan == (block, counts):
            return {"name": name, "stem": "imagenet", "width": width / 64, "channels": channels}
    known = ", ".join(nets.RESNETS)
    raise UserError(f"weights={path}: {block} blocks {counts} are not a network of this package: {known}.")


def _stem(
    kernel: np.ndarray, layout: str, program: str, network: Network, names: Iterable[str], path: str
) -> tuple[str, bool]:
    """(the stem, whether it is known) by the first kernel and the names."""
    if kernel.shape[-1] != 3:
        return "imagenet", True
    stem = torch_layouts.STEM_3X3.get(layout) or torch_layouts.stem_by_names(program, network, names)
    last = network.attribute
    if stem is None and last in ("backbone", "encoder") and program in ("solo_learn", "other"):
        raise UserError(
            f"weights={path}: its first kernel is 3×3, whose stride and padding leave no trace in "
            f"weights, and several programs call a network {last}. Pass stem=cifar (stride 1, padding 1), "
            "stem=cifar_pad2 (padding 2: solo-learn) or stem=small (stride 2)."
        )
    return stem or "cifar", stem is not None


def assign_by_name(variables: Mapping[str, Any], values: Arrays, network: str, path: str) -> None:
    """Assigns arrays to variables, both by PyTorch's names; BN's counters are ignored.

    network: words for the message, as in "is not a ResNet of this package". path: the file, for it, too.

    Raises:
        UserError: arrays are missing, unknown or of another shape.
    """
    problems = {
        "missing": [n for n in variables if n not in values],
        "unknown": [n for n in values if n not in variables and not n.endswith(COUNTER)],
        "of another shape": [n for n, v in variables.items() if n in values and v.shape != values[n].shape],
    }
    if any(problems.values()):
        listed = (f"{len(n)} {problem} ({_first_names(n)})" for problem, n in problems.items() if n)
        raise UserError(f"weights={path}: is not {network}: weights {'; '.join(listed)}.")
    for name, variable in variables.items():
        variable.assign(values[name])


def group_names(names: Iterable[str]) -> str:
    """Hundreds of names in short: grouped by their parts before the first number, or by all but the last."""
    heads = (re.match(r"((?:[^.]+\.)*?)(?:\d+\.|[^.]*$)", name) for name in names)
    counts = Counter(match[1] if match else "" for match in heads)
    listed = [f"{printable_text(head)}* ({n})" for head, n in counts.most_common(12)]
    return ", ".join(listed) + (f", and {len(counts) - 12} more" if len(counts) > 12 else "")


def _first_names(names: Iterable[str]) -> str:
    listed = [printable_text(name) for name in sorted(names)[:4]]
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
