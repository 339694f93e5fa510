"""The base class that keras-cv gives for augmentation layers, under every Keras from 3.15 on.

keras-cv 0.9.0, its last release, copies names from Keras' private modules while it is imported. Keras 3.16
has moved these modules, which ends the import. All that keras-cv looks for in them is in the public
`keras.ops`, too, which therefore stands in for whatever Keras has moved.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator

import keras

PRIVATE = "keras.src.backend.tensorflow"
WANTED = (PRIVATE, *(f"{PRIVATE}.{name}" for name in ("core", "math", "nn", "numpy")))


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor does the package that would hold it
        return False


@contextlib.contextmanager
def _private_modules() -> Iterator[None]:
    """Within, `keras.ops` answers for those of `WANTED` that Keras does not have."""
    stand_ins = {name: keras.ops for name in WANTED if not _exists(name)}
    package = keras.ops if PRIVATE in stand_ins else importlib.import_module(PRIVATE)
    lacks = not hasattr(package, "convert_to_numpy")
    if lacks:
        package.convert_to_numpy = keras.ops.convert_to_numpy
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        if lacks:
            del package.convert_to_numpy


with _private_modules():
    from keras_cv.layers import VectorizedBaseImageAugmentationLayer as VectorizedBaseImageAugmentationLayer
