"""Paths of a network's variables, by which the variables of two builds of one network are matched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras.src.utils.naming import to_snake_case

# Classes that `keras_networks` exchanges for each other, while the layers keep their names.
_EXCHANGED = {
    name: pair for pair in (("Conv", "Conv2D"), ("BatchNorm", "BatchNormalization")) for name in pair
}


def variables_by_path(network: Any, renumbered: bool = True, prefix: str = "") -> dict[str, Any]:
    """Path → variable of all of `network.weights`, in their order.

    A path names the layers around a variable, without the network itself, and the variable, such as
    "encoder/layer_0/attention/query/kernel". Keras' own `variable.path` lacks the outer layers where an inner
    one was built before them. A variable that several layers share has the path of the first.

    Args:
        renumbered: whether names that Keras numbered by its count of such layers in the process, such as
            dense_17, are numbered among their siblings instead, so that two builds have the same paths.
        prefix: beginning that is removed from names of layers, such as "momentum_" of a momentum encoder.

    Raises:
        ValueError: a variable of the network belongs to none of its layers.
    """
    paths: dict[str, Any] = {}
    seen: set[int] = set()

    def walk(layer: Any, place: str) -> None:
        variables = [*layer._trainable_variables, *layer._non_trainable_variables]
        for name, variable in _named(variables, renumbered, ""):
            if id(variable) not in seen:
                seen.add(id(variable))
                paths[place + name] = variable
        for name, inner in _named(layer._layers, renumbered, prefix):
            if id(inner) not in seen:
                seen.add(id(inner))
                walk(inner, f"{place}{name}/")

    walk(network, "")
    if {id(variable) for variable in paths.values()} != {id(variable) for variable in network.weights}:
        raise ValueError(f"{network.name} has variables that belong to none of its layers.")
    return paths


def matched_variables(network: Any, other: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """`variables_by_path` of two builds of a network; renumbered only where their names differ.

    prefix: beginning that is removed from names of the layers of `other`.
    """
    exact = variables_by_path(network, False), variables_by_path(other, False, prefix)
    if exact[0].keys() == exact[1].keys():
        return exact
    return variables_by_path(network), variables_by_path(other, prefix=prefix)


def copy_variables(source: keras.Model, target: keras.Model, prefix: str = "") -> None:
    """Copies all variables of a network to another of the same paths and shapes.

    prefix: beginning that is removed from names of the target's layers.
    """
    values, variables = matched_variables(source, target, prefix)
    for path, variable in variables.items():
        variable.assign(values[path])


def _named(items: Iterable[Any], renumbered: bool, prefix: str) -> Iterator[tuple[str, Any]]:
    """(unique name, item) of the layers or variables of one layer."""
    names: set[str] = set()
    for item in {id(item): item for item in items}.values():
        name = item.name.removeprefix(prefix)
        stem = re.sub(r"_\d+$", "", name)
        if renumbered and stem in _automatic_names(item):
            name = stem
        count, unique = 0, name
        while unique in names:
            count += 1
            unique = f"{name}_{count}"
        names.add(unique)
        yield unique, item


def _automatic_names(item: Any) -> set[str]:
    """The names, without a number, that Keras gives to a layer or variable without one."""
    name = type(item).__name__
    return {to_snake_case(each) for each in _EXCHANGED.get(name, (name,))}
