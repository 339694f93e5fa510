"""run(config): linear evaluation and fine-tuning, as tasks for the loop that all runs share (`running`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from simsiam_tf import optimizers
from simsiam_tf.config import FinetuneConfig, LinearConfig, SupervisedConfig
from simsiam_tf.data import sampling, subset
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import cached_scores
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.evaluate.knn_monitor import epochs_between
from simsiam_tf.evaluate.label_splits import Splits, balanced
from simsiam_tf.evaluate.linear_classifier import Classifier, accuracy
from simsiam_tf.loop import launch
from simsiam_tf.loop.loop import Outcome
from simsiam_tf.loop.run_components import RunComponents
from simsiam_tf.loop.task import add_accuracy_to_card, read_card
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.training.build_run import (
    check_size,
    cosine_schedule,
    make_views,
    set_precision,
)
from simsiam_tf.training.callbacks import Accuracy

CLASSIFIER = Path("export") / "classifier.keras"
RESULT = "result.json"


def run(config: SupervisedConfig, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Outcome:
    """Linear evaluation (`LinearConfig`) or fine-tuning (`FinetuneConfig`), continuing what is there.

    Args:
        config: validated; its work folder is `workdir_of` where it names none.
        callbacks: as for `train.run`.

    Returns:
        Its accuracy["classifier"] holds "top1" and "top5" on the test images, in [0, 1].

    Raises:
        UserError: before any training, for whatever cannot work.
    """
    config = dataclasses.replace(config, workdir=str(workdir_of(config)))

    def task(config: SupervisedConfig, workers: Workers, report: Path) -> Supervised:
        del report
        return Supervised(config, *build_supervised(config, workers))

    return launch.run(config, task, callbacks)


def workdir_of(config: SupervisedConfig) -> Path:
    """`workdir`, or a folder beside the weights that is named after what is done with them."""
    if config.workdir:
        return Path(config.workdir).expanduser()
    name = "linear" if isinstance(config, LinearConfig) else "finetune"
    if getattr(config, "init", "weights") == "random":
        name += "-random"
    return cached_scores.beside(config.weights, name if config.labels == 1 else f"{name}-{config.labels:g}")


def build_supervised(config: SupervisedConfig, workers: Workers) -> tuple[RunComponents, Pretrained, Splits]:
    """Builds every part; cheap checks come before long work."""
    strategy = workers.strategy
    precision = set_precision(config, strategy)
    with strategy.scope():  # all at once: workers agree on the values of variables as they are made
        pretrained = open_pretrained(config.weights, config.augmentation, config.image_size)
    with workers.chief_first():
        splits = cached_scores.splits_for(config, pretrained)
    train = splits.train
    if config.labels < 1:
        ids = balanced(train.labels[:], config.labels)
        train = subset(train, ids, f"{train.name}, {config.labels:.4g} of every class")
        splits = dataclasses.replace(splits, train=train)
    check_size(train, config.batch_size)
    flip_p = pretrained.augmentation.flip_p if config.flip_p is None else config.flip_p
    augmentation = dataclasses.replace(
        pretrained.augmentation.with_crop_and_flip_alone(), area=(config.crop_area, 1.0), flip_p=flip_p
    )
    total = sampling.steps_in(config.epochs, train.size, config.batch_size)
    with strategy.scope():
        optimizer = build_optimizer(config, total, train.size)
        model = _model(config, pretrained, splits)
        model.compile(optimizer, jit_compile=config.jit_compile == "true")
    facts = {
        "images": train.size, "fingerprint": train.fingerprint,
        "contents of the images": train.contents(),
        "test images": splits.test.size, "test fingerprint": splits.test.fingerprint,
        "contents of the test images": splits.test.contents(),
        "weights": pretrained.sha256, "precision": precision, "views": dataclasses.asdict(augmentation),
    }  # fmt: skip
    on_device = strategies.augments_on_device(strategy, config.augment_on)
    views = make_views(config, augmentation, count=1)
    parts = RunComponents(strategy, train, views, model, total, precision, on_device, facts, workers)
    return parts, pretrained, splits


def _model(config: SupervisedConfig, pretrained: Pretrained, splits: Splits) -> Classifier:
    keras.utils.set_random_seed(config.seed)
    backbone = pretrained.backbone
    if getattr(config, "init", "weights") == "random":
        backbone = keras.models.clone_model(backbone)
    frozen = isinstance(config, LinearConfig)
    return Classifier(backbone, splits.train.labels[:], splits.classes, frozen)


def build_optimizer(config: SupervisedConfig, total_steps: int, size: int) -> optimizers.SGD:
    """LARS or SGD on a cosine; where the whole network is trained, its head has a rate of its own."""
    decayed = cosine_schedule(config, total_steps, size)
    if isinstance(config, FinetuneConfig):
        head = cosine_schedule(config, total_steps, size, config.head_lr_factor)
        return optimizers.SGD(decayed, config.momentum, config.weight_decay, {"head": head})
    kind = optimizers.LARS if config.optimizer == "lars" else optimizers.SGD
    return kind(decayed, config.momentum, config.weight_decay)


class Supervised:
    """What a run that learns from labels is known by, judged by and leaves (`running.Task`)."""

    trained_name, untrained_name = "classifier", ""
    ending_diagnoses = ()

    def __init__(
        self, config: SupervisedConfig, parts: RunComponents, pretrained: Pretrained, splits: Splits
    ) -> None:
        self.config, self.components, self.pretrained, self.splits = config, parts, pretrained, splits
        self.metrics = AccuracyMetrics()
        every = config.eval_every
        if every is None:  # a frozen backbone computes forward only, as an evaluation does
            views = splits.train.size if isinstance(config, FinetuneConfig) else splits.train.size // 3
            every = epochs_between(splits.test.size, max(views, 1))
        self.evaluator = Accuracy(splits.test, parts.views, every, parts.workers)

    def baselines(self, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
        """None: chance is one in so many classes."""
        del say
        return {}

    def final_accuracy(self, say: Callable[[str], None]) -> dict[str, float]:
        """On the test images."""
        say(f"top-1 and top-5 on {self.splits.test.size} images of {self.splits.test.name}")
        return accuracy(
            self.components.model, self.splits.test, self.components.views, self.components.workers
        )

    def final_baselines(self, before: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """None."""
        return before

    def export(self, workdir: Path, facts: dict) -> None:
        """Writes the classifier and, where it was trained, its backbone."""
        named = self.config.data or cached_scores.data_of(self.pretrained)
        whole = {
            **facts, "classes": list(self.splits.class_names), "test": self.splits.test.name,
            "weights": {"path": str(self.pretrained.path), "sha256": self.pretrained.sha256},
            "configuration": {**facts["configuration"], "data": named},
        }  # fmt: skip
        if not self.components.model.frozen:
            backbone_file.export(self.components.model.backbone, workdir, whole)
        backbone_file.export(self.components.model.whole(), workdir, whole, CLASSIFIER)

    def add_accuracy(self, workdir: Path, accuracy: dict[str, dict[str, float]]) -> None:
        """Writes result.json, and the cards again."""
        card = read_card(workdir / CLASSIFIER)
        kept = ("images", "test", "classes", "weights", "step", "configuration", "made with")
        result = {
            "what": "linear evaluation" if self.components.model.frozen else "fine-tuning",
            **accuracy[self.trained_name], "train": card["data"], **{k: card[k] for k in kept},
        }  # fmt: skip
        atomic_write_text(workdir / RESULT, json.dumps(result, indent=1) + "\n")
        if not self.components.model.frozen:
            add_accuracy_to_card(workdir / backbone_file.EXPORTED, accuracy)
        add_accuracy_to_card(workdir / CLASSIFIER, accuracy)  # last: it says "evaluated"

    def exported_card(self, workdir: Path) -> dict:
        """The facts beside the classifier."""
        return backbone_file.card(workdir / CLASSIFIER)


class AccuracyMetrics:
    """The share of views told right, of steps; top-1 of evaluations."""

    metric_name, metric_label = "accuracy", "accuracy"
    evaluation_name, evaluation_label = "top1", "test"

    def record_values(self, figures: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """accuracy: mean of the steps."""
        del z
        return {"accuracy": float(figures.mean())}

    def learning_rates(self, optimizer: keras.optimizers.Optimizer, step: int) -> dict[str, float]:
        """Of the backbone, or of all there is; and of the head where it has its own."""
        rates = {"lr": float(optimizer._learning_rate(step))}
        head = optimizer.part_rates.get("head")
        return rates if head is None else {**rates, "lr_head": float(head(step))}

    def diagnose(self, records: list[dict]) -> Diagnosis:
        """ "divergence" where the last loss is no number; else "healthy"."""
        if not records:
            return Diagnosis("healthy", "no record yet")
        loss, step = records[-1]["loss"], records[-1]["step"]
        if not np.isfinite(loss):
            return Diagnosis("divergence", f"loss {loss} at step {step}")
        return Diagnosis("healthy", f"loss {loss:.3g}")
