"""Measures seconds and bytes of a checkpoint, and the share that saving takes of --save_minutes.

    python scripts/bench/bench_save.py --flagfile=flags/imagenet/simsiam_100ep.cfg --size=224
    python scripts/bench/bench_save.py --folder=/shared/runs --channels=1 --size=28 \
        --flagfile=flags/quickstart.cfg

A checkpoint holds a model and its momentum, as in a run. Saving means: check that all weights are finite,
write, read back, compute the SHA-256, fsync, rename.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import bench_harness


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--flagfile", default="flags/quickstart.cfg", help="pretrain's flagfile of the model")
    parser.add_argument("--size", type=int, default=224, help="side of the views in pixels")
    parser.add_argument("--channels", type=int, default=3, help="channels of the images")
    parser.add_argument("--folder", help="folder on the disk to test; that of temporary files by default")
    parser.add_argument("--repeats", type=int, default=7, help="checkpoints to write")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)

    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig
    from simsiam_tf.loop import checkpoints
    from simsiam_tf.methods import metrics
    from simsiam_tf.training import build_run

    config = cli.parse(PretrainConfig, [f"--flagfile={args.flagfile}"])
    model = build_run.build_model(config, args.channels, args.size)
    model.compile(build_run.build_optimizer(config, 10_000, 10**6))
    model.optimizer.build(model.learned_variables())
    state = {"model": model, "optimizer": model.optimizer}
    variables = [*model.variables, *model.optimizer.variables]
    seconds: dict[str, list[float]] = {"finite": [], "save": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        saved = checkpoints.Checkpoints(Path(folder) / "checkpoints", state, config.keep)
        for step in range(args.repeats):
            began = time.perf_counter()
            assert metrics.all_finite(variables)
            between = time.perf_counter()
            saved.save(step, {})
            seconds["finite"].append(between - began)
            seconds["save"].append(time.perf_counter() - between)
        newest = saved.folder / f"step-{args.repeats - 1:08d}"
        mib = sum(p.stat().st_size for p in newest.iterdir()) / 2**20
        began = time.perf_counter()
        saved.restore()
        restore = time.perf_counter() - began
    total = statistics.median(seconds["finite"]) + statistics.median(seconds["save"])
    share = total / (60 * config.save_minutes)
    metadata = {**bench_harness.machine_metadata(multiprocessing.cpu_count()), "flagfile": args.flagfile}
    print(
        f"{metadata['cpu']}, {metadata['date']}; {args.flagfile}: {mib:.1f} MiB\n"
        f"median of {args.repeats}: a checkpoint {total:.3f} s (without the check "
        f"{min(seconds['save']):.3f} to {max(seconds['save']):.3f}), "
        f"{100 * share:.2f} % of --save_minutes={config.save_minutes:g}; "
        f"verifying and restoring {restore:.3f} s"
    )
    figures = {**metadata, "mib": mib, "seconds": total, "share": share, "restore": restore, "all": seconds}
    bench_harness.write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
