"""What a commit costs: seconds, bytes, and the share of the time between two of them.

    python scripts/bench/bench_save.py --flagfile=flags/imagenet/simsiam_100ep.cfg --size=224
    python scripts/bench/bench_save.py --folder=/shared/runs --channels=1 --size=28 \
        --flagfile=flags/quickstart.cfg

A commit of a model and its momentum, as a run makes them: whether all is finite, writing, reading back,
SHA-256, fsync, rename.
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flagfile", default="flags/quickstart.cfg", help="whose model is saved")
    parser.add_argument("--size", type=int, default=224, help="side of its views in pixels")
    parser.add_argument("--channels", type=int, default=3, help="of its images")
    parser.add_argument("--folder", help="on whose disk; that of temporary files by default")
    parser.add_argument("--repeats", type=int, default=7, help="commits")
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
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
    seconds: dict[str, list[float]] = {"finite": [], "commit": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        commits = checkpoints.Checkpoints(Path(folder) / "checkpoints", state, config.keep)
        for step in range(args.repeats):
            began = time.perf_counter()
            assert metrics.all_finite(variables)
            between = time.perf_counter()
            commits.save(step, {})
            seconds["finite"].append(between - began)
            seconds["commit"].append(time.perf_counter() - between)
        newest = commits.folder / f"step-{args.repeats - 1:08d}"
        mib = sum(p.stat().st_size for p in newest.iterdir()) / 2**20
        began = time.perf_counter()
        commits.restore()
        restore = time.perf_counter() - began
    whole = statistics.median(seconds["finite"]) + statistics.median(seconds["commit"])
    share = whole / (60 * config.save_minutes)
    facts = {**bench_harness.machine(multiprocessing.cpu_count()), "flagfile": args.flagfile}
    print(
        f"{facts['cpu']}, {facts['date']}; {args.flagfile}: {mib:.1f} MiB\n"
        f"median of {args.repeats}: a commit {whole:.3f} s ({min(seconds['commit']):.3f} to "
        f"{max(seconds['commit']):.3f}), {100 * share:.2f} % of --save_minutes={config.save_minutes:g}; "
        f"verifying and restoring {restore:.3f} s"
    )
    figures = {**facts, "mib": mib, "seconds": whole, "share": share, "restore": restore, "all": seconds}
    bench_harness.write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
