"""keras-cv's layers under a Keras that has moved the private modules that keras-cv imports."""

import subprocess
import sys

import pytest

# Jitters one batch as a layer and one in tf.data, with the draws of one generator.
USE = """
from simsiam_tf.data import augment
import tensorflow as tf
tf.random.set_global_generator(tf.random.Generator.from_seed(7))
layer = augment.RandomColorJitter(p=1.0)
x = tf.reshape(tf.range(4 * 6 * 6 * 3, dtype=tf.float32), [4, 6, 6, 3]) % 255
labelled = layer({"images": x, "labels": tf.range(4)})["images"]
for y in (layer(x), labelled, *tf.data.Dataset.from_tensors(x).map(layer)):
    print(y.numpy().tobytes().hex())
"""
MOVED = {
    "submodules": """
import keras, sys, keras.src.backend.tensorflow as private
sys.modules.update({f"{private.__name__}.{name}": None for name in ("core", "math", "nn", "numpy")})
if hasattr(private, "convert_to_numpy"): del private.convert_to_numpy
""",
    "all": """
import keras, sys
private = [name for name in sys.modules if name.startswith("keras.src.backend.tensorflow")]
sys.modules.update(dict.fromkeys(private))
""",
}


def lines(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def expected():
    found = lines(USE)
    assert len(found) == 3 and len(set(found)) == 3
    return found


@pytest.mark.slow
def test_layers_jitter_alike_without_keras_private_submodules(expected):
    left = "print(hasattr(private, 'convert_to_numpy'), 'keras.src.backend.tensorflow.nn' in sys.modules)"
    assert lines(f"{MOVED['submodules']}{USE}{left}") == [*expected, "False False"]


@pytest.mark.slow
def test_layers_jitter_alike_without_any_private_keras_module(expected):
    assert lines(MOVED["all"] + USE) == expected


@pytest.mark.slow
def test_keras_cv_itself_works_where_keras_has_its_private_modules():
    pytest.importorskip("keras.src.backend.tensorflow.core")
    resize = """
from simsiam_tf.data import augment
import keras_cv, tensorflow as tf
print(keras_cv.layers.Resizing(4, 4, crop_to_aspect_ratio=True)(tf.ones([2, 8, 6, 3])).shape)
"""
    assert lines(resize) == ["(2, 4, 4, 3)"]
