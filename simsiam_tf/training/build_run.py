"""Builds the components of a pre-training from its configuration: data, views, model, optimizer, monitor."""

from __future__ import annotations

import dataclasses
import pkgutil
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.config import PretrainConfig, method_row
from simsiam_tf.config.backbones import parse_backbone
from simsiam_tf.config.run import RunConfig
from simsiam_tf.data import Augmentation, Source, sampling
from simsiam_tf.data.service import client
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.step_compilation import compilation_on
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.knn_monitor import Monitor, epochs_between, open_monitor
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.methods import RunSize, SiameseModel
from simsiam_tf.methods.metrics import all_finite
from simsiam_tf.methods.python_method import import_method
from simsiam_tf.nets import layer_order
from simsiam_tf.pretrained import backbone_file, initial_weights
from simsiam_tf.pretrained.teacher import network_on_views, open_teacher
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training.run_data import (
    check_batch_size,
    check_local_views,
    check_network,
    check_read_size,
    keep_in_memory,
    open_data,
)
from simsiam_tf.training.run_optimizer import build_optimizer


@dataclasses.dataclass
class PretrainComponents(RunComponents):
    """The components of a pre-training.

    monitor: the kNN monitor, or that without labels; None: no monitor. start: the initial weights, in words.
    build_seconds: seconds that building the model took. momenta: result of `nets.lower_momentum`.
    """

    monitor: Monitor | LabelFreeMonitor | None = None
    start: str = "random weights"
    build_seconds: float = 0.0
    momenta: tuple[float, float] | None = None


def build_pretraining(
    config: PretrainConfig,
    report: Path | None = None,
    workers: Workers | None = None,
    source: Source | None = None,
    decodes: bool = True,
) -> PretrainComponents:
    """Builds all components of a pre-training; quick checks come first.

    Args:
        config: a validated configuration.
        report: file for the names of unreadable images, in the work folder.
        workers: processes of the run; when None, those of the option `strategy`. Several workers can be
            joined only before anything else uses TensorFlow.
        source: the images to use instead of config.data.
        decodes: whether to decode the images that a training keeps in memory, which takes a while.

    Raises:
        UserError: the options, the devices, the data or the weights do not fit.
    """
    workers = workers or Workers(strategies.strategy_by_name(config.strategy, config.join_minutes))
    strategy = workers.strategy
    precision = set_precision(config, strategy)
    with workers.chief_first():  # the chief downloads weights first
        known = check_network(config)
    config = dataclasses.replace(config, channels=config.channels or known.channels)
    if config.data_service:
        client.check_service(config.data_service)
    with workers.chief_first():  # the other workers need not download or check again
        source, views = open_data(config, report, source)
        if not config.trains_nothing:
            check_batch_size(source, config.batch_size)
        if config.data_service:
            client.check_source(config.data_service, source)
        else:
            source = keep_in_memory(config, source, decodes)
        monitor = open_monitor(
            config.monitor,
            config.monitor_queries,
            views,
            source,
            config.data,
            config.source_options(),
            workers,
        )
    total_steps = sampling.steps_in(config.epochs, source.size, config.batch_size)
    began = time.perf_counter()
    with strategy.scope():
        optimizer = build_optimizer(config, max(total_steps, 1), source.size)
        teacher, metadata = build_teacher(config, views.augmentation, source.channels)
        model = build_model(
            config, source.channels, views.augmentation.size, total_steps, source.size, teacher
        )
        check_local_views(config, model.backbone, views.each[-1].size)
        check_read_size(config, model.backbone)
        model.compile(optimizer, seed=config.seed)
        model.augmentation = views.augmentation
        first_step, start = start_from_weights(model, config, source.size)
        steps = total_steps - first_step
        momenta = nets.lower_momentum(model.backbone, steps) if steps else None
    built = time.perf_counter()
    place = initial_weights.stored_network(config) if config.trains_nothing else config.weights
    if place:
        metadata["weights"] = backbone_file.sha256(backbone_file.backbone_path(place))
    if config.trains_nothing:
        stored = initial_weights.describe_stored(config.weights, known) if config.weights else known
        metadata |= {"license": stored.licence} if stored.licence else {}
        if not all_finite(model.backbone.variables):
            raise UserError(
                f"{place or config.backbone}: has weights that are no finite numbers, so that its features "
                "would be none. Pass weights that are intact."
            )
    metadata |= {
        "images": source.size, "fingerprint": source.fingerprint,
        "contents of the images": source.contents(), "precision": precision,
        "stem": config.stem_for(views.augmentation.size), "views": dataclasses.asdict(views.augmentation),
    }  # fmt: skip
    if isinstance(source, EncodedSource):
        metadata["pixels"] = source.rule.options()
    if isinstance(monitor, Monitor):
        metadata["the monitor's images"] = [s.contents() for s in (monitor.bank, monitor.queries)]
    return PretrainComponents(
        workers, source, views, model, total_steps, metadata,
        strategies.augments_on_device(strategy, config.augment_on), config.data_service, first_step,
        monitor=monitor, start=start, build_seconds=built - began, momenta=momenta,
    )  # fmt: skip


def set_precision(config: RunConfig, strategy: tf.distribute.Strategy) -> str:
    """Checks the number of replicas and `jit_compile`, sets the precision and returns its name.

    Raises:
        UserError: the replicas do not divide `batch_size`, or are too many for jit_compile=true.
    """
    replicas, batch_size = strategy.num_replicas_in_sync, config.batch_size
    if batch_size is not None and batch_size % replicas:
        raise UserError(
            f"batch_size={batch_size} does not divide over {replicas} replicas. "
            f"Try batch_size={max(1, batch_size // replicas) * replicas} or strategy=one_device."
        )
    compilation_on(strategy, config.jit_compile)
    return strategies.set_precision(config.precision)


def build_teacher(
    config: PretrainConfig, augmentation: Augmentation, channels: int
) -> tuple[keras.Model | None, dict[str, Any]]:
    """Opens the teacher: (its network, views → features; metadata with the digest of its file).

    (None, {}) without a teacher. augmentation, channels: those of the views.
    """
    place, pixels, size = map(config.method_option, ("teacher", "teacher_pixels", "teacher_size"))
    if not place:
        return None, {}
    teacher = open_teacher(place, pixels, config.trust_code)
    return network_on_views(teacher, augmentation, channels, size), {"teacher": teacher.sha256}


def build_model(
    config: PretrainConfig,
    channels: int,
    size: int,
    steps: int = 10_000,
    images: int = 10_000,
    teacher: keras.Model | None = None,
) -> SiameseModel:
    """The model of a configuration, with weights from the option `weights` or else drawn from the seed.

    channels, size: those of the views. steps, images: size of the run, on which some methods depend.
    teacher: as by `build_teacher`, for a method that has one.
    """
    keras.utils.set_random_seed(config.seed)
    backbone = nets.build_backbone(
        config.backbone, size, channels, config.stem_for(size), config.width, pixels=config.pixels,
        trust_code=config.trust_code,
    )  # fmt: skip
    if config.freeze_until:
        layer_order.freeze_until(backbone, config.freeze_until)
    nets.synchronise(backbone)
    row, options = method_row(config.method), dataclasses.asdict(config.method_options)
    variant = next((name for name in row.variants if options[name] is not None), None)
    apart = row.variants.keys() - {variant} | {"local_size", "local_crop_area"}  # `open_data` reads these
    options = {name: value for name, value in options.items() if name not in apart}
    options |= {"teacher": teacher} if "teacher" in options else {}
    widths = ["d", "projector_hidden", "projector_layers"] + ["predictor_hidden"] * (config.h != "none")
    options |= {name: getattr(config, name) for name in widths}
    epoch_steps = max(1, round(steps / (config.epochs or 1)))
    run = RunSize(max(steps, 1), epoch_steps, images, config.seed)
    path = row.variants[variant] if variant else row.model
    is_python = config.method.startswith("py:")
    model_class = import_method(path) if is_python else pkgutil.resolve_name(path)
    model = model_class.from_options(backbone, options, run)
    if config.weights:
        initial_weights.copy_networks(model, config.weights, config.weights_heads)
    return model


def start_from_weights(model: SiameseModel, config: PretrainConfig, images: int) -> tuple[int, str]:
    """Sets the optimizer's step and momentum to those of `start_epoch`.

    images: number of images in an epoch.

    Returns:
        (the first step, the initial weights in words, as for `PretrainComponents.start`).
    """
    if not config.weights:
        published = parse_backbone(config.backbone).weights
        return 0, {None: "random weights", "weights": "its own weights"}.get(
            published, f"{published} weights"
        )
    started = [name for name in ("backbone", *backbone_file.HEADS) if name in model.started]
    left_out = f" (left out: {model.left_out})" if model.left_out else ""
    heads = "" if len(started) > 1 else ", heads at random"
    words = f"{', '.join(started)} of {config.weights}{left_out}{heads}"
    if not config.start_epoch:
        return 0, words
    step = sampling.steps_in(config.start_epoch, images, config.batch_size)
    has_momentum = initial_weights.copy_momentum(model, config.weights, started)
    model.optimizer.iterations.assign(step)
    momentum = "their momentum" if has_momentum else "momentum 0"
    return step, f"{words}, {momentum}, epoch {config.start_epoch:g}"


def untrained_backbone(config: PretrainConfig, components: RunComponents) -> keras.Model:
    """Builds the backbone again, with its initial weights."""
    source, size = components.source, components.views.augmentation.size
    with components.strategy.scope():
        teacher = getattr(components.model, "teacher", None)
        model = build_model(config, source.channels, size, components.total_steps, source.size, teacher)
        return model.backbone


def knn_every(components: PretrainComponents, config: PretrainConfig) -> int:
    """Epochs between evaluations by the monitor: the option `knn_every`, or its default for the data.

    0: no evaluations.
    """
    if config.knn_every is not None or components.monitor is None:
        return config.knn_every or 0
    monitor, views = components.monitor, components.source.size * components.views.count
    return epochs_between(monitor.size(config.knn_images) * monitor.views_per_image, views)
