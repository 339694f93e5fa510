"""Small networks with random layers: dropout, noise, and a drop path that draws without a seed."""

import keras

from simsiam_tf import nets


@keras.saving.register_keras_serializable("tests")
class DropPath(keras.layers.Layer):
    """Drops whole rows, as keras-hub's DINOv3 and Keras' ConvNeXt do: by Keras' global generator."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, x, training=False):
        if not training:
            return x
        shape = (keras.ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return x * keras.ops.floor(1 - self.rate + keras.random.uniform(shape)) / (1 - self.rate)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


def build_network(size, channels, options=None, noise=True):
    """A row of `BACKBONES`: two blocks with BN and dropout.

    noise: whether there are Gaussian noise and a drop path, too, which no stored network may have.
    """
    del size, options
    x = images = keras.Input((None, None, channels), name="images")
    for i, width in enumerate((6, 16), 1):
        x = nets.BatchNorm(name=f"block{i}_bn")(nets.Conv(width, 3, 2, name=f"block{i}_conv")(x))
        x = keras.layers.ReLU(name=f"block{i}_relu")(x)
        x = keras.layers.Dropout(0.2, name=f"block{i}_dropout")(x)
        if noise:
            x = DropPath(0.1, name=f"block{i}_drop")(
                keras.layers.GaussianNoise(0.1, name=f"block{i}_noise")(x)
            )
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="backbone")
