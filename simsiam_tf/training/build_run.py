"""From a configuration to the parts of a run: data, views, model, optimizer, monitor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import tensorflow as tf

from simsiam_tf import nets, optimizers
from simsiam_tf.config import METHODS, PretrainConfig, RunConfig
from simsiam_tf.data import (
    AUGMENTATIONS,
    Augmentation,
    Source,
    Views,
    augmentation_for,
    open_source,
    sampling,
)
from simsiam_tf.data.service import client
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.knn_monitor import Monitor, epochs_between, open_monitor
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.methods import SYMMETRY, SiameseModel, ViewModel
from simsiam_tf.optimizers import schedules
from simsiam_tf.pretrained import backbone_file, initial_weights
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_method


@dataclasses.dataclass
class PretrainComponents(RunComponents):
    """The parts of a pre-training run. start: what it begins with, in words."""

    monitor: Monitor | None = None
    start: str = "random weights"


def open_data(config: PretrainConfig, report: Path | None = None) -> tuple[Source, Views]:
    """The images and their augmentation. report: file for names of unreadable images."""
    source = open_source(
        config.data, "train", config.data_dir, config.on_bad_image, report, config.max_megapixels
    )
    check_size(source, config.batch_size)
    name = augmentation_for(source) if config.augmentation == "auto" else config.augmentation
    augmentation = AUGMENTATIONS[name]
    if len(augmentation.mean) > source.channels:
        raise UserError(
            f"augmentation={name}: is for colour, but {source.name} has one channel. Try "
            "augmentation=grayscale."
        )
    strength = config.jitter
    changes = {
        "size": config.image_size or _own_size(source, augmentation.size),
        "area": (config.crop_area or augmentation.area[0], augmentation.area[1]),
        "jitter": augmentation.jitter if strength is None else (strength, strength, strength, strength / 4),
        "blur_p": augmentation.blur_p if config.blur_p is None else config.blur_p,
        "solarize_p": augmentation.solarize_p if config.solarize_p is None else config.solarize_p,
        "flip_p": augmentation.flip_p if config.flip_p is None else config.flip_p,
        **nets.BACKBONES[config.backbone].pixel_rule,
    }
    count = 1 + max(max(pair) for pair in SYMMETRY[config.symmetry])
    return source, views_of(config, dataclasses.replace(augmentation, **changes), count)


def views_of(config: RunConfig, augmentation: Augmentation, count: int) -> Views:
    """The views of a run. config: jit_compile is read."""
    return Views(augmentation, count, xla=False if config.jit_compile == "false" else None)


def check_size(source: Source, batch_size: int) -> None:
    """Raises UserError where a batch is larger than the data set."""
    if source.size < 2:
        raise UserError(f"{source.name}: has {source.size} image, and a batch needs two. Give more images.")
    if batch_size > source.size:
        raise UserError(
            f"batch_size={batch_size}: larger than {source.name}, which has "
            f"{source.size} images. Try batch_size={2 ** (source.size.bit_length() - 1)}."
        )


def _own_size(source: Source, size: int) -> int:
    """Small images of one size keep it; others get the augmentation's."""
    images = getattr(source, "images", None)
    return images.shape[1] if images is not None and images.shape[1] <= 64 else size


def stem_for(config: PretrainConfig, size: int) -> str:
    """`stem`, with "auto" resolved by the size of the views."""
    return config.stem if config.stem != "auto" else "cifar" if size <= 64 else "imagenet"


def build_model(
    config: PretrainConfig, channels: int, size: int, length: build_method.Length = build_method.LONG
) -> SiameseModel:
    """The model of a configuration, its weights drawn from the seed, or those that `weights` has.

    channels, size: of the views. length: of the run.
    """
    keras.utils.set_random_seed(config.seed)
    backbone = nets.build_backbone(config.backbone, size, channels, stem_for(config, size), config.width)
    model = build_method.model(config, backbone, length)
    if config.weights:
        initial_weights.copy_networks(model, config.weights, config.weights_heads)
    return model


def beginning(model: SiameseModel, config: PretrainConfig, images: int) -> tuple[int, str]:
    """(the first step, what the run begins with in words); the optimizer is brought to that step."""
    if not config.weights:
        return 0, "random weights"
    parts = [name for name in ("backbone", *backbone_file.HEADS) if name in model.started]
    words = f"{', '.join(parts)} of {config.weights}{'' if len(parts) > 1 else ', heads at random'}"
    if not config.start_epoch:
        return 0, words
    step = sampling.steps_in(config.start_epoch, images, config.batch_size)
    has = initial_weights.copy_momentum(model, config.weights, parts)
    model.optimizer.iterations.assign(step)
    return step, f"{words}, {'their momentum' if has else 'momentum 0'}, epoch {config.start_epoch:g}"


def _initial_model(config: PretrainConfig, source: Source, views: Views) -> SiameseModel:
    steps = sampling.steps_in(config.epochs, source.size, config.batch_size)
    length = build_method.Length(steps, source.size)
    return build_model(config, source.channels, views.augmentation.size, length)


def untrained_backbone(config: PretrainConfig, parts: PretrainComponents) -> keras.Model:
    """The backbone as it was before the first step, made anew."""
    with parts.strategy.scope():
        return _initial_model(config, parts.source, parts.views).backbone


def knn_every(parts: PretrainComponents, config: PretrainConfig) -> int:
    """Epochs between the monitor's evaluations: `knn_every`, or its default for this data."""
    if config.knn_every is not None or parts.monitor is None:
        return config.knn_every or 0
    return epochs_between(parts.monitor.size(config.knn_images), parts.source.size * parts.views.count)


def decaying(
    config: RunConfig, total_steps: int, size: int, factor: float = 1.0, **options
) -> schedules.Cosine:
    """A run's learning rate times `factor`, on a cosine after its warm-up.

    size: images of an epoch. **options: of `schedules.Cosine`.
    """
    warmup = int(config.warmup_epochs * size) // config.batch_size
    base = schedules.scaled(config.base_lr, config.batch_size)
    return schedules.cosine(base * factor, total_steps, warmup, **options)


def compiled(model: ViewModel, optimizer: optimizers.SGD, config: RunConfig) -> ViewModel:
    """The model with its optimizer, whose variables are made now."""
    model.compile(optimizer, jit_compile=config.jit_compile == "true")
    optimizer.build(model.learned_variables())
    return model


def build_optimizer(config: PretrainConfig, total_steps: int, size: int) -> optimizers.SGD:
    """SGD or LARS on a cosine, with rates of their own for h where asked, and for SwAV's prototypes."""
    final, factor = schedules.scaled(config.final_lr, config.batch_size), config.predictor_lr_factor
    hold = max(1, round(size / config.batch_size)) if config.lr_update == "epoch" else 1
    decayed = decaying(config, total_steps, size, final=final, hold=hold)
    overrides = {}
    if config.predictor_lr == "constant":  # Table 1 c
        overrides["predictor"] = schedules.constant(decayed.base * factor)
    elif factor != 1.0:
        overrides["predictor"] = decaying(config, total_steps, size, factor, final=final * factor, hold=hold)
    if config.method == "swav" and config.frozen_prototypes:
        frozen = int(config.frozen_prototypes * size) // config.batch_size
        overrides["prototypes"] = schedules.after(frozen, decayed)
    if config.optimizer == "lars":
        more = METHODS[config.method].lars
        return optimizers.LARS(decayed, config.momentum, config.weight_decay, overrides, **more)
    return optimizers.SGD(decayed, config.momentum, config.weight_decay, overrides)


def build_pretraining(
    config: PretrainConfig, report: Path | None = None, workers: Workers | None = None
) -> PretrainComponents:
    """Builds every part; cheap checks come before long work.

    workers: of the run; made by `strategy` when None, which has to happen before anything else
    that uses TensorFlow.
    """
    workers = workers or Workers(strategies.strategy_by_name(config.strategy, config.join_minutes))
    strategy = workers.strategy
    if config.weights:
        loaded = backbone_file.load_backbone(config.weights)  # before the data, which may take long
        del loaded
    precision = arithmetic(config, strategy)
    if config.data_service:
        client.check_service(config.data_service)
    with workers.chief_first():  # what it downloads or checks, the others find done
        source, views = open_data(config, report)
        if config.data_service:
            client.check_source(config.data_service, source)
        monitor = open_monitor(
            config.monitor, config.monitor_queries, views, source, config.data, config.data_dir, workers
        )
    total = sampling.steps_in(config.epochs, source.size, config.batch_size)
    with strategy.scope():
        optimizer = build_optimizer(config, total, source.size)
        model = compiled(_initial_model(config, source, views), optimizer, config)
        first_step, start = beginning(model, config, source.size)
    facts = {
        "images": source.size, "fingerprint": source.fingerprint,
        "contents of the images": source.contents(), "precision": precision,
        "stem": stem_for(config, views.augmentation.size), "views": dataclasses.asdict(views.augmentation),
    }  # fmt: skip
    if monitor is not None:
        facts["the monitor's images"] = [part.contents() for part in (monitor.bank, monitor.queries)]
    on_device = strategies.augments_on_device(strategy, config.augment_on)
    return PretrainComponents(
        strategy,
        source,
        views,
        model,
        total,
        precision,
        on_device,
        facts,
        workers,
        config.data_service,
        first_step,
        monitor,
        start,
    )


def arithmetic(config: RunConfig, strategy: tf.distribute.Strategy) -> str:
    """Sets the precision, and returns its name. Raises UserError for what the devices cannot do."""
    replicas = strategy.num_replicas_in_sync
    strategies.check_batch(strategy, config.batch_size)
    if config.jit_compile == "true" and replicas > 1:
        raise UserError(f"jit_compile=true: not supported on {replicas} replicas. Pass jit_compile=auto.")
    return strategies.set_precision(config.precision)
