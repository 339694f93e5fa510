"""python -m simsiam_tf.transfer --task=detection --weights=…: detection and segmentation (Table 5)."""

from __future__ import annotations

import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import TransferConfig

ABOUT = """Trains a detector (RetinaNet) or a segmenter (DeepLabv3+) of keras-hub on a pre-trained ResNet, and
measures it on test images. --init=random starts from random weights instead, for comparison. To continue an
interrupted run, type its command again. Exit status: 0 finished, 2 an error that the message explains,
4 diverged (the loss is not a number), 75 interrupted; checkpoints are kept.

    python -m simsiam_tf.transfer --task=detection --weights=runs/garments --data=scenes:fashion_mnist
    python -m simsiam_tf.transfer --task=segmentation --weights=runs/photos --data=masks:images,masks"""


def call(config: TransferConfig) -> int:
    """Trains the network and prints its metrics, or only what it would cost (`dry_run`)."""
    with cli.heavy_imports():
        from simsiam_tf.dense_tasks import dry_run, transfer_task
        from simsiam_tf.training import run_summary
    if config.dry_run:
        return dry_run.dry_run(config)
    outcome = transfer_task.run_transfer(config)
    return outcome.print_and_leave(run_summary.transfer_summary(outcome, transfer_task.files_of(config.task)))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(TransferConfig, call, "simsiam_tf.transfer", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
