"""The options `preview` and `dry_run`: what a run would do, without training."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf import config as configs
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import preview
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.overview import header_summary
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training.build_run import PretrainComponents, build_pretraining, knn_every, open_data

_STORED_FOR_GRADIENT = {"Conv2D", "FusedBatchNormV3", "Relu", "MatMul", "Pad", "MaxPool"}


def with_workdir(config: PretrainConfig) -> PretrainConfig:
    """The configuration, with the work folder runs/DATA-BACKBONE where it has none."""
    if config.workdir:
        return config
    name = re.sub(r"[^\w.]+", "-", f"{config.data}-{config.backbone}").strip("-")
    return dataclasses.replace(config, workdir=f"runs/{name}")


def write_preview(config: PretrainConfig) -> int:
    """Writes preview.png into the work folder, or without one into the current folder; returns 0."""
    path = _writable(Path(config.workdir or ".").expanduser() / "preview.png")
    source, views = open_data(config)
    preview.write_picture(path, preview.grid(source, views, config.seed))
    print(f"{path}: in each row an image of {source.name} and its {views.count} views")
    return 0


def dry_run(config: PretrainConfig) -> int:
    """Prints the options, and the images, steps, parameters and memory of the run; trains nothing. Returns 0.

    Raises:
        UserError: after printing, where unreadable images would end the run.
    """
    report = _writable(Path(config.workdir).expanduser() / "unreadable.json") if config.workdir else None
    components = build_pretraining(dataclasses.replace(config, on_bad_image="skip"), report)
    print(configs.to_flags(config))
    for name, value in summarize(config, components).items():
        print(f"{name:22} {value}")
    unreadable = sum(getattr(components.source, "unreadable", {}).values())
    if unreadable and config.on_bad_image == "error":
        raise UserError(
            f"data={config.data}: {unreadable} of its images cannot be decoded, which would end the run "
            "before it begins. Mend or remove them, or pass on_bad_image=skip."
        )
    return 0


def _writable(path: Path) -> Path:
    """Makes the folder for a file; returns the file. Raises UserError where it could not be written."""
    atomic_files.check_writable(path, "workdir", folders=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def summarize(config: PretrainConfig, components: PretrainComponents) -> dict[str, str]:
    """The properties of a run by name, in words."""
    model, source, monitor = components.model, components.source, components.monitor
    heads = model.count_params() - model.backbone.count_params()
    trained = sum(math.prod(v.shape) for v in model.backbone.trainable_variables)
    frozen = f"; {trained:,} of the backbone's are trained" if config.freeze_until else ""
    weights, activations = memory(config, components)
    teacher, teacher_row = getattr(model, "teacher", None), {}
    if teacher:
        place, size = config.method_option("teacher"), f"{teacher.count_params():,} parameters"
        teacher_row["teacher"] = f"{place}, {size}, {model.d} features"
    evaluated = "none (no labels)"
    if monitor:
        every = knn_every(components, config)
        during = f"{monitor.size(config.knn_images)} every {every} epochs, " if every else ""
        evaluated = f"labelled images: {during}{monitor.size()} at the end"
    return {
        "images": f"{source.size} of {source.name}, {source.channels} channels",
        **(header_summary(source) if isinstance(source, EncodedSource) else {}),
        "views": f"{components.views.count} of {components.views.augmentation.size} pixels",
        "monitor": evaluated,
        "stem": components.metadata["stem"],
        "initial weights": components.start,
        **teacher_row,
        "precision": components.metadata["precision"],
        "replicas": str(components.strategy.num_replicas_in_sync),
        "steps": f"{components.total_steps}, {source.size / config.batch_size:.1f} per epoch",
        "learning rate": f"{config.base_lr * config.batch_size / 256:g}, decayed to "
        f"{config.final_lr * config.batch_size / 256:g} on a cosine",
        "parameters": f"{model.backbone.count_params():,} backbone, {heads:,} heads{frozen}",
        "memory, estimated": f"{(weights + activations) / 2**30:.2f} GiB per replica, "
        f"{activations / 2**30:.2f} of these for activations; TensorFlow itself takes about 0.6",
    }


def memory(config: PretrainConfig, components: PretrainComponents) -> tuple[int, int]:
    """Estimates the bytes of a replica: (weights, activations).

    weights: with their gradients and the optimizer's state, and `table_bytes`. activations: those of the
    backbone that are stored for the gradient.
    """
    model, views = components.model, components.views
    copies = 4 if config.optimizer == "adamw" else 3
    weights = copies * 4 * model.count_params() + model.table_bytes
    size, replicas = views.augmentation.size, components.strategy.num_replicas_in_sync
    forward = tf.function(lambda x: model.backbone(x, training=True), autograph=False)
    graph = forward.get_concrete_function(tf.TensorSpec([1, size, size, components.source.channels])).graph
    outputs = [op.outputs[0] for op in graph.get_operations() if op.type in _STORED_FOR_GRADIENT]
    count = sum(int(np.prod(t.shape)) for t in outputs if t.shape.is_fully_defined())
    width = 2 if components.metadata["precision"] == "bfloat16" else 4
    return weights, count * width * (config.batch_size // replicas) * views.count
