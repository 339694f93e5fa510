"""Turns what `fit` and the loop hand to a model into batches of views."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

HINT = (
    'Pass a pair of arrays, fit((x1, x2)), a dataset of {"views": (x1, x2)}, or make views of images by '
    "simsiam_tf.data.pretraining(simsiam_tf.data.from_arrays(name, images))."
)


def same_views(data: Any) -> Any:
    """A dataset of `data.pretraining` → its first epoch at every iteration; other data unchanged."""
    if not hasattr(data, "stream"):
        return data
    return data.stream().take(len(data)).apply(tf.data.experimental.assert_cardinality(len(data)))


def view_size(data: Any) -> int | None:
    """The side in pixels of the first view in what `fit` takes; None where it is not known."""
    spec = getattr(data, "element_spec", data)
    while isinstance(spec, (dict, tuple, list)) and spec:
        spec = spec.get("views") if isinstance(spec, dict) else spec[0]
    shape = getattr(spec, "shape", ())
    return shape[1] if len(shape) == 4 else None


def to_batch(data: Any) -> dict[str, Any]:
    """A batch as {"views": (x1, x2, …), …}, with "target" where there are labels.

    data: such a dictionary, a tuple of views, or (x, y), as Keras makes it, with one of these as x.
    """
    items = list(data) if isinstance(data, (tuple, list)) else [data]
    views, labels = [item for item in items if item is not None], {}
    if views and isinstance(views[0], (dict, tuple, list)):
        if len(items) == 3 and items[2] is not None:
            raise ValueError("An objective of views has no place for weights. Leave out sample_weight.")
        labels = {"target": items[1]} if len(items) > 1 and items[1] is not None else {}
        views = views[0]
    if isinstance(views, dict):
        if "views" not in views:
            raise ValueError(f'A batch has no "views", only {", ".join(map(repr, views))}. {HINT}')
        return {**views, **labels}
    if len({(len(view.shape), *view.shape[-1:]) for view in views}) > 1:
        shapes = " and ".join(str(tuple(view.shape)) for view in views)
        raise ValueError(f"The views of an image must be alike in shape. Received: {shapes}. {HINT}")
    return {"views": tuple(views), **labels}
