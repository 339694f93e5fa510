"""The options `preview` and `dry_run`, which show a run without training."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simsiam_tf import config as configs
from simsiam_tf.config import PretrainConfig
from simsiam_tf.config.backbones import is_network
from simsiam_tf.data import Source, Views, preview
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.overview import header_summary
from simsiam_tf.data.sources.unreadable import FIX
from simsiam_tf.evaluate.knn_monitor import Monitor
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.nets import whitening
from simsiam_tf.recipes import budget
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError, as_flags
from simsiam_tf.training import costs, run_memory
from simsiam_tf.training.build_run import PretrainComponents, build_pretraining, knn_every
from simsiam_tf.training.pretraining import late_start, read_size
from simsiam_tf.training.run_data import follow_recipe, open_data


def with_workdir(config: PretrainConfig) -> PretrainConfig:
    """The configuration with a work folder: runs/DATA-BACKBONE[-METHOD], or runs/DATA-auto[-METHOD].

    The method is part of the name only where it is given.
    """
    if config.workdir:
        return config
    network = config.backbone if config.recipe == "none" else "auto"  # not known yet
    method = "" if config.is_free("method") else config.method
    name = re.sub(r"[^\w.]+", "-", f"{config.data}-{network}-{method}").strip("-")
    return dataclasses.replace(config, workdir=f"runs/{name}")


def write_preview(config: PretrainConfig) -> int:
    """Writes preview.png into the work folder, by default that of `with_workdir`; returns 0.

    Images that cannot be decoded are left out, and named: a preview trains nothing.
    """
    path = _writable(Path(with_workdir(config).workdir or "").expanduser() / "preview.png")
    config, source = follow_recipe(_skipping(config))
    source, views = open_data(config, source=source)
    picture, captions = preview.grid(source, views, config.seed)
    preview.write_picture(path, picture)
    views_text = counted(views.count, "view")
    print(f"{path}: in each row an image of {printable_text(source.name)} and its {views_text}:")
    for row, caption in enumerate(captions, 1):
        print(f"  row {row}  {caption}")
    return 0


def dry_run(config: PretrainConfig) -> int:
    """Prints images, network, steps, time and memory of the run, and its options; trains nothing. Returns 0.

    Of the options, it prints those that the recipe chose, and those that differ from their defaults.

    Raises:
        UserError: after printing, where unreadable images would end the run.
    """
    report = _writable(Path(config.workdir).expanduser() / "unreadable.json") if config.workdir else None
    on_bad_image = config.on_bad_image
    choices: list[str] = []
    config, source = follow_recipe(_skipping(config), report, tell=choices.append)
    trial = budget.trial(config) if config.needs_timing else config
    config = dataclasses.replace(config, on_bad_image=on_bad_image)
    components = build_pretraining(trial, report, source=source, decodes=False)
    for name, value in summarize(config, components).items():
        print(f"{name:22} {value}")
    for text in choices:
        print(f"\n{text}")
    print("\noptions that differ from their defaults (--help lists all):")
    print(configs.to_flags(config, changed=True), end="")
    unreadable = sum(getattr(components.source, "unreadable", {}).values())
    if unreadable and config.on_bad_image == "error":
        raise UserError(
            f"data={config.data}: {unreadable} of its images cannot be decoded, which would end the run "
            f"before it begins. {FIX}"
        )
    return 0


def _skipping(config: PretrainConfig) -> PretrainConfig:
    """The configuration with on_bad_image=skip, if its images are encoded, which may be unreadable."""
    skips = configs.is_encoded(config.data)
    return dataclasses.replace(config, on_bad_image="skip") if skips else config


def _writable(path: Path) -> Path:
    """Makes the folder for a file; returns the file. Raises UserError where it could not be written."""
    atomic_files.check_writable(path, "workdir", folders=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def summarize(config: PretrainConfig, components: PretrainComponents) -> dict[str, str]:
    """The properties of a run in words, by name, in the order in which they are printed."""
    model, source, monitor = components.model, components.source, components.monitor
    images = {
        "images": f"{source.size} of {source.name}, {counted(source.channels, 'channel')}",
        **(header_summary(source) if isinstance(source, EncodedSource) else {}),
        "labels": _labels_in_words(source),
    }
    if config.trains_nothing:
        reads = read_size(config, components) or components.views.augmentation.size
        return images | {
            "network": f"{config.backbone}, {components.start}; {model.backbone.count_params():,} parameters",
            "steps": f"none; images are read at {reads} pixels",
            "monitor": _monitor_in_words(monitor, config, components),
            "precision": components.metadata["precision"],
        }
    heads = model.count_params() - model.backbone.count_params()
    trained = sum(math.prod(v.shape) for v in model.backbone.trainable_variables)
    frozen = f"; {trained:,} of the backbone's are trained" if config.freeze_until else ""
    size, whitened = read_size(config, components), 0
    if size:
        whitened = whitening.read_quarters(model.backbone, size).output_shape[-1]
    per_epoch, described = f"{source.size / config.batch_size:.1f} per epoch", {}
    if config.needs_timing:
        steps = f"as many as fit into {config.minutes:g} minutes, by a few that are timed at the start"
        time = f"{config.minutes:g} minutes, from the start of the command to its end"
    else:
        steps, time = str(components.total_steps), "that of the steps, not known before some have run"
        if config.minutes is not None:
            time = f"{config.minutes:g} minutes, for which the steps were chosen"
        else:
            time += "; `minutes` sets it"
        forward = _per_image(costs.multiply_adds, components) * config.batch_size * components.total_steps
        described["work of the backbone"] = costs.work_in_words(costs.PASSES * forward)
    if teacher := getattr(model, "teacher", None):
        size = f"{teacher.count_params():,} parameters, {counted(model.d, 'feature')}"
        described["teacher"] = f"{config.method_option('teacher')}, {size}"
    width = f", width {config.width:g}" if config.width != 1.0 else ""
    late = late_start(config, components)
    return images | {
        "network": f"{config.backbone}{width}, {components.start}; {model.backbone.count_params():,} "
        f"parameters, {heads:,} of the heads{frozen}",
        "views": ", ".join(f"{n} of {size} pixels" for size, n in _sizes(components.views).items()),
        "steps": f"{steps}, {per_epoch}",
        "time": as_flags(time, ("minutes",)),
        "memory, estimated": run_memory.estimate(components, config, whitened).in_words(),
        "monitor": _monitor_in_words(monitor, config, components),
        **described,
        "learning rate": f"{config.base_lr * config.batch_size / 256:g}, decayed to "
        f"{config.final_lr * config.batch_size / 256:g} on a cosine" + (f". {late}" if late else ""),
        **({} if is_network(config.backbone) else {"stem": components.metadata["stem"]}),
        "precision": components.metadata["precision"],
        "replicas": str(components.strategy.num_replicas_in_sync),
    }


def _labels_in_words(source: Source) -> str:
    if source.labels is None:
        return "none found; none are needed"
    classes = len(source.class_names) or len(np.unique(np.asarray(source.labels)))
    names = ", ".join(source.class_names[:4]) + ", …" * (len(source.class_names) > 4)
    return f"{classes} classes{f' ({names})' if names else ''}, which only the monitor uses"


def _monitor_in_words(
    monitor: Monitor | LabelFreeMonitor | None, config: PretrainConfig, components: PretrainComponents
) -> str:
    if monitor is None:
        return "none"
    every = 0 if config.trains_nothing else knn_every(components, config)
    images = counted(monitor.size(config.knn_images), "image")
    during = f"{images} every {counted(every, 'epoch')}, " if every else ""
    at_end = "none" if config.final_images == 0 else str(monitor.size(config.final_images))
    if config.needs_timing and config.final_images is None:
        at_end = "as many as a tenth of the time allows"
    return f"{monitor.title}: {during}{at_end} at the end"


def _per_image(cost: Callable[..., int], components: PretrainComponents) -> int:
    """The cost of all views of one image. cost: (backbone, [H, W, C]) → its cost for one view."""
    channels, sizes = components.source.channels, _sizes(components.views)
    return sum(n * cost(components.model.backbone, (s, s, channels)) for s, n in sizes.items())


def _sizes(views: Views) -> dict[int, int]:
    """Size in pixels → number of views of an image that have it."""
    return collections.Counter(a.size for a in views.each)
