"""Transfer to detection or segmentation as a run with checkpoints, records and an exported network."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets, optimizers
from simsiam_tf.config import TransferConfig
from simsiam_tf.config.backbones import is_network
from simsiam_tf.data import Views, sampling
from simsiam_tf.dense_tasks import predictions, scores
from simsiam_tf.dense_tasks.annotations import SEGMENTATION, AnnotatedSet
from simsiam_tf.dense_tasks.framing import Framing
from simsiam_tf.dense_tasks.models import MODELS, DenseModel
from simsiam_tf.dense_tasks.square_batches import TrainingBatches
from simsiam_tf.dense_tasks.transfer_images import open_images
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import cached_scores
from simsiam_tf.loop import launch
from simsiam_tf.loop.outcome import Outcome
from simsiam_tf.loop.task import Accuracies, Evaluator, RunComponents
from simsiam_tf.nets.keras_hub_backbones import import_keras_hub
from simsiam_tf.optimizers import schedules
from simsiam_tf.pretrained import backbone_file, keras_hub, published
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training.build_run import set_precision
from simsiam_tf.training.labelled_task import RESULT, LabelledTask
from simsiam_tf.training.run_data import check_batch_size
from simsiam_tf.training.run_optimizer import warmup_steps

log = logging.getLogger("simsiam_tf.run")

FILES = {"detection": Path("export") / "detector.keras", SEGMENTATION: Path("export") / "segmenter.keras"}
EVALUATIONS = 5  # in a run, by default
PICTURES = 8  # training squares that are shown


def run_transfer(config: TransferConfig, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Outcome:
    """Trains a detector or a segmenter, or continues the run.

    Args:
        config: a validated configuration; without a `workdir` it uses `workdir_of(config)`.
        callbacks: Keras callbacks, as for `pretrain`.

    Returns:
        The outcome; when DONE, accuracy[config.task] has the metrics on the test images, in [0, 1].

    Raises:
        UserError: as for `launch.run_task`.
    """
    check_libraries(config)
    config = dataclasses.replace(config, workdir=str(workdir_of(config)))
    return launch.run_task(config, Transfer, callbacks)


def check_libraries(config: TransferConfig) -> None:
    """Raises UserError where a library that the task needs is not installed."""
    import_keras_hub(f"task={config.task}")
    if config.task != SEGMENTATION:
        scores.check_metric(config.metric)


def files_of(task: str) -> dict[str, Path]:
    """The files that a finished run has, within its work folder, by what they are."""
    return {"network": FILES[task], "predictions": predictions.PICTURE, "result": Path(RESULT)}


def workdir_of(config: TransferConfig) -> Path:
    """`workdir`, or else `cached_scores.beside_weights` of TASK, such as WEIGHTS/detection for a work folder.

    TASK is followed by "-random" for random weights, by the share of the images if below 1, and by the seed
    if not 0: "detection-random-0.1-seed2".
    """
    if config.workdir:
        return Path(config.workdir).expanduser()
    assert config.weights is not None
    name = config.task + "-random" * (config.init == "random")
    name += f"-{config.labels:g}" * (config.labels != 1)
    name += f"-seed{config.seed}" * (config.seed != 0)
    return cached_scores.beside_weights(config.weights, name)


@dataclasses.dataclass(frozen=True)
class TestImages:
    """The test images, how squares are cut, and the backbone that the network began with."""

    __test__ = False  # for pytest

    images: AnnotatedSet
    framing: Framing
    pretrained: Pretrained


def build_transfer(
    config: TransferConfig, workers: Workers, report: Path | None = None,
    pretrained: Pretrained | None = None, sets: tuple[AnnotatedSet, AnnotatedSet] | None = None,
) -> tuple[RunComponents, TestImages]:  # fmt: skip
    """The components of a run, and its test.

    report: as for `open_images`. pretrained, sets: the backbone, and training and test images; opened where
    None.
    """
    assert config.weights is not None and config.data is not None
    strategy = workers.strategy
    precision = set_precision(config, strategy)
    if is_network(config.weights):
        with workers.chief_first():  # which downloads it, and copies it into its work folder
            published.import_network(config.weights, config.pixels, config.trust_code)
    with strategy.scope():
        pretrained = pretrained or open_pretrained(config.weights, **config.preprocessing(), finished=False)
    check_backbone(pretrained)
    with workers.chief_first():
        train, test = sets or open_images(config, pretrained, report)
    source: Any = train  # what the loop reads of a source: its name, size and digests
    check_batch_size(source, config.batch_size)
    total = sampling.steps_in(config.epochs, train.size, config.batch_size)
    with strategy.scope():
        rate, factor = learning_rate(config, total, train.size), config.backbone_lr_factor
        slower = {"backbone": learning_rate(config, total, train.size, factor)} if factor != 1.0 else {}
        by_name = {"sgd": optimizers.SGD, "adamw": optimizers.AdamW}[config.optimizer]
        optimizer = by_name(
            rate, part_learning_rates=slower, momentum=config.momentum, weight_decay=config.weight_decay
        )
        keras.utils.set_random_seed(config.seed)
        model = build_model(config, pretrained, len(train.class_names))
        nets.lower_momentum(model.network, total)
        model.compile(optimizer, seed=config.seed)
    framing = Framing(
        config.size, (config.min_scale, config.max_scale), config.flip_p, channels=pretrained.channels
    )
    augmentation = dataclasses.replace(pretrained.augmentation, size=config.size)
    views = Views(augmentation, count=1)
    metadata = {
        "images": train.size, "fingerprint": train.fingerprint, "contents of the images": train.contents(),
        "test images": test.size, "test fingerprint": test.fingerprint,
        "contents of the test images": test.contents(),
        "weights": pretrained.sha256, "precision": precision, "views": dataclasses.asdict(augmentation),
        "classes": list(train.class_names), "pixels": train.pixels,
    }  # fmt: skip

    def make_batches(rows: tuple[int, int], elements: int) -> TrainingBatches:
        masks = config.task == SEGMENTATION
        return TrainingBatches(train, framing, views, masks, config.batch_size, config.seed, rows, elements)

    components = RunComponents(
        workers, source, views, model, total, metadata, make_batches=make_batches, targets=True
    )
    return components, TestImages(test, framing, pretrained)


def check_backbone(pretrained: Pretrained) -> None:
    """Raises UserError for a backbone on which no detector or segmenter can be built."""
    if pretrained.channels not in (1, 3):
        raise UserError(
            f"weights={pretrained.place}: takes images of {counted(pretrained.channels, 'channel')}. Pass a "
            "backbone for colour or gray images."
        )
    keras_hub.check_architecture(pretrained.backbone, f"weights={pretrained.place}")


def build_model(config: TransferConfig, pretrained: Pretrained, classes: int) -> DenseModel:
    """The model on the pre-trained backbone, or on one of the same architecture with random weights."""
    backbone = pretrained.backbone
    if config.init == "random":
        backbone = keras.models.clone_model(backbone)
    encoder = keras_hub.to_keras_hub(backbone, keras.config.dtype_policy())
    model = MODELS[config.task](encoder, classes, config.size, config.freeze)
    nets.synchronise(model.network)
    return model


def learning_rate(
    config: TransferConfig, total_steps: int, images: int, factor: float = 1.0
) -> schedules.Schedule:
    """The learning rate, times a factor, of a run of so many steps. images: number of images in an epoch."""
    base = factor * schedules.scaled(config.base_lr, config.batch_size)
    warmup = warmup_steps(config, total_steps, images)
    if config.schedule == "cosine":
        return schedules.cosine(base, total_steps, warmup)
    return schedules.steps(base, [round(share * total_steps) for share in config.falls()], warmup)


class TestScores(Evaluator):
    """Adds the metrics on the test images to the logs of every n-th epoch."""

    __test__ = False  # for pytest

    def __init__(self, task: Transfer, every: int) -> None:
        super().__init__(every)
        self.task = task

    def evaluate(self) -> dict[str, float]:
        return self.task.scores()


class Transfer(LabelledTask):
    """Detection or segmentation; the progress bar shows a training metric and a test metric."""

    def __init__(self, config: TransferConfig, workers: Workers, report: Path) -> None:
        components, test = build_transfer(config, workers, report)
        super().__init__(config, components)
        assert isinstance(components.model, DenseModel)
        self.model, self.test, self.framing = components.model, test.images, test.framing
        self.pretrained = test.pretrained
        self.trained_name = config.task
        self.metric_name = self.metric_label = self.model.metric_name
        self.evaluation_name = "AP50" if config.task != SEGMENTATION else "mIoU"
        self.evaluation_label = f"test {self.evaluation_name}"
        self.exported_file = FILES[config.task]
        every = config.eval_every
        self.evaluator = TestScores(self, math.ceil(config.epochs / EVALUATIONS) if every is None else every)

    def picture(self) -> np.ndarray:
        """Training squares with their boxes or masks."""
        assert self.components.make_batches is not None
        shown = min(PICTURES, self.config.batch_size)
        (batch,) = self.components.make_batches((0, shown), 1).dataset(0, 1)
        return predictions.training_picture(batch, self.components.views, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return tuple(self.components.metadata["classes"])

    def scores(self) -> dict[str, float]:
        """The metrics on the test images."""
        return scores.evaluate(
            self.model, self.test, self.framing, self.components.views, self.components.workers,
            self.config.metric,
        )  # fmt: skip

    def final_accuracies(self) -> Accuracies:
        log.warning("%s on %d images of %s", self.evaluation_name, self.test.size, self.test.name)
        return {self.trained_name: self.scores()}

    def export(self, workdir: Path, metadata: dict) -> None:
        """Exports a picture of predictions, and the detector or segmenter, which keras-hub opens."""
        shown = predictions.test_pictures(
            self.model, self.test, self.framing, self.components.views, self.names
        )
        predictions.write_shown(workdir, shown)
        card = {
            **metadata, "classes": list(self.names), "test": self.test.name,
            "init": self.config.init,
            "weights": {"path": self.pretrained.place, "sha256": self.pretrained.sha256},
        }  # fmt: skip
        # Last, since its card marks the run as exported.
        backbone_file.export_network(self.model.network, workdir, card, self.exported_file)

    @property
    def what(self) -> str:
        return self.config.task
