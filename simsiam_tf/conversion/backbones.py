"""Backbones from a state_dict and back: architecture by shapes, nothing left out in silence."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.conversion.layouts import LAYOUTS, bare, detect
from simsiam_tf.errors import UserError

_OF_BN = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_BACKBONE = r"(conv1|bn1|layer\d)\."
_COUNTER = "num_batches_tracked"  # of torch's BN; nothing depends on it at a fixed momentum


@dataclasses.dataclass(frozen=True)
class Converted:
    """backbone; its layout and architecture in words; d, of the projector's output, None without one.

    left_out: names that a backbone has no place for, the heads' among them.
    """

    backbone: keras.Model
    layout: str
    architecture: dict[str, object]
    d: int | None
    left_out: tuple[str, ...]


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


def to_torch(backbone: keras.Model, layout: str = "torchvision") -> dict[str, np.ndarray]:
    """The state_dict of one of our ResNets: float32 arrays in torch's order, by the names of a layout.

    Raises:
        UserError: the network is none of `nets.BACKBONES`.
    """
    state = {}
    try:
        for variable in backbone.weights:
            value = np.asarray(variable.numpy(), np.float32)
            name = torch_name(variable)
            state[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
            if name.endswith(".running_var"):
                state[name.replace("running_var", _COUNTER)] = np.array(0, np.int64)
    except AttributeError as error:
        raise UserError("--weights: only ResNets of simsiam_tf have a counterpart in PyTorch.") from error
    return {LAYOUTS[layout].theirs(name): value for name, value in state.items()}


def from_torch(
    state: Mapping[str, np.ndarray], layout: str = "auto", stem: str = "auto", where: str = ""
) -> Converted:
    """Our backbone with the weights of a state_dict.

    Args:
        state: name → array.
        layout: a key of `LAYOUTS`; by the names when "auto".
        stem: one of `nets.STEMS`; by the first kernel when "auto": 7×7 "imagenet", 3×3 "cifar", or
            "cifar_pad2" of solo-learn. Stride and padding leave no trace in weights: where they are
            others ("small" has stride 2), the stem has to be named.
        where: the file, for messages.

    Raises:
        UserError: no known layout, no ResNet of ours, or weights that are missing, too many or of
            another shape, by name.
    """
    names = bare(state)
    layout = (detect(names.values()) or "") if layout == "auto" else layout
    if layout not in LAYOUTS:
        raise UserError(
            f"--weights={where}: its names fit none of {', '.join(LAYOUTS)}; they are like {_some(state)}."
        )
    known: dict[str, str] = {}  # between → theirs
    left_out = []
    for name, plain in names.items():
        key = LAYOUTS[layout].between(plain)
        if key is None or key in known:
            left_out.append(name)
        else:
            known[key] = name
    arrays = {k: np.asarray(state[n], np.float32) for k, n in known.items() if re.match(_BACKBONE, k)}
    left_out += [n for k, n in known.items() if k not in arrays]
    architecture = _architecture(arrays, layout, stem, where)
    backbone = nets.resnet(**architecture)
    _assign(backbone, arrays, where)
    last = max(
        (k for k in known if re.fullmatch(r"projector\.\d\.weight", k) and state[known[k]].ndim == 2),
        default="",
    )
    d = state[known[last]].shape[0] if last else None
    kept = tuple(name for name in left_out if not name.endswith(_COUNTER))
    return Converted(backbone, layout, architecture, d, kept)


def _architecture(arrays: Mapping[str, np.ndarray], layout: str, stem: str, where: str) -> dict[str, object]:
    """Arguments of `nets.resnet`, by names and shapes."""
    if "conv1.weight" not in arrays or arrays["conv1.weight"].ndim != 4:
        raise UserError(f"--weights={where}: has no first convolution; its names are like {_some(arrays)}.")
    width, channels, kernel, _ = arrays["conv1.weight"].shape
    inside = {tuple(name.split(".")[:2]) for name in arrays}
    blocks = tuple(sum(stage == f"layer{i}" for stage, _ in inside) for i in range(1, 5))
    kind = "bottleneck" if "layer1.0.conv3.weight" in arrays else "basic"
    name = next((n for n, plan in nets.BACKBONES.items() if plan == (kind, blocks)), None)
    if name is None:
        raise UserError(
            f"--weights={where}: {kind} blocks {blocks} are no network here; there are "
            f"{', '.join(nets.BACKBONES)}."
        )
    if stem == "auto":
        stem = "imagenet" if kernel == 7 else "cifar_pad2" if layout == "solo_learn" else "cifar"
    return {"name": name, "stem": stem, "width": width / 64, "channels": channels}


def _assign(backbone: keras.Model, arrays: Mapping[str, np.ndarray], where: str) -> None:
    wanted = {torch_name(v): v for v in backbone.weights}
    given = {n: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for n, a in arrays.items()}
    missing = [n for n in wanted if n not in given]
    unknown = [n for n in given if n not in wanted and not n.endswith(_COUNTER)]
    other = [n for n, v in wanted.items() if n in given and tuple(v.shape) != given[n].shape]
    if missing or unknown or other:
        said = [f"{len(n)} {what} ({_some(n)})" for what, n in
                (("missing", missing), ("unknown", unknown), ("of another shape", other)) if n]  # fmt: skip
        raise UserError(f"--weights={where}: is no {backbone.name} of ours: weights {'; '.join(said)}.")
    for name, variable in wanted.items():
        variable.assign(given[name])


def _some(names) -> str:  # noqa: ANN001 - any collection of names
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
