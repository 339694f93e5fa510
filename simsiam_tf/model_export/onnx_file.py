"""Writes a Keras network as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def write_onnx(model: keras.Model, path: Path) -> None:
    """Writes the network with its one input and its output "features".

    `keras.Model.export` fails for transformers of keras-hub: tf2onnx has no Erfc, which their GELU computes,
    and makes an input of each constant that a layer has computed before.
    """
    # Not at the start: an extra, and private (the only way to a function without captured tensors).
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name.split(":")[0]) for tensor in model.inputs
    ]
    frozen = convert_variables_to_constants_v2(tf.function(model).get_concrete_function(*signature))
    function = tf.function(lambda *images: {"features": frozen(*images)[0]}, input_signature=signature)
    tf2onnx.convert.from_function(
        function, signature, custom_op_handlers={"Erfc": (_write_erfc, [])}, output_path=str(path)
    )


def _write_erfc(graph: Any, node: Any, name: str, args: list) -> None:
    """Replaces a node by 1 − Erf(x)."""
    (output,) = node.output
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}/one", np.ones((), np.float32))
    erf = graph.make_node("Erf", [node.input[0]])
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype])
