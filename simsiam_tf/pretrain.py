"""python -m simsiam_tf.pretrain --flagfile=…: SimSiam pre-training."""

from __future__ import annotations

import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig

ABOUT = """Learns image representations without labels by SimSiam (arXiv 2011.10566).
Rerun the same command to continue an interrupted run. Exit status: 0 done, 2 something to mend,
3 collapsed (--fail_on_collapse), 4 diverged (loss not a number), 75 interrupted by a signal after
a checkpoint.
Start with --flagfile=flags/quickstart.cfg, or flags/folder.cfg --data=folder:/my/photos."""


def call(config: PretrainConfig) -> int:
    """Trains, or shows what would be trained."""
    with cli.heavy_imports():  # TensorFlow loads only now that the flags are known to be good
        from simsiam_tf.distributed import strategies
        from simsiam_tf.training import inspection, pretraining, run_summary

        strategies.look_for_devices()

    if config.preview:
        return inspection.write_preview(config)
    if config.dry_run:
        return inspection.dry_run(config)
    config = inspection.with_workdir(config)
    outcome = pretraining.run(config)
    if outcome.chief:
        print(run_summary.pretraining_summary(config, outcome))
    return outcome.leave()


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(PretrainConfig, call, "simsiam_tf.pretrain", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
