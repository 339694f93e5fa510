"""python -m simsiam_tf.linear_eval --weights=…: linear evaluation of a frozen backbone."""

from __future__ import annotations

import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import LinearConfig

ABOUT = """Trains a linear classifier on a frozen backbone, on augmented views, and tests it on the test
images (the linear evaluation of Sec. 3). The defaults are the paper's for ImageNet; for small
images take flags/fashion_mnist/linear.cfg. To continue an interrupted run, type its command again. Exit
status: 0 finished, 2 an error that the message explains, 4 diverged (the loss is not a number),
75 interrupted; checkpoints are kept.

    python -m simsiam_tf.linear_eval --flagfile=flags/fashion_mnist/linear.cfg --weights=runs/quickstart"""


def call(config: LinearConfig) -> int:
    """Trains the classifier and prints its accuracy."""
    with cli.heavy_imports():
        from simsiam_tf.distributed import strategies
        from simsiam_tf.training import run_summary, supervised

        strategies.look_for_devices()
    outcome = supervised.run_supervised(config)
    return outcome.print_and_leave(run_summary.supervised_summary(outcome, "simsiam_tf.linear_eval"))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(LinearConfig, call, "simsiam_tf.linear_eval", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
