"""Networks from a state_dict and back: architecture by shapes, nothing left out in silence."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.pretrained.torch_weights import head_layout
from simsiam_tf.pretrained.torch_weights.key_names import (
    LAYOUTS,
    STEMS_OF,
    Network,
    bare,
    networks,
    program,
    stem_of,
)
from simsiam_tf.pretrained.torch_weights.torch_files import as_array
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

_OF_BN = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_COUNTER = "num_batches_tracked"  # of torch's BN; nothing depends on it at a fixed momentum


@dataclasses.dataclass(frozen=True)
class Converted:
    """A backbone of a state_dict, and the heads around it.

    layout: whose names they are, a key of `LAYOUTS` or `layouts.OTHERS`.
    prefix: of the backbone's names; others: of the networks that were not taken.
    architecture: arguments of `nets.resnet`.
    stem_known: whether the kernel or the names tell the stem, or it was given.
    heads: "projector" and "predictor", where they are there and flags make such ones: `flags`.
    left_out: names that are no part of these.
    """

    backbone: keras.Model
    layout: str
    prefix: str
    others: tuple[str, ...]
    architecture: dict[str, object]
    stem_known: bool
    heads: dict[str, keras.Model]
    flags: dict[str, object]
    left_out: tuple[str, ...]

    @property
    def d(self) -> int | None:
        """Width of the projector's output; None without one."""
        return self.flags.get("d")

    @property
    def parts(self) -> dict[str, keras.Model]:
        """The backbone and the heads by name."""
        return {"backbone": self.backbone, **self.heads}


def torch_name(variable: keras.Variable) -> str:
    """torchvision's name for a variable of one of our ResNets."""
    layer, _, kind = variable.path.rpartition("/")
    layer = layer.rpartition("/")[2]
    part = _OF_BN.get(kind, "weight")
    if layer.startswith("stem_"):
        return f"{layer.removeprefix('stem_')}1.{part}"
    stage, block, rest = re.fullmatch(r"stage(\d)_block(\d+)_(.*)", layer).groups()
    rest = {"downsample": "downsample.0", "downsample_bn": "downsample.1"}.get(rest, rest)
    return f"layer{stage}.{int(block) - 1}.{rest}.{part}"


def to_torch(
    backbone: keras.Model, layout: str = "torchvision", parts: Mapping[str, keras.Model] | None = None
) -> dict[str, np.ndarray]:
    """The state_dict of one of our ResNets: float32 arrays in torch's order, by the names of a layout.

    parts: heads by name, "projector" and "predictor", for a layout that has them.

    Raises:
        UserError: the network is none of `nets.RESNETS`.
    """
    names, state = LAYOUTS[layout], {}
    try:
        for variable in backbone.weights:
            value = np.asarray(variable.numpy(), np.float32)
            name = names.theirs(torch_name(variable))
            state[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
            if name.endswith(".running_var"):
                state[name.replace("running_var", _COUNTER)] = np.array(0, np.int64)
    except AttributeError as error:
        raise UserError("`weights`: only ResNets of simsiam_tf have a counterpart in PyTorch.") from error
    return {**state, **dict(head_layout.write(parts or {}, names))}


def from_torch(
    state: Mapping[str, np.ndarray],
    layout: str = "auto",
    stem: str = "auto",
    where: str = "",
    prefix: str | None = None,
) -> Converted:
    """Our backbone, and heads where they are there, with the weights of a state_dict.

    Args:
        state: name → array or tensor.
        layout: a key of `LAYOUTS`; by the names when "auto".
        stem: one of `nets.STEMS`; when "auto" by the first kernel, 7×7 "imagenet", and for 3×3 by whose
            names they are: "cifar_pad2" of solo-learn, else "cifar".
        where: the file, for messages.
        prefix: of the network that is taken of several; by the names when None.

    Raises:
        UserError: no network or several that are alike, no ResNet of ours, a stem that nothing tells, or
            weights that are missing, too many or of another shape, by name.
    """
    names = bare(state)
    back = {plain: name for name, plain in names.items()}
    found = networks(list(back))
    network = _chosen(found, prefix, layout, {plain: state[name] for plain, name in back.items()}, where)
    whose = program(network, list(back)) if layout == "auto" else layout
    arrays = {k: as_array(back[n], state[back[n]], where) for k, n in network.names.items()}
    architecture = _architecture(arrays, where)
    by_name = STEMS_OF.get(layout) or stem_of(whose, network, list(back))
    architecture["stem"], known = _stem(stem, arrays["conv1.weight"], by_name, whose, network, where)
    backbone = nets.resnet(**architecture)
    _assign(backbone, arrays, where)
    rest = set(back) - set(network.names.values())
    others = [other for other in found if other is not network]
    candidates = {n: as_array(back[n], state[back[n]], where) for n in back
                  if n in rest and not any(n in other.names.values() for other in others)}  # fmt: skip
    made, flags, used = head_layout.read(candidates, network, backbone.output_shape[-1])
    left_out = tuple(n for n, plain in names.items() if plain in rest - used and not n.endswith(_COUNTER))
    return Converted(
        backbone, whose, network.prefix, tuple(o.prefix for o in others), architecture, known, made, flags,
        left_out,
    )  # fmt: skip


def _chosen(
    found: list[Network], prefix: str | None, layout: str, state: Mapping[str, np.ndarray], where: str
) -> Network:
    """The network that is converted, of all in a checkpoint."""
    if not found:
        raise UserError(
            f"weights={where}: its names fit none of {', '.join(LAYOUTS)}, under any prefix: there is no "
            f"conv1.weight beside a layer1.0.conv1.weight. They are like {_some(state)}; in all "
            f"{grouped(state)}."
        )
    listed = ", ".join(repr(network.prefix.rstrip(".")) for network in found)
    best = found
    if layout != "auto":
        wanted = LAYOUTS[layout]
        (plain,) = bare([wanted.prefix]).values()
        form = {"detectron2": "detectron2"}.get(layout, wanted.first or "named")
        best = [n for n in best if n.prefix.endswith(plain) and n.form == form]
        if not best:
            raise UserError(
                f"weights={where}: has no network by the names of layout={layout}; there is one under "
                f"{printable_text(listed)}. Leave `layout` out."
            )
    if prefix is not None:
        (plain,) = bare([prefix.rstrip(".") + "."]).values()
        plain = plain.lstrip(".")
        exact = [n for n in best if n.prefix == plain]
        best = exact or [n for n in best if plain and f".{plain}" in f".{n.prefix}"]
        if len(best) != 1:
            raise UserError(
                f"prefix={prefix}: {'several networks lie' if best else 'no network lies'} there. Choose "
                f"from {printable_text(listed)}."
            )
    best = [n for n in best if n.rank == max(n.rank for n in best)]
    first = best[0]
    if any(not _alike(first, other, state) for other in best[1:]):
        alike = ", ".join(n.prefix.rstrip(".") or "''" for n in best)
        raise UserError(
            f"weights={where}: holds several networks, and their names do not tell which is meant: "
            f"{printable_text(alike)}. Pass one of them as `prefix`."
        )
    return first


def _alike(a: Network, b: Network, state: Mapping[str, np.ndarray]) -> bool:
    """Whether two networks have the same weights, as where a checkpoint has one by two names."""
    return a.names.keys() == b.names.keys() and all(
        np.array_equal(state[a.names[k]], state[b.names[k]]) for k in a.names
    )


def _architecture(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, object]:
    """Arguments of `nets.resnet` but for the stem, by names and shapes."""
    if arrays["conv1.weight"].ndim != 4:
        raise UserError(f"weights={where}: has no first convolution; its names are like {_some(arrays)}.")
    width, channels, _, _ = arrays["conv1.weight"].shape
    inside = {tuple(name.split(".")[:2]) for name in arrays}
    blocks = tuple(sum(stage == f"layer{i}" for stage, _ in inside) for i in range(1, 5))
    kind = "bottleneck" if "layer1.0.conv3.weight" in arrays else "basic"
    name = next((n for n, plan in nets.RESNETS.items() if plan == (kind, blocks)), None)
    if name is None:
        raise UserError(
            f"weights={where}: {kind} blocks {blocks} are no network here; there are "
            f"{', '.join(nets.RESNETS)}."
        )
    return {"name": name, "stem": "imagenet", "width": width / 64, "channels": channels}


def _stem(
    stem: str, kernel: np.ndarray, by_name: str | None, whose: str, network: Network, where: str
) -> tuple[str, bool]:
    """(the stem, whether it is known): as given, by the first kernel, or by whose names they are."""
    if stem != "auto":
        return stem, True
    if kernel.shape[-1] != 3:
        return "imagenet", True
    last = network.prefix.rstrip(".").rpartition(".")[2]
    if by_name is None and last in ("backbone", "encoder") and whose in ("solo_learn", "other"):
        raise UserError(
            f"weights={where}: its first kernel is 3×3, whose stride and padding leave no trace in "
            f"weights, and several programs call a network {last}. Pass stem=cifar (stride 1, padding 1), "
            "stem=cifar_pad2 (padding 2: solo-learn) or stem=small (stride 2)."
        )
    return by_name or "cifar", by_name is not None


def _assign(backbone: keras.Model, arrays: Mapping[str, np.ndarray], where: str) -> None:
    wanted = {torch_name(v): v for v in backbone.weights}
    given = {n: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for n, a in arrays.items()}
    missing = [n for n in wanted if n not in given]
    unknown = [n for n in given if n not in wanted and not n.endswith(_COUNTER)]
    other = [n for n, v in wanted.items() if n in given and tuple(v.shape) != given[n].shape]
    if missing or unknown or other:
        said = [f"{len(n)} {what} ({_some(n)})" for what, n in
                (("missing", missing), ("unknown", unknown), ("of another shape", other)) if n]  # fmt: skip
        raise UserError(f"weights={where}: is no {backbone.name} of ours: weights {'; '.join(said)}.")
    for name, variable in wanted.items():
        variable.assign(given[name])


def grouped(names: Iterable[str]) -> str:
    """Names by what comes before their first number or last part, so that hundreds can be read."""
    heads = (re.match(r"((?:[^.]+\.)*?)(?:\d+\.|[^.]*$)", bare([name])[name]) for name in names)
    counts = Counter(match[1] if match else "" for match in heads)
    listed = [f"{printable_text(head)}* ({n})" for head, n in counts.most_common(12)]
    return ", ".join(listed) + (f", and {len(counts) - 12} more" if len(counts) > 12 else "")


def _some(names: Iterable[str]) -> str:
    listed = [printable_text(name) for name in sorted(names)[:4]]
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
