"""python -m simsiam_tf.probe --weights=…: a linear classifier on stored features of a frozen backbone."""

from __future__ import annotations

import dataclasses
import math
import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import Inapplicable, KeptFeaturesConfig, option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Trains a linear classifier on the features of a frozen backbone, in minutes on a CPU. Its
regularisation (logistic regression) or learning rate (LARS, SGD) is chosen on a tenth of the training
images; then the classifier is trained on all of them and tested once on the test images. Features are
extracted once, from images without augmentation, and stored in WORKDIR/features. simsiam_tf.linear_eval
trains on augmented views, which takes longer; a learning rate that simsiam_tf.probe chose is a good first
--base_lr for it.

    python -m simsiam_tf.probe --weights=runs/quickstart
    python -m simsiam_tf.probe --weights=runs/quickstart --classifier=lars"""


@dataclasses.dataclass(frozen=True)
class ProbeConfig(KeptFeaturesConfig):
    """Options of probe."""

    INAPPLICABLE = (
        *KeptFeaturesConfig.INAPPLICABLE,
        Inapplicable(
            ("base_lrs", "epochs"), "classifier", lambda v: v == "logistic", "--classifier=logistic"
        ),
        Inapplicable(("strengths",), "classifier", lambda v: v != "logistic", "--classifier=lars and sgd"),
    )

    classifier: str = option(
        "logistic",
        "logistic: scikit-learn's logistic regression on centred features; lars, sgd: one linear layer "
        "for each learning rate, on a cosine schedule with batch 256",
        "Probe",
        choices=("logistic", "lars", "sgd"),
    )
    strengths: str = option(
        "1e-4,1e-3,1e-2,0.1,1,10,100", "for logistic: inverse L2 penalties (scikit-learn's C) to choose from"
    )
    base_lrs: str | None = option(
        None, "for lars and sgd: learning rates to choose from, as in 1,3,10; each has a default list"
    )
    epochs: float = option(30.0, "for lars and sgd: passes over the features")
    labels: float = option(1.0, "share of the training images of every class to train on, drawn by --seed")
    out: str | None = option(
        None,
        "JSON file for the result; by default WORKDIR/probe.json (probe-lars.json, probe-sgd.json), "
        "FILE.probe.json beside a .keras file, or, for weights of the Hub or of a library, in "
        "runs/USER-NAME or runs/KIND-NAME",
    )

    def validate(self) -> ProbeConfig:
        super().validate()
        if not 0 < self.labels <= 1:
            raise UserError(f"--labels={self.labels}: must be above 0 and at most 1, as in --labels=0.1.")
        if not 0 < self.epochs < math.inf:
            raise UserError(f"--epochs={self.epochs}: must be above 0, and finite.")
        name = "strengths" if self.classifier == "logistic" else "base_lrs"
        text = getattr(self, name)
        if text is not None and not (self.values and all(0 < value < math.inf for value in self.values)):
            raise UserError(f"--{name}={text}: must be numbers above 0, as in --{name}=0.1,1.")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The strengths or learning rates to choose from; empty for none, or for an invalid list."""
        text = self.strengths if self.classifier == "logistic" else self.base_lrs or ""
        try:
            return tuple(float(number) for number in text.split(","))
        except ValueError:
            return ()


def call(config: ProbeConfig) -> int:
    """Trains the classifiers, prints a table and writes the result."""
    with cli.heavy_imports():
        from simsiam_tf.evaluate import cached_scores
    name = "probe.json" if config.classifier == "logistic" else f"probe-{config.classifier}.json"
    cached_scores.evaluate_stored_features(config, cached_scores.probe_scores, name)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ProbeConfig, call, "simsiam_tf.probe", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
