"""Converts projector and predictor from a state_dict and back; infers their layers from names and shapes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.pretrained.torch_layouts import TORCHVISION, Layout, Network

Arrays = Mapping[str, np.ndarray]
BN_NAMES = {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
BN_KINDS = set(BN_NAMES.values())
COUNTER = "num_batches_tracked"  # of torch's BN; matters only where the momentum is None
_PROJECTORS = ("projector.", "projection_head.", "neck.")
_PREDICTORS = ("predictor.", "online_predictor.", "prediction_head.", "head.predictor.")


@dataclasses.dataclass
class Layer:
    """A fully connected layer and the BN after it: torch's names of the weights → arrays.

    fc["weight"]: [out, in]. bn: None where there is no BN.
    """

    fc: Arrays
    bn: Arrays | None = None

    @property
    def units(self) -> int:
        return len(self.fc["weight"])

    @property
    def is_affine(self) -> bool:
        """Whether the BN has γ and β; true without BN."""
        return self.bn is None or "weight" in self.bn


def read_heads(arrays: Arrays, network: Network, features: int) -> tuple[dict[str, Any], dict, set[str]]:
    """(the heads around a network, the options that make such heads, the names that they were read from).

    Where no options of pre-training make such heads, the predictor or both heads are left out. A bias before
    BN is subtracted from BN's running mean, which gives the same outputs in training and in inference.

    arrays: the arrays outside all backbones. features: width of the network's output.
    """
    above = network.prefix.split(".")[:-2]
    around = [".".join(above[:i]) + "." if i else "" for i in range(len(above), -1, -1)]  # the nearest first
    places = [place + head for place in around for head in _PROJECTORS]
    if network.naming == TORCHVISION:
        places.insert(0, network.prefix + "fc.")
    projector, names = _first_mlp(arrays, places, features)
    if not projector:
        return {}, {}, set()
    d = projector[-1].units
    predictor, more = _first_mlp(arrays, [place + head for place in around for head in _PREDICTORS], d)
    for layers, used in ((predictor, names | more), ([], names)):
        options = _options(projector, layers)
        if options:
            heads = {"projector": nets.projector(
                features, d, options.get("projector_hidden"), len(projector), options["bn"],
                options["output_affine"],
            )}  # fmt: skip
            _assign(heads["projector"], projector)
            if layers:
                heads["predictor"] = nets.predictor(d, layers[0].units, options["bn"])
                _assign(heads["predictor"], layers)
            return heads, options, used
    return {}, {}, set()


def _first_mlp(arrays: Arrays, places: list[str], width: int) -> tuple[list[Layer], set[str]]:
    """The MLP under the first of several prefixes that has one whose input is `width` wide, and its names."""
    for place in places:
        names = {name for name in arrays if name.startswith(place)}
        layers = _mlp({name[len(place) :]: arrays[name] for name in names}, width)
        is_classifier = place.endswith("fc.") and f"{place}weight" in names
        if layers and not is_classifier:
            return layers, names
    return [], set()


def _mlp(arrays: Arrays, width: int) -> list[Layer]:
    """fc and BN in the order of the numbers in their names; empty where names or shapes fit no MLP."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        module, _, kind = name.rpartition(".")
        if kind != COUNTER:
            modules.setdefault(module, {})[kind] = array

    def is_fc(module: str) -> bool:
        return "weight" in modules[module] and modules[module]["weight"].ndim == 2

    def order(module: str) -> tuple[list[int], bool]:
        return [int(number) for number in re.findall(r"\d+", module)], not is_fc(module)

    layers: list[Layer] = []
    for name in sorted(modules, key=order):
        shapes = {kind: array.shape for kind, array in modules[name].items()}
        if is_fc(name) and shapes.keys() <= {"weight", "bias"} and shapes.pop("weight")[1] == width:
            layers.append(Layer(modules[name]))
            width = layers[-1].units
        elif layers and not layers[-1].bn and {"running_mean", "running_var"} <= shapes.keys() <= BN_KINDS:
            layers[-1].bn = modules[name]
        else:
            return []
        if any(shape != (width,) for shape in shapes.values()):
            return []
    return layers


def _options(projector: list[Layer], predictor: list[Layer]) -> dict[str, Any]:
    """Options of pre-training that make such heads; empty where none do."""
    *hidden, last = projector
    widths = {layer.units for layer in hidden}
    has_bn = {layer.bn is not None for layer in hidden}
    if len(widths) > 1 or not all(layer.is_affine for layer in (*hidden, *predictor)):
        return {}
    if predictor and (len(predictor) != 2 or predictor[-1].units != last.units):
        return {}
    for bn, row in nets.BN_PLACEMENT.items():
        fits = has_bn <= {row.proj_hidden} and row.proj_output == (last.bn is not None)
        if predictor:
            fits &= [row.pred_hidden, row.pred_output] == [layer.bn is not None for layer in predictor]
        if fits:
            return {
                "d": last.units, "projector_layers": len(projector),
                **({"projector_hidden": widths.pop()} if widths else {}),
                **({"predictor_hidden": predictor[0].units} if predictor else {}),
                "bn": bn, "output_affine": last.is_affine,
            }  # fmt: skip
    return {}


def _assign(head: keras.Model, layers: list[Layer]) -> None:
    for i, layer in enumerate(layers, 1):
        fc: Any = head.get_layer(f"fc{i}")
        bias = layer.fc.get("bias", np.zeros(layer.units, np.float32))
        fc.kernel.assign(layer.fc["weight"].T)
        if layer.bn is None:
            fc.bias.assign(bias)
            continue
        for variable in head.get_layer(f"bn{i}").variables:
            value = layer.bn.get(BN_NAMES[variable.name], np.zeros(variable.shape, np.float32))  # no β: 0
            variable.assign(value - bias if variable.name == "moving_mean" else value)


def head_arrays(heads: Mapping[str, keras.Model], layout: Layout) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of all weights of the heads by the names of a layout, in torch's order."""
    for head, template in (("projector", layout.projector), ("predictor", layout.predictor)):
        if head not in heads or not template:
            continue
        layers: dict[str, Any] = {layer.name: layer for layer in heads[head].layers}
        fcs, place = [layer for name, layer in layers.items() if name.startswith("fc")], 0
        for j, fc in enumerate(fcs):
            bn = layers.get(f"bn{j + 1}")
            name = template.format(i=place, kind="fc", j=j)
            yield f"{name}.weight", _float32(fc.kernel).T
            if fc.use_bias:
                yield f"{name}.bias", _float32(fc.bias)
            elif layout.last_bias and head == "projector" and j == len(fcs) - 1:
                yield f"{name}.bias", np.zeros(fc.units, np.float32)
            if bn is not None:
                name = template.format(i=place + 1, kind="bn", j=j)
                arrays = {variable.name: _float32(variable) for variable in bn.variables}
                if "gamma" in arrays:  # torch's BN lacks β only where it lacks γ
                    arrays.setdefault("beta", np.zeros_like(arrays["gamma"]))
                yield from ((f"{name}.{BN_NAMES[kind]}", arrays[kind]) for kind in BN_NAMES if kind in arrays)
                yield f"{name}.{COUNTER}", np.array(0, np.int64)
            place += 2 if bn is None else 3


def _float32(variable: Any) -> np.ndarray:
    return np.asarray(variable.numpy(), np.float32)
