"""Looking before training: `preview` and `dry_run`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf import config as configs
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import preview
from simsiam_tf.distributed import strategies
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training.build_run import PretrainComponents, build_pretraining, knn_every, open_data

_KEPT_FOR_GRADIENT = {"Conv2D", "FusedBatchNormV3", "Relu", "MatMul", "Pad", "MaxPool"}


def with_workdir(config: PretrainConfig) -> PretrainConfig:
    """The configuration with a work folder: runs/DATA-BACKBONE where none is given."""
    if config.workdir:
        return config
    name = re.sub(r"[^\w.]+", "-", f"{config.data}-{config.backbone}").strip("-")
    return dataclasses.replace(config, workdir=f"runs/{name}")


def write_preview(config: PretrainConfig) -> int:
    """Writes preview.png into the work folder, or the current one where none is given."""
    folder = Path(config.workdir or ".").expanduser()
    path = folder / "preview.png"
    _make_folder(folder)
    atomic_files.check_writable(path, "workdir")
    source, views = open_data(config)
    preview.write_picture(path, preview.grid(source, views, config.seed))
    print(f"{path}: a row an image of {source.name}; first the image, then its {views.count} views")
    return 0


def dry_run(config: PretrainConfig) -> int:
    """Prints the resolved configuration, steps, parameters and memory; trains nothing."""
    report = Path(config.workdir).expanduser() / "unreadable.json" if config.workdir else None
    if report:
        _make_folder(report.parent)
        atomic_files.check_writable(report, "workdir")
    parts = build_pretraining(config, report)
    print(configs.to_flags(config))
    for name, value in facts(config, parts).items():
        print(f"{name:22} {value}")
    return 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"workdir={folder}: cannot be written ({error.strerror}). Choose another place."
        ) from error


def facts(config: PretrainConfig, parts: PretrainComponents) -> dict[str, str]:
    """What a run would be, in words."""
    model = parts.model
    heads = model.count_params() - model.backbone.count_params()
    held, activations = memory(config, parts)
    monitor = parts.monitor
    return {
        "images": f"{parts.source.size} of {parts.source.name}, {parts.source.channels} channels",
        "views": f"{parts.views.count} of {parts.views.augmentation.size} pixels",
        "monitor": _monitored(config, parts) if monitor else "none (no labels)",
        "stem": parts.metadata["stem"],
        "begins with": parts.start,
        "precision": parts.precision,
        "replicas": str(parts.strategy.num_replicas_in_sync),
        "steps": f"{parts.total_steps}, {parts.source.size / config.batch_size:.1f} an epoch",
        "learning rate": f"{config.base_lr * config.batch_size / 256:g}, decayed to "
        f"{config.final_lr * config.batch_size / 256:g} on a cosine",
        "parameters": f"{model.backbone.count_params():,} backbone, {heads:,} heads",
        "memory, estimated": f"{(held + activations) / 2**30:.2f} GiB a replica, "
        f"{activations / 2**30:.2f} of it activations; TensorFlow itself about 0.6",
    }


def _monitored(config: PretrainConfig, parts: PretrainComponents) -> str:
    every = knn_every(parts, config)
    during = f"{parts.monitor.size(config.knn_images)} every {every} epochs, " if every else ""
    return f"labelled images: {during}{parts.monitor.size()} at the end"


def memory(config: PretrainConfig, parts: PretrainComponents) -> tuple[int, int]:
    """Bytes a replica of (weights, gradients and momentum; activations kept for the gradient)."""
    held = 3 * 4 * parts.model.count_params()
    if config.average is not None:
        held += 4 * parts.source.size * config.d // len(strategies.local_devices())
    size, rows = parts.views.augmentation.size, config.batch_size // parts.strategy.num_replicas_in_sync
    shape = [1, size, size, parts.source.channels]
    forward = tf.function(lambda x: parts.model.backbone(x, training=True), autograph=False)
    graph = forward.get_concrete_function(tf.TensorSpec(shape)).graph
    kept = [op.outputs[0] for op in graph.get_operations() if op.type in _KEPT_FOR_GRADIENT]
    count = sum(int(np.prod(t.shape)) for t in kept if t.shape.is_fully_defined())
    width = 2 if parts.precision == "bfloat16" else 4
    return held, count * width * rows * parts.views.count
