"""Converts networks from a state_dict and back; reads the architecture from shapes, lists unused weights."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.pretrained.torch_weights import head_layout
from simsiam_tf.pretrained.torch_weights.head_layout import BN_NAMES, COUNTER
from simsiam_tf.pretrained.torch_weights.key_names import (
    LAYOUTS,
    STEM_3X3,
    Network,
    find_networks,
    program_of,
    stem_by_names,
    strip_wrappers,
)
from simsiam_tf.pretrained.torch_weights.torch_files import as_array
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Converted:
    """The networks of a state_dict.

    program: the program that named them, a key of `LAYOUTS` or `READ_ONLY`.
    prefix: prefix of the backbone's names. other_prefixes: those of networks that were not taken.
    architecture: arguments of `nets.resnet`.
    stem_known: whether the stem was given, or follows from the kernel or the names.
    heads: "projector" and "predictor", where the state_dict has them.
    options: options of pre-training that make such heads.
    left_out: names of weights that no network uses.
    """

    backbone: keras.Model
    program: str
    prefix: str
    other_prefixes: tuple[str, ...]
    architecture: dict[str, Any]
    stem_known: bool
    heads: dict[str, keras.Model]
    options: dict[str, Any]
    left_out: tuple[str, ...]

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The backbone and the heads by name."""
        return {"backbone": self.backbone, **self.heads}


def torchvision_name(variable: Any) -> str:
    """torchvision's name for a variable of one of our ResNets.

    Raises:
        UserError: the variable is of another network.
    """
    layer, kind = ["", *variable.path.split("/")][-2:]
    array = BN_NAMES.get(kind, "weight")
    if layer.startswith("stem_"):
        return f"{layer.removeprefix('stem_')}1.{array}"
    match = re.fullmatch(r"stage(\d)_block(\d+)_(.*)", layer)
    if match is None:
        raise UserError("`weights`: only ResNets of simsiam_tf have a counterpart in PyTorch.")
    stage, block, rest = match.groups()
    rest = {"downsample": "downsample.0", "downsample_bn": "downsample.1"}.get(rest, rest)
    return f"layer{stage}.{int(block) - 1}.{rest}.{array}"


def to_torch(
    backbone: keras.Model, layout: str = "torchvision", heads: Mapping[str, keras.Model] | None = None
) -> dict[str, np.ndarray]:
    """The state_dict of one of our ResNets: float32 arrays in torch's order, by the names of a layout.

    heads: "projector" and "predictor", for a layout that has names for them.

    Raises:
        UserError: the network is not one of `nets.RESNETS`.
    """
    names, state = LAYOUTS[layout], {}
    for variable in backbone.weights:
        value = np.asarray(variable.numpy(), np.float32)
        name = names.from_torchvision(torchvision_name(variable))
        state[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        if name.endswith(".running_var"):
            state[name.replace("running_var", COUNTER)] = np.array(0, np.int64)
    return {**state, **dict(head_layout.head_arrays(heads or {}, names))}


def from_torch(
    state: Mapping[str, Any],
    layout: str = "auto",
    stem: str = "auto",
    where: str = "",
    prefix: str | None = None,
) -> Converted:
    """A backbone, and heads where there are any, with the weights of a state_dict.

    Args:
        state: name → array or tensor.
        layout: a key of `LAYOUTS`; "auto" decides by the names.
        stem: one of `nets.STEMS`; when "auto" by the first kernel, 7×7 "imagenet", and for 3×3 by the
            program: solo-learn's is "cifar_pad2", others' "cifar".
        where: the file, for messages.
        prefix: prefix of the network to take, where there are several; by the names when None.

    Raises:
        UserError: no network or several alike, an unknown ResNet, a stem that cannot be inferred, or
            weights that are missing, unknown or of another shape; the message names them.
    """
    stripped = strip_wrappers(state)
    original = {name: key for key, name in stripped.items()}
    networks = find_networks(list(original))
    network = _choose(networks, prefix, layout, {name: state[key] for name, key in original.items()}, where)
    program = program_of(network, list(original)) if layout == "auto" else layout
    arrays = {k: as_array(original[n], state[original[n]], where) for k, n in network.names.items()}
    architecture = architecture_of(arrays, where)
    by_names = STEM_3X3.get(layout) or stem_by_names(program, network, list(original))
    architecture["stem"], stem_known = _stem(stem, arrays["conv1.weight"], by_names, program, network, where)
    backbone = nets.resnet(**architecture)
    _assign(backbone, arrays, where)
    others = [other for other in networks if other is not network]
    unused = set(original) - set(network.names.values())
    of_others = {name for other in others for name in other.names.values()}
    candidates = {n: as_array(original[n], state[original[n]], where) for n in original
                  if n in unused and n not in of_others}  # fmt: skip
    heads, options, used = head_layout.read_heads(candidates, network, backbone.output_shape[-1])
    left_out = tuple(k for k, n in stripped.items() if n in unused - used and not n.endswith(COUNTER))
    return Converted(
        backbone, program, network.prefix, tuple(other.prefix for other in others), architecture, stem_known,
        heads, options, left_out,
    )  # fmt: skip


def _choose(networks: list[Network], prefix: str | None, layout: str, state: Arrays, where: str) -> Network:
    """Chooses the network to convert among all in a checkpoint."""
    if not networks:
        raise UserError(
            f"weights={where}: its names fit none of {', '.join(LAYOUTS)}, under any prefix: there is no "
            f"conv1.weight beside a layer1.0.conv1.weight. They are like {_first_names(state)}; in all "
            f"{group_names(state)}."
        )
    listed = printable_text(", ".join(repr(network.prefix.rstrip(".")) for network in networks))
    if layout != "auto":
        wanted = LAYOUTS[layout]
        (ending,) = strip_wrappers([wanted.prefix]).values()
        form = "detectron2" if layout == "detectron2" else wanted.layer1_place or "named"
        networks = [n for n in networks if n.prefix.endswith(ending) and n.form == form]
        if not networks:
            raise UserError(
                f"weights={where}: has no network by the names of layout={layout}; there is one under "
                f"{listed}. Leave `layout` out."
            )
    if prefix is not None:
        (inside,) = strip_wrappers([prefix.rstrip(".") + "."]).values()
        inside = inside.lstrip(".")
        within = [n for n in networks if inside and f".{inside}" in f".{n.prefix}"]
        networks = [n for n in networks if n.prefix == inside] or within
        if len(networks) != 1:
            raise UserError(
                f"prefix={prefix}: {'several networks lie' if networks else 'no network lies'} there. Choose "
                f"from {listed}."
            )
    first, *rest = [n for n in networks if n.rank == max(n.rank for n in networks)]
    if any(not _have_equal_weights(first, other, state) for other in rest):
        alike = ", ".join(n.prefix.rstrip(".") or "''" for n in (first, *rest))
        raise UserError(
            f"weights={where}: holds several networks, and their names do not tell which is meant: "
            f"{printable_text(alike)}. Pass one of them as `prefix`."
        )
    return first


def _have_equal_weights(a: Network, b: Network, state: Arrays) -> bool:
    """Whether two networks are the same, as where a checkpoint stores one under two names."""
    return a.names.keys() == b.names.keys() and all(
        np.array_equal(state[a.names[k]], state[b.names[k]]) for k in a.names
    )


def architecture_of(arrays: Arrays, where: str) -> dict[str, Any]:
    """Arguments of `nets.resnet`, from torchvision's names and shapes; these do not show the stem."""
    if arrays["conv1.weight"].ndim != 4:
        raise UserError(
            f"weights={where}: has no first convolution; its names are like {_first_names(arrays)}."
        )
    width, channels, _, _ = arrays["conv1.weight"].shape
    stages = {tuple(name.split(".")[:2]) for name in arrays}
    counts = tuple(sum(stage == f"layer{i}" for stage, _ in stages) for i in range(1, 5))
    block = "bottleneck" if "layer1.0.conv3.weight" in arrays else "basic"
    name = next((n for n, plan in nets.RESNETS.items() if plan == (block, counts)), None)
    if name is None:
        raise UserError(
            f"weights={where}: {block} blocks {counts} are no network here; there are "
            f"{', '.join(nets.RESNETS)}."
        )
    return {"name": name, "stem": "imagenet", "width": width / 64, "channels": channels}


def _stem(
    stem: str, kernel: np.ndarray, by_names: str | None, program: str, network: Network, where: str
) -> tuple[str, bool]:
    """(the stem, whether it is known): as given, by the first kernel, or by the names."""
    if stem != "auto":
        return stem, True
    if kernel.shape[-1] != 3:
        return "imagenet", True
    last = network.attribute
    if by_names is None and last in ("backbone", "encoder") and program in ("solo_learn", "other"):
        raise UserError(
            f"weights={where}: its first kernel is 3×3, whose stride and padding leave no trace in "
            f"weights, and several programs call a network {last}. Pass stem=cifar (stride 1, padding 1), "
            "stem=cifar_pad2 (padding 2: solo-learn) or stem=small (stride 2)."
        )
    return by_names or "cifar", by_names is not None


def _assign(backbone: keras.Model, arrays: Arrays, where: str) -> None:
    ours = {torchvision_name(v): v for v in backbone.weights}
    values = {n: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for n, a in arrays.items()}
    problems = {
        "missing": [n for n in ours if n not in values],
        "unknown": [n for n in values if n not in ours and not n.endswith(COUNTER)],
        "of another shape": [n for n, v in ours.items() if n in values and tuple(v.shape) != values[n].shape],
    }
    if any(problems.values()):
        listed = (f"{len(n)} {problem} ({_first_names(n)})" for problem, n in problems.items() if n)
        raise UserError(f"weights={where}: is no {backbone.name} of ours: weights {'; '.join(listed)}.")
    for name, variable in ours.items():
        variable.assign(values[name])


def group_names(names: Iterable[str]) -> str:
    """Names grouped by what precedes their first number or last part, so that hundreds can be read."""
    stripped = (strip_wrappers([name])[name] for name in names)
    heads = (re.match(r"((?:[^.]+\.)*?)(?:\d+\.|[^.]*$)", name) for name in stripped)
    counts = Counter(match[1] if match else "" for match in heads)
    listed = [f"{printable_text(head)}* ({n})" for head, n in counts.most_common(12)]
    return ", ".join(listed) + (f", and {len(counts) - 12} more" if len(counts) > 12 else "")


def _first_names(names: Iterable[str]) -> str:
    listed = [printable_text(name) for name in sorted(names)[:4]]
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
