"""Methods that a class of the user's defines: method=py:MODULE:CLASS."""

from __future__ import annotations

import inspect

from simsiam_tf.config.methods import PY_METHOD
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.python_objects import import_object

ARGUMENTS = ("d", "projector_hidden", "projector_layers")  # options that reach the constructor


def import_method(path: str) -> type[SiameseModel]:
    """The class MODULE:CLASS, in the current folder or installed.

    Raises:
        UserError: it cannot be imported, is no `SiameseModel`, or its constructor does not take a backbone
            and ARGUMENTS, where the class has no `from_options` of its own.
    """
    cls = import_object(path, "method", PY_METHOD, "a subclass of simsiam_tf.SiameseModel")
    if not (isinstance(cls, type) and issubclass(cls, SiameseModel)):
        raise UserError(f"method=py:{path}: is not a class. Pass a subclass of simsiam_tf.SiameseModel.")
    if cls.from_options.__func__ is SiameseModel.from_options.__func__:
        try:
            inspect.signature(cls.__init__).bind(None, None, **dict.fromkeys(ARGUMENTS))
        except TypeError as error:
            raise UserError(
                f"method=py:{path}: cannot be made from (backbone, {', '.join(ARGUMENTS)}): {error}. Let its "
                "constructor take these, and give other arguments a default."
            ) from error
    return cls
