"""The base class of the augmentation's layers: a keras-cv layer that can take its draws as an argument.

keras-cv 0.9.0, its last release, copies names from Keras' private modules while it is imported. Keras 3.16
has moved these modules, and the import fails. The public `keras.ops` has all names that keras-cv looks for
in them, and stands in for every module that Keras has moved.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

PRIVATE = "keras.src.backend.tensorflow"
PRIVATE_MODULES = (PRIVATE, *(f"{PRIVATE}.{name}" for name in ("core", "math", "nn", "numpy")))

Planes = list[tf.Tensor]  # the channels of a batch, as float32 tensors [B, H, W]
Stage = Callable[[Planes, dict[str, tf.Tensor]], Planes]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that would hold it is missing, too
        return False


@contextlib.contextmanager
def _private_modules() -> Iterator[None]:
    """Within, `keras.ops` stands in for missing `PRIVATE_MODULES` and for a missing convert_to_numpy."""
    stand_ins = {name: keras.ops for name in PRIVATE_MODULES if not _exists(name)}
    package: Any = keras.ops if PRIVATE in stand_ins else importlib.import_module(PRIVATE)
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
    import keras_cv.layers  # pyright: ignore[reportMissingImports]


def to_planes(images: tf.Tensor) -> Planes:
    """Images [B, H, W, C] of any dtype as planes."""
    return [tf.cast(plane, tf.float32) for plane in tf.unstack(images, axis=-1)]


class PaperLayer(keras_cv.layers.VectorizedBaseImageAugmentationLayer):
    """A keras-cv layer whose transformations are a function of uniforms; float32 by default.

    As a layer it draws the uniforms itself. The pipeline instead calls

        layer.augment_images(images, layer.transformations(u, images))

    or runs the layer's `stages` one by one, with u, the layer's `draws` columns of the step's table of
    uniforms, so that a view is a function of the step. Images are [B, H, W, C] in [0, 255].
    """

    draws = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """u: [B, draws] in [0, 1) → the parameters of each image, by name."""
        raise NotImplementedError

    def stages(self, channels: int) -> list[Stage]:
        """The layer as passes over memory: (planes, transformations) → planes.

        Memory bounds the speed, so where `Views` uses XLA, it compiles each stage as one pass. A stage ends
        where the next one reads neighbouring pixels, or one plane many times: XLA would compute these anew
        for every reading within a stage.
        """
        raise NotImplementedError

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs: Any) -> tf.Tensor:
        x = to_planes(images)
        for stage in self.stages(len(x)):
            x = stage(x, transformations)
        return tf.stack(x, axis=-1)

    def get_random_transformation_batch(
        self, batch_size: tf.Tensor, images: Any = None, **kwargs: Any
    ) -> dict[str, tf.Tensor]:
        return self.transformations(self._random_generator.uniform([batch_size, self.draws]), images)

    def augment_labels(self, labels: tf.Tensor, transformations: dict, **kwargs: Any) -> tf.Tensor:
        return labels

    def get_config(self) -> dict[str, Any]:
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "kwargs"][1:]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
