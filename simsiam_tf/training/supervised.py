"""Linear evaluation and fine-tuning as runs with checkpoints, records and an exported classifier."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from simsiam_tf import nets, optimizers
from simsiam_tf.config import FinetuneConfig, LinearConfig, SupervisedConfig
from simsiam_tf.config.backbones import is_network
from simsiam_tf.data import Views, sampling, subset
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.decoded import keep_decoded
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import cached_scores
from simsiam_tf.evaluate.knn_monitor import epochs_between
from simsiam_tf.evaluate.label_splits import Splits, all_labels, balanced
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model
from simsiam_tf.loop import launch
from simsiam_tf.loop.outcome import Outcome
from simsiam_tf.loop.task import Accuracies, RunComponents, add_accuracy_to_card
from simsiam_tf.nets import layer_order
from simsiam_tf.optimizers import schedules
from simsiam_tf.pretrained import backbone_file, published
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.training.build_run import set_precision
from simsiam_tf.training.callbacks import Accuracy
from simsiam_tf.training.labelled_task import LabelledTask
from simsiam_tf.training.run_data import check_batch_size
from simsiam_tf.training.run_optimizer import cosine_schedule, optimizer_by_name

log = logging.getLogger("simsiam_tf.run")

CLASSIFIER = Path("export") / "classifier.keras"


def run_supervised(config: SupervisedConfig, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Outcome:
    """Runs linear evaluation (`LinearConfig`) or fine-tuning (`FinetuneConfig`), or continues the run.

    Args:
        config: a validated configuration; without a `workdir` it uses `workdir_of(config)`.
        callbacks: Keras callbacks, as for `pretrain`.

    Returns:
        The outcome; when DONE, accuracy["classifier"] has "top1" on the test images, in [0, 1], and
        of more than five classes "top5".

    Raises:
        UserError: as for `launch.run_task`.
    """
    config = dataclasses.replace(config, workdir=str(workdir_of(config)))
    return launch.run_task(config, Supervised, callbacks, _recall)


def _recall(config: SupervisedConfig, before: dict[str, Any] | None) -> SupervisedConfig:
    """Fills in the batch size that the earlier run in config.workdir chose."""
    if config.batch_size is not None or not before or "batch_size" not in before:
        return config
    return dataclasses.replace(config, batch_size=before["batch_size"])


def workdir_of(config: SupervisedConfig) -> Path:
    """The option `workdir`, or else a folder beside the weights (`cached_scores.beside_weights`).

    Its name is "linear" or "finetune", then "-random" for random weights, then the share of labels if it is
    below 1: runs/x/finetune-random-0.1 for the weights of runs/x.
    """
    if config.workdir:
        return Path(config.workdir).expanduser()
    assert config.weights is not None
    name = "linear" if isinstance(config, LinearConfig) else "finetune"
    if getattr(config, "init", "weights") == "random":
        name += "-random"
    return cached_scores.beside_weights(
        config.weights, name if config.labels == 1 else f"{name}-{config.labels:g}"
    )


def build_supervised(config: SupervisedConfig, workers: Workers) -> tuple[RunComponents, Pretrained, Splits]:
    """Builds (the components of a run, its pre-trained backbone, its labelled images).

    Raises:
        UserError: the options, the devices, the weights or the labelled images do not fit.
    """
    assert config.weights is not None
    strategy = workers.strategy
    precision = set_precision(config, strategy)
    if is_network(config.weights):
        with workers.chief_first():  # which downloads it, and copies it into its work folder
            published.import_network(config.weights, config.pixels, config.trust_code)
    with strategy.scope():  # in one scope: workers agree on the values of variables as they are created
        pretrained = open_pretrained(config.weights, **config.preprocessing(), finished=False)
    if isinstance(config, FinetuneConfig):
        layer_order.check_names(pretrained.backbone, config.freeze_until, config.layer_decay)
    with workers.chief_first():
        splits = cached_scores.splits_for(config, pretrained)
    train = splits.train
    if config.labels < 1:
        ids = balanced(all_labels(train), config.labels)
        train = subset(train, ids, f"{train.name}, {config.labels:.4g} of every class")
    config = config.with_batch_size(train.size, strategy.num_replicas_in_sync)
    check_batch_size(train, config.batch_size)
    train = keep_decoded(train)
    splits = dataclasses.replace(splits, train=train)
    flip_p = pretrained.augmentation.flip_p if config.flip_p is None else config.flip_p
    augmentation = dataclasses.replace(
        pretrained.augmentation.with_crop_and_flip_alone(), area=(config.crop_area, 1.0), flip_p=flip_p
    )
    total = sampling.steps_in(config.epochs, train.size, config.batch_size)
    with strategy.scope():
        optimizer = build_optimizer(config, total, train.size)
        keras.utils.set_random_seed(config.seed)
        backbone = pretrained.backbone
        if getattr(config, "init", "weights") == "random":
            backbone = keras.models.clone_model(backbone)
        nets.synchronise(backbone)
        model = SupervisedModel(backbone, splits.classes, frozen=isinstance(config, LinearConfig))
        if isinstance(config, FinetuneConfig) and config.freeze_until:
            layer_order.freeze_until(backbone, config.freeze_until)
        if isinstance(config, FinetuneConfig):
            nets.lower_momentum(backbone, total)
        model.compile(optimizer, seed=config.seed)
    metadata = {
        "images": train.size, "fingerprint": train.fingerprint,
        "contents of the images": train.contents(),
        "test images": splits.test.size, "test fingerprint": splits.test.fingerprint,
        "contents of the test images": splits.test.contents(),
        "weights": pretrained.sha256, "precision": precision, "views": dataclasses.asdict(augmentation),
    }  # fmt: skip
    views = Views(augmentation, count=1, xla=False if config.jit_compile == "false" else None)
    components = RunComponents(
        workers, train, views, model, total, metadata,
        strategies.augments_on_device(strategy, config.augment_on), targets=True,
    )  # fmt: skip
    return components, pretrained, splits


def build_optimizer(config: SupervisedConfig, total_steps: int, size: int) -> optimizers.VariableRates:
    """The optimizer with its learning rate on a cosine, by `head_lr_factor` and `backbone_lr_factor`.

    size: images in an epoch.
    """
    decayed = cosine_schedule(config, total_steps, size)
    if isinstance(config, FinetuneConfig):
        factors = {"head": config.head_lr_factor, "backbone": config.backbone_lr_factor}
        rates: dict[str, schedules.Schedule] = {
            part: cosine_schedule(config, total_steps, size, factor)
            for part, factor in factors.items()
            if part == "head" or factor != 1.0
        }
        return optimizer_by_name(config, decayed, rates, {})
    assert isinstance(config, LinearConfig)
    optimizer = optimizers.LARS if config.optimizer == "lars" else optimizers.SGD
    return optimizer(decayed, config.momentum, config.weight_decay)


class Supervised(LabelledTask):
    """Linear evaluation or fine-tuning; the progress bar shows a training metric and a test metric."""

    trained_name, evaluation_label, exported_file = "classifier", "test", CLASSIFIER

    def __init__(self, config: SupervisedConfig, workers: Workers, report: Path) -> None:
        del report
        components, self.pretrained, splits = build_supervised(config, workers)
        images, is_default = components.source.size, config.batch_size is None
        config = config.with_batch_size(images, components.strategy.num_replicas_in_sync)
        super().__init__(config, components)
        if is_default and config.batch_size < config.MOST_IN_BATCH:
            log.warning("batch_size=%d, since there are %d training images", config.batch_size, images)
        assert isinstance(components.model, SupervisedModel)
        self.model, self.splits = components.model, splits
        self.metric_name = self.metric_label = self.model.head_spec.metric_name
        self.evaluation_name = next(iter(self.model.head_spec.test_metrics))
        every = config.eval_every
        if every is None:  # without gradients in the backbone, a view takes a third of the time
            views = splits.train.size if isinstance(config, FinetuneConfig) else splits.train.size // 3
            every = epochs_between(splits.test.size, max(views, 1))
        self.evaluator = Accuracy(splits.test, components.views, every, components.workers)

    def final_accuracies(self) -> Accuracies:
        """The model's metrics on the test images."""
        test = self.splits.test
        log.warning("accuracy on %d images of %s", test.size, test.name)
        workers, views = self.components.workers, self.components.views
        return {self.trained_name: evaluate_model(self.model, test, views, workers)}

    def export(self, workdir: Path, metadata: dict) -> None:
        """Exports the classifier and, after fine-tuning, the backbone."""
        data = self.config.data or cached_scores.training_data(self.pretrained)
        card = {
            **metadata, "classes": list(self.splits.class_names), "test": self.splits.test.name,
            "test images": self.splits.test.size,
            "weights": {"path": self.pretrained.place, "sha256": self.pretrained.sha256},
            "configuration": {**metadata["configuration"], "data": data},
        }  # fmt: skip
        if isinstance(self.splits.test, EncodedSource):
            card["pixels"] = self.splits.test.rule.options()
        if not self.model.frozen:
            backbone_file.export_network(self.model.backbone, workdir, card)
        backbone_file.export_network(self.model.functional(), workdir, card, CLASSIFIER)

    def add_accuracy(self, workdir: Path, accuracy: Accuracies, diagnosis: str) -> None:
        """Adds the accuracy to the model cards and writes result.json."""
        if not self.model.frozen:
            add_accuracy_to_card(workdir / backbone_file.EXPORTED, accuracy, diagnosis)
        super().add_accuracy(workdir, accuracy, diagnosis)

    @property
    def what(self) -> str:
        return "linear evaluation" if self.model.frozen else "fine-tuning"
