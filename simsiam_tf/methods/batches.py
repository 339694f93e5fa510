"""From whatever `fit` and its relatives hand to a step to the dictionary that an objective reads."""

from __future__ import annotations

from typing import Any

HOW = (
    'Pass a pair of arrays, fit((x1, x2)), a dataset of {"views": (x1, x2)}, or make views of images by '
    "simsiam_tf.data.pretraining(simsiam_tf.data.from_arrays(name, images))."
)


def batch_of(data: Any) -> dict[str, Any]:
    """A batch → {"views": (x1, x2, …), …}; labels beside the views are left out.

    data: such a dictionary, a tuple of views, or (x, y) with one of these as x, as Keras makes it of arrays.

    Raises:
        ValueError: an array of images with labels, sample weights, or a dictionary without "views".
    """
    parts = list(data) if isinstance(data, (tuple, list)) else [data]
    views = [part for part in parts if part is not None]
    if views and isinstance(views[0], (dict, tuple, list)):
        if len(parts) == 3 and parts[2] is not None:
            raise ValueError("An objective of views has no place for weights. Leave out sample_weight.")
        views = views[0]
    if isinstance(views, dict):
        if "views" not in views:
            raise ValueError(f'A batch has no "views", only {", ".join(map(repr, views))}. {HOW}')
        return views
    if len({(len(view.shape), *view.shape[-1:]) for view in views}) > 1:
        shapes = " and ".join(str(tuple(view.shape)) for view in views)
        raise ValueError(f"The views of an image are alike in shape, unlike {shapes}. {HOW}")
    return {"views": tuple(views)}
