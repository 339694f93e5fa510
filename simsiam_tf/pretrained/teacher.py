"""Opens the network whose features a distillation teaches."""

from __future__ import annotations

import re
from typing import Any

import keras

from simsiam_tf.data import Augmentation
from simsiam_tf.pretrained.network_file import PIXELS_IN_WORDS, UnknownPixels
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

ops: Any = keras.ops  # pyright infers None from its functions
_OPTIONS = {"weights": "teacher", "pixels": "teacher_pixels"}  # as `open_pretrained` names them → here


def open_teacher(teacher: str, pixels: str = "auto", trust_code: bool = False) -> Pretrained:
    """Opens a teacher, a value of `weights` of `open_pretrained`. Raises the UserErrors of `open_pretrained`.

    pixels: how the network takes pixels, a key of `PIXELS`; "auto": by its card or its library.
    """
    try:
        return open_pretrained(teacher, pixels=pixels, trust_code=trust_code)
    except UnknownPixels as error:
        raise UserError(
            f"teacher={teacher}: no card beside it says how it takes pixels. Pass "
            f"teacher_pixels={PIXELS_IN_WORDS}."
        ) from error
    except UserError as error:
        text = re.sub(r"(?<![\w-])(weights|pixels)=", lambda match: f"{_OPTIONS[match[1]]}=", str(error))
        raise UserError(text if text.startswith("teacher=") else f"teacher={teacher}: {text}") from error


def network_on_views(
    teacher: Pretrained, augmentation: Augmentation, channels: int, size: int | None = None
) -> keras.Model:
    """The teacher's network on a student's views: [B, S, S, channels] → features [B, T].

    The views are resized and normalised anew, by the teacher's pixel rule; gray ones become colours.

    Args:
        augmentation, channels: those of the views, which are normalised by the augmentation's statistics.
        size: side in pixels to which views are resized; when None, the only side that the teacher takes, or
            else that of the views.

    Raises:
        UserError: the teacher takes another number of channels, or no images of `size`.
    """
    network, side = teacher.backbone, augmentation.size
    fixed = network.input_shape[1]
    if size and fixed not in (None, size):
        raise UserError(f"teacher_size={size}: {teacher.place} takes images of {fixed} pixels. Leave it out.")
    if channels not in (1, teacher.channels):
        raise UserError(
            f"teacher={teacher.place}: takes {counted(teacher.channels, 'channel')}, and the images have "
            f"{channels}. Choose a teacher for such images."
        )
    x = views = keras.Input((side, side, channels), name="views")
    if channels != teacher.channels:
        x = keras.layers.Concatenate(name="colours")([x] * teacher.channels)
    teacher_side = size or fixed or side
    if teacher_side != side:
        x = ops.image.resize(x, (teacher_side, teacher_side), interpolation="bilinear", antialias=True)
    # From (pixel − m) / s to (pixel − mean) / std.
    m, s = (values[:1] * teacher.channels if channels == 1 else values
            for values in augmentation.statistics(channels))  # fmt: skip
    mean, std = teacher.augmentation.statistics(teacher.channels)
    scale = [a / b for a, b in zip(s, std, strict=True)]
    offset: Any = [(a - b) / c for a, b, c in zip(m, mean, std, strict=True)]
    x = keras.layers.Rescaling(scale, offset, name="pixels", dtype="float32")(x)
    return keras.Model(views, network(x, training=False), name="teacher")
