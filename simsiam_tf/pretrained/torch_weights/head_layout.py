"""Projector and predictor from a state_dict and back: widths, layers and BN by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.pretrained.torch_weights.key_names import Layout, Network

Arrays = Mapping[str, np.ndarray]
_PROJECTORS = ("projector.", "projection_head.", "neck.")
_PREDICTORS = ("predictor.", "online_predictor.", "prediction_head.", "head.predictor.")
_BN = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_MOVING = {"running_mean", "running_var"}
_COUNTER = "num_batches_tracked"  # of torch's BN; nothing depends on it at a fixed momentum


class Layer:
    """fc and the BN after it, if any. weight: [out, in]."""

    def __init__(self, fc: dict[str, np.ndarray]) -> None:
        self.weight, self.bias, self.bn = fc["weight"], fc.get("bias"), None

    def affine(self) -> bool:
        """Whether its BN, where it has one, has γ and β."""
        return self.bn is None or "weight" in self.bn


def read(state: Arrays, network: Network, features: int) -> tuple[dict[str, keras.Model], dict, set[str]]:
    """(the heads around a network, the flags that make such heads, the names that they were read from).

    A head that no flags make is left out. A bias before BN is taken out of BN's running mean, which is
    what it computes in training and in inference alike.

    Args:
        state: bare name → array.
        features: width of the network's output.
    """
    above = network.prefix.split(".")[:-2]
    around = [".".join(above[:i]) + "." if i else "" for i in range(len(above), -1, -1)]  # the nearest first
    places = [place + head for place in around for head in _PROJECTORS]
    if network.form == "named":
        places.insert(0, network.prefix + "fc.")
    projector, names = _first(state, places, features)
    if not projector:
        return {}, {}, set()
    d = projector[-1].weight.shape[0]
    predictor, more = _first(state, [place + head for place in around for head in _PREDICTORS], d)
    for h in [predictor, None] if predictor else [None]:
        flags = _flags(projector, h)
        if flags:
            heads = {"projector": nets.projector(features, **_arguments(flags))}
            _assign(heads["projector"], projector)
            if h:
                heads["predictor"] = nets.predictor(d, flags["predictor_hidden"], flags["bn"])
                _assign(heads["predictor"], h)
            return heads, flags, names | (more if h else set())
    return {}, {}, set()


def _arguments(flags: dict[str, Any]) -> dict[str, Any]:
    return {
        "d": flags["d"], "hidden": flags.get("projector_hidden"), "layers": flags["projector_layers"],
        "bn": flags["bn"], "output_affine": flags["output_affine"],
    }  # fmt: skip


def _first(state: Arrays, places: list[str], width: int) -> tuple[list[Layer], set[str]]:
    """The MLP at the first of several places that has one for inputs of a width, and its names."""
    for place in places:
        names = {name for name in state if name.startswith(place)}
        layers = _mlp({name[len(place) :]: state[name] for name in names}, width)
        if layers and not (place.endswith("fc.") and f"{place}weight" in names):  # a classifier
            return layers, names
    return [], set()


def _mlp(state: Arrays, width: int) -> list[Layer]:
    """fc and BN in the order of their numbers; empty where the names or shapes are no such MLP's."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, array in state.items():
        module, _, kind = name.rpartition(".")
        if kind != _COUNTER:
            modules.setdefault(module, {})[kind] = array

    def order(module: str) -> tuple[list[int], bool]:
        weight = modules[module].get("weight")
        return [int(n) for n in re.findall(r"\d+", module)], weight is None or weight.ndim != 2

    layers: list[Layer] = []
    for module in sorted(modules, key=order):
        kinds = modules[module]
        if set(kinds) <= {"weight", "bias"} and kinds.get("weight", np.empty(0)).ndim == 2:
            if kinds["weight"].shape[1] != width:
                return []
            layers.append(Layer(kinds))
            width = kinds["weight"].shape[0]
        elif layers and layers[-1].bn is None and _MOVING <= set(kinds) <= {*_BN.values()}:
            layers[-1].bn = kinds
        else:
            return []
        if any(a.shape != (width,) for a in kinds.values() if a.ndim != 2):
            return []
    return layers


def _flags(projector: list[Layer], predictor: list[Layer] | None) -> dict[str, Any]:
    """Flags of pre-training that make such heads; empty where none do."""
    *hidden, last = projector
    widths = {layer.weight.shape[0] for layer in hidden}
    has_bn = {layer.bn is not None for layer in hidden}
    uneven = len(widths) > 1 or len(has_bn) > 1 or not all(layer.affine() for layer in hidden)
    d = last.weight.shape[0]
    if predictor:
        uneven |= len(predictor) != 2 or predictor[-1].weight.shape[0] != d
        uneven |= not all(layer.affine() for layer in predictor)
    for bn, row in nets.BN_PLACEMENT.items():
        fits = has_bn <= {row.proj_hidden} and row.proj_output == (last.bn is not None)
        if predictor:
            fits &= [row.pred_hidden, row.pred_output] == [layer.bn is not None for layer in predictor]
        if fits and not uneven:
            return {
                "d": d, "projector_layers": len(projector),
                **({"projector_hidden": widths.pop()} if widths else {}),
                **({"predictor_hidden": predictor[0].weight.shape[0]} if predictor else {}),
                "bn": bn, "output_affine": last.affine(),
            }  # fmt: skip
    return {}


def _assign(head: keras.Model, layers: list[Layer]) -> None:
    for i, layer in enumerate(layers, 1):
        fc = head.get_layer(f"fc{i}")
        bias = np.zeros(layer.weight.shape[0], np.float32) if layer.bias is None else layer.bias
        fc.kernel.assign(layer.weight.T)
        if layer.bn is None:
            fc.bias.assign(bias)
            continue
        for variable in head.get_layer(f"bn{i}").variables:
            value = layer.bn.get(_BN[variable.name], np.zeros(variable.shape, np.float32))  # no β: 0
            variable.assign(value - bias if variable.name == "moving_mean" else value)


def write(heads: Mapping[str, keras.Model], layout: Layout) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) for all weights of the heads by the names of a layout, in torch's order."""
    for head, template in (("projector", layout.projector), ("predictor", layout.predictor)):
        if head not in heads or not template:
            continue
        place = 0
        fcs = [layer for layer in heads[head].layers if layer.name.startswith("fc")]
        for j, fc in enumerate(fcs):
            bn = next((layer for layer in heads[head].layers if layer.name == f"bn{j + 1}"), None)
            name = template.format(i=place, kind="fc", j=j)
            yield f"{name}.weight", _array(fc.kernel).T
            if fc.use_bias:
                yield f"{name}.bias", _array(fc.bias)
            elif layout.last_bias and head == "projector" and j == len(fcs) - 1:
                yield f"{name}.bias", np.zeros(fc.units, np.float32)
            if bn is not None:
                name = template.format(i=place + 1, kind="bn", j=j)
                arrays = {variable.name: _array(variable) for variable in bn.variables}
                if "gamma" in arrays:  # torch's BN has no β only where it has no γ
                    arrays.setdefault("beta", np.zeros_like(arrays["gamma"]))
                for kind in (kind for kind in _BN if kind in arrays):
                    yield f"{name}.{_BN[kind]}", arrays[kind]
                yield f"{name}.{_COUNTER}", np.array(0, np.int64)
            place += 2 if bn is None else 3


def _array(variable: keras.Variable) -> np.ndarray:
    return np.asarray(variable.numpy(), np.float32)
