"""python -m simsiam_tf.pretrain --flagfile=…: pre-training by SimSiam or a compared method."""

from __future__ import annotations

import dataclasses
import sys
import time

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig

ABOUT = """Trains a backbone on images without labels, by SimSiam (arXiv 2011.10566) or another --method, and
writes the backbone, metrics and checkpoints into a work folder (--workdir). Begin with one of

    python -m simsiam_tf.pretrain --flagfile=flags/quickstart.cfg
    python -m simsiam_tf.pretrain --flagfile=flags/folder.cfg --minutes=30 --data=folder:/my/photos

To continue an interrupted run, type its command again. Exit status: 0 finished, 2 an error that the message
explains, 3 collapsed (--fail_on_collapse), 4 diverged (the loss is not a number), 75 interrupted; checkpoints
are kept."""


def call(config: PretrainConfig) -> int:
    """Trains, or shows what a run would do (`preview`, `dry_run`); returns the exit status."""
    began = time.monotonic()
    with cli.heavy_imports():  # only now, so that invalid flags are reported at once
        from simsiam_tf.training import inspection, pretraining, run_summary

    if config.preview:
        return inspection.write_preview(config)
    if config.dry_run:
        return inspection.dry_run(config)
    config = inspection.with_workdir(config)
    outcome = pretraining.pretrain(config, began=began)
    chosen = dataclasses.replace(outcome.config, data=config.data)  # as it was typed
    return outcome.print_and_leave(run_summary.pretraining_summary(chosen, outcome))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(PretrainConfig, call, "simsiam_tf.pretrain", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
