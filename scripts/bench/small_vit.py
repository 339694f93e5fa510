"""A backbone for `--backbone=py:small_vit:build`: keras-hub's ViT for images of 28 pixels."""

import keras
import keras_hub


def build(size: int, channels: int) -> keras.Model:
    """Patches of 7 pixels, 4 layers, 128 wide, with dropout; the class token is the feature [B, 128]."""
    vit = keras_hub.models.ViTBackbone((size, size, channels), 7, 4, 4, 128, 512, dropout_rate=0.1)
    images = keras.Input((size, size, channels))
    return keras.Model(images, vit(images)[:, 0])
