"""python -m simsiam_tf.finetune --weights=…: fine-tuning with few or all labels."""

from __future__ import annotations

import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import FinetuneConfig

ABOUT = """Trains a backbone together with a linear classifier, on all labels or a share of them, and measures
the accuracy on the test images. --init=random starts from random weights instead, for comparison. To continue
an interrupted run, type its command again. Exit status: 0 finished, 2 an error that the message explains,
4 diverged (the loss is not a number), 75 interrupted; checkpoints are kept.

    python -m simsiam_tf.finetune --weights=runs/quickstart --labels=0.01"""


def call(config: FinetuneConfig) -> int:
    """Trains the network and prints its accuracy."""
    with cli.heavy_imports():
        from simsiam_tf.training import run_summary, supervised
    outcome = supervised.run_supervised(config)
    return outcome.print_and_leave(run_summary.supervised_summary(outcome, "simsiam_tf.finetune"))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(FinetuneConfig, call, "simsiam_tf.finetune", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
