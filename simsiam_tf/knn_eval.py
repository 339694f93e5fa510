"""python -m simsiam_tf.knn_eval --weights=…: kNN accuracy of a frozen backbone."""

from __future__ import annotations

import dataclasses
import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import KeptFeaturesConfig, option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Classifies labelled test images by the votes of the training images whose features, by a frozen
backbone, are nearest. The measure is the cosine s, and a vote has the weight exp(s/τ). The best number in --k
is chosen by leave-one-out accuracy on the training images. Features are extracted once and stored in
WORKDIR/features.

    python -m simsiam_tf.knn_eval --weights=runs/quickstart"""


@dataclasses.dataclass(frozen=True)
class KnnConfig(KeptFeaturesConfig):
    """Options of knn_eval."""

    k: str = option("1,5,20,200", "numbers of neighbours, separated by commas", "kNN")
    temperature: float = option(
        0.1, "temperature τ of the votes, which have the weight exp(cosine/τ)", limits=(1e-3, 1e3)
    )
    out: str | None = option(
        None,
        "JSON file for the result; by default WORKDIR/knn.json, FILE.knn.json beside a .keras file, or, "
        "for weights of the Hub or of a library, in runs/USER-NAME or runs/KIND-NAME",
    )

    def validate(self) -> KnnConfig:
        super().validate()
        if not self.ks or min(self.ks) < 1:
            raise UserError(f"--k={self.k}: must be whole numbers above 0, as in --k=1,5,20,200.")
        return self

    @property
    def ks(self) -> tuple[int, ...]:
        """The numbers in `k`, in rising order; empty where `k` is not a list of numbers."""
        numbers = [number.strip() for number in self.k.split(",")]
        return tuple(sorted(set(map(int, numbers)))) if all(n.isdecimal() for n in numbers) else ()


def call(config: KnnConfig) -> int:
    """Evaluates, prints a table and writes the result."""
    with cli.heavy_imports():
        from simsiam_tf.evaluate import cached_scores
    cached_scores.evaluate_stored_features(config, cached_scores.knn_scores, "knn.json")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(KnnConfig, call, "simsiam_tf.knn_eval", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
