"""Finds the blocks of a backbone by the names of its layers, for learning rates by block and for freezing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from simsiam_tf.runtime.errors import UserError, nearest

# _BLOCK matches the names of blocks: stage1_block1, conv4_block3, block2a, block_2_1, transformer_block_3,
# layers_0, expanded_conv_3, stage_0_block_0, and conv_dw_3 with conv_pw_3, which are one block. Of a name it
# takes as much as it can: "stage1_block1_conv1" is in the block "stage1_block1". Where layers lie in layers,
# the outermost whose name matches counts. _STAGE is for layers that are in no block.
_BLOCK = re.compile(
    r"(.*(?:blocks?|layers?|expanded_conv|conv_[dp]w))(_\d+_\d+|_?\d+[a-z]?)(?![a-z\d])", re.I
)
_STAGE = re.compile(r"(.*?(?:stage|stack|group|mixed))(_?\d+)(?![a-z\d])", re.I)

Path = tuple[str, ...]  # names of the layers around a layer, outermost first, and its own


def layer_paths(network: keras.Model) -> list[tuple[Path, keras.layers.Layer]]:
    """(path, layer) of all layers of a network, in its order; a layer comes before the layers within it."""
    seen: set[int] = set()

    def walk(layer: Any, path: Path) -> Iterator[tuple[Path, keras.layers.Layer]]:
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            if id(inner) not in seen:
                seen.add(id(inner))
                yield (*path, inner.name), inner
                yield from walk(inner, (*path, inner.name))

    return list(walk(network, ()))


def block_of(path: Path) -> str:
    """The block, or else the stage, that a layer is in, by its path; empty if it is in neither."""
    for pattern in (_BLOCK, _STAGE):
        for i, name in enumerate(path):
            if match := pattern.match(name):
                word = re.sub(r"conv_[dp]w$", "conv", match[1])  # MobileNet: both halves of a block
                return "/".join((*path[:i], word + match[2]))
    return ""


def block_depths(network: keras.Model) -> tuple[list[tuple[keras.Variable, int]], int]:
    """([(variable, depth of its block) for the variables of a network], depth of the heads).

    The stem has depth 0, the blocks 1, 2, …, L in the order of the network, and the heads L + 1. A layer
    between two blocks or behind the last, such as a final normalisation, has the depth of the block before
    it, as in timm's `param_groups_layer_decay`.

    Raises:
        UserError: no layer is named as the layers of blocks are, as in "block2a".
    """
    holders = [(block_of(path), layer) for path, layer in layer_paths(network) if _own_variables(layer)]
    blocks = {block: depth for depth, block in enumerate(dict.fromkeys(b for b, _ in holders if b), 1)}
    if not blocks:
        names = ", ".join(path[-1] for path, layer in layer_paths(network) if _own_variables(layer))[:100]
        raise UserError(
            f"`layer_decay`: the network {network.name} has no blocks by the names of its layers ({names}), "
            "as in block2a or stage1_block1. Leave `layer_decay` out."
        )
    depths, depth = [], 0
    for block, layer in holders:
        depth = blocks.get(block, depth)
        depths += [(v, depth) for v in _own_variables(layer)]
    return depths, len(blocks) + 1


def rate_factors(
    network: keras.Model, variables: Sequence[keras.Variable], layer_decay: float
) -> list[float]:
    """Factors of the variables' learning rates: layer_decay^(depth of the heads − depth of the block).

    variables: the trained variables of a model; the factor is 1 for those outside `network`.
    """
    if layer_decay == 1.0:
        return [1.0] * len(variables)
    depths, heads = block_depths(network)
    factors = {id(v): layer_decay ** (heads - depth) for v, depth in depths}
    return [factors.get(id(v), 1.0) for v in variables]


def freeze_until(network: keras.Model, name: str) -> None:
    """Freezes the layers up to and including the last whose name starts with `name`; their BN is frozen, too.

    A number counts as a whole: "block1" is the start of "block1a" and "block1_conv1", not of "block10".

    Raises:
        UserError: no layer has such a name, or no variable would be left to train.
    """
    frozen = layers_until(network, name)
    for layer in frozen:
        # Setting `trainable` of a layer also sets it for all layers within, some of which may come later.
        if all(inner in frozen for inner in layer._flatten_layers(include_self=False)):
            layer.trainable = False
        for variable in _own_variables(layer):
            variable.trainable = False


def check_names(network: keras.Model, name: str | None, layer_decay: float) -> None:
    """Raises the UserErrors of `freeze_until`, unless `name` is None, and of `rate_factors`."""
    if name:
        layers_until(network, name)
    if layer_decay != 1.0:
        block_depths(network)


def layers_until(network: keras.Model, name: str) -> list[keras.layers.Layer]:
    """The layers that `freeze_until` freezes, in the network's order. Raises its UserErrors."""
    start = re.compile(re.escape(name) + (r"(?!\d)" if name[-1:].isdigit() else ""))
    paths = layer_paths(network)
    last = max((i for i, (p, _) in enumerate(paths) if any(map(start.match, p))), default=None)
    if last is None:
        blocks = [block_of(path).rpartition("/")[2] for path, _ in paths]
        names = filter(None, [*blocks, *(path[-1] for path, _ in paths)])
        raise UserError(
            f"freeze_until={name}: no layer of {network.name} has a name that starts so."
            f"{nearest(name, dict.fromkeys(names))}"
        )
    if not any(v.trainable for _, layer in paths[last + 1 :] for v in _own_variables(layer)):
        raise UserError(
            f"freeze_until={name}: freezes every weight of {network.name}. Choose an earlier layer; "
            "linear_eval trains a classifier on a frozen backbone."
        )
    return [layer for _, layer in paths[: last + 1]]


def _own_variables(layer: Any) -> list[keras.Variable]:
    """The variables of a layer that gradients could train, without those of layers within it."""
    return list(layer._trainable_variables)
