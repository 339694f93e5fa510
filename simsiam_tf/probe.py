"""python -m simsiam_tf.probe --weights=…: logistic regression on the features of a frozen backbone."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from simsiam_tf import cli
from simsiam_tf.config import LabelledConfig, option
from simsiam_tf.errors import UserError

ABOUT = """A linear classifier on features that are made once and kept in WORKDIR/features: minutes on a CPU.
The strength of its regularisation is chosen on a tenth of the training images, and the classifier is scored
once on the test images.

    python -m simsiam_tf.probe --weights=runs/quickstart"""


@dataclasses.dataclass(frozen=True)
class ProbeConfig(LabelledConfig):
    """A probe."""

    strengths: str = option(
        "1e-4,1e-3,1e-2,0.1,1,10,100", "inverse L2 penalties (scikit-learn's C) to choose from", "Probe"
    )
    labels: float = option(1.0, "share of the training labels to learn from, of every class; ids by --seed")
    features_dir: str | None = option(
        None, "where features are kept; WORKDIR/features, or FILE.features, by default"
    )
    out: str | None = option(
        None, "JSON file for the result; WORKDIR/probe.json, or FILE.probe.json, by default"
    )

    def validate(self) -> ProbeConfig:
        """Returns itself, or raises UserError for the first value that cannot be."""
        super().validate()
        if not 0 < self.labels <= 1:
            raise UserError(f"--labels={self.labels}: must be above 0 and at most 1, as in --labels=0.1.")
        if not self.values or min(self.values) <= 0:
            raise UserError(
                f"--strengths={self.strengths}: must be numbers above 0, as in --strengths=0.1,1."
            )
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers in `strengths`; empty where it holds anything else."""
        try:
            return tuple(float(part) for part in self.strengths.split(","))
        except ValueError:
            return ()


def call(config: ProbeConfig) -> int:
    """Probes, prints a table and writes the result."""
    with cli.quietly():
        from simsiam_tf import distribute
        from simsiam_tf.evaluate import scores

        distribute.look_for_devices()
    result = scores.probe(config)
    print(scores.table(result))
    path = Path(config.out).expanduser() if config.out else scores.beside(config.weights, "probe.json")
    scores.write(result, path)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run(ProbeConfig, call, "simsiam_tf.probe", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
