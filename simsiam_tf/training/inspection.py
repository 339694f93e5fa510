"""The options `preview` and `dry_run`: what a run would do, without training."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path

from simsiam_tf import config as configs
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import Views, preview
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.overview import header_summary
from simsiam_tf.data.sources.unreadable import FIX
from simsiam_tf.nets import whitening
from simsiam_tf.recipes import budget
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import costs, run_memory
from simsiam_tf.training.build_run import PretrainComponents, build_pretraining, knn_every
from simsiam_tf.training.pretraining import late_start, read_size
from simsiam_tf.training.run_data import follow_recipe, open_data


def with_workdir(config: PretrainConfig) -> PretrainConfig:
    """The configuration, with the work folder runs/DATA-BACKBONE, or runs/DATA-auto, where it has none."""
    if config.workdir:
        return config
    network = config.backbone if config.recipe == "none" else "auto"  # not known yet
    name = re.sub(r"[^\w.]+", "-", f"{config.data}-{network}").strip("-")
    return dataclasses.replace(config, workdir=f"runs/{name}")


def write_preview(config: PretrainConfig) -> int:
    """Writes preview.png into the work folder, by default that of `with_workdir`; returns 0.

    Images that cannot be decoded are left out, and named: a preview trains nothing.
    """
    path = _writable(Path(with_workdir(config).workdir or "").expanduser() / "preview.png")
    config, source = follow_recipe(dataclasses.replace(config, on_bad_image="skip"))
    source, views = open_data(config, source=source)
    picture, captions = preview.grid(source, views, config.seed)
    preview.write_picture(path, picture)
    views_text = counted(views.count, "view")
    print(f"{path}: in each row an image of {printable_text(source.name)} and its {views_text}:")
    for row, caption in enumerate(captions, 1):
        print(f"  row {row}  {caption}")
    return 0


def dry_run(config: PretrainConfig) -> int:
    """Prints the options, and the images, steps, parameters and memory of the run; trains nothing. Returns 0.

    Raises:
        UserError: after printing, where unreadable images would end the run.
    """
    report = _writable(Path(config.workdir).expanduser() / "unreadable.json") if config.workdir else None
    given = config.on_bad_image
    config, source = follow_recipe(dataclasses.replace(config, on_bad_image="skip"), report)
    checked = config
    config = dataclasses.replace(config, on_bad_image=given)
    trial = budget.trial(checked) if config.needs_timing else checked
    components = build_pretraining(trial, report, source=source, decodes=False)
    print(configs.to_flags(config))
    for name, value in summarize(config, components).items():
        print(f"{name:22} {value}")
    unreadable = sum(getattr(components.source, "unreadable", {}).values())
    if unreadable and config.on_bad_image == "error":
        raise UserError(
            f"data={config.data}: {unreadable} of its images cannot be decoded, which would end the run "
            f"before it begins. {FIX}"
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
    size, whitened = read_size(config, components), 0
    if size:
        whitened = whitening.read_quarters(model.backbone, size).output_shape[-1]
    steps, described = str(components.total_steps), {}
    if config.needs_timing:
        steps = f"as many as fit into {config.minutes:g} minutes, by a few that are timed at the start"
    else:
        forward = _per_image(costs.multiply_adds, components) * config.batch_size * components.total_steps
        described["work of the backbone"] = costs.work_in_words(forward)
    if teacher := getattr(model, "teacher", None):
        size = f"{teacher.count_params():,} parameters, {counted(model.d, 'feature')}"
        described["teacher"] = f"{config.method_option('teacher')}, {size}"
    late, evaluated = late_start(config, components), "none"
    if monitor:
        every = knn_every(components, config)
        during = (
            f"{counted(monitor.size(config.knn_images), 'image')} every {counted(every, 'epoch')}, "
            if every
            else ""
        )
        last = config.final_images
        at_end = "none" if last == 0 else monitor.size(last)
        evaluated = f"{monitor.title}: {during}{at_end} at the end"
    return {
        "images": f"{source.size} of {source.name}, {counted(source.channels, 'channel')}",
        **(header_summary(source) if isinstance(source, EncodedSource) else {}),
        "views": ", ".join(f"{n} of {size} pixels" for size, n in _sizes(components.views).items()),
        "monitor": evaluated,
        "stem": components.metadata["stem"],
        "initial weights": components.start,
        **described,
        "precision": components.metadata["precision"],
        "replicas": str(components.strategy.num_replicas_in_sync),
        "steps": f"{steps}, {source.size / config.batch_size:.1f} per epoch",
        "learning rate": f"{config.base_lr * config.batch_size / 256:g}, decayed to "
        f"{config.final_lr * config.batch_size / 256:g} on a cosine" + (f". {late}" if late else ""),
        "parameters": f"{model.backbone.count_params():,} backbone, {heads:,} heads{frozen}",
        "memory, estimated": run_memory.estimate(components, config, whitened).in_words(),
    }


def _per_image(cost: Callable[..., int], components: PretrainComponents) -> int:
    """The cost of all views of one image in the backbone."""
    channels, sizes = components.source.channels, _sizes(components.views)
    return sum(n * cost(components.model.backbone, (s, s, channels)) for s, n in sizes.items())


def _sizes(views: Views) -> dict[int, int]:
    """Size in pixels → number of views of an image that have it."""
    return collections.Counter(a.size for a in views.each)
