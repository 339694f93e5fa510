"""Measures images/s of training from a folder of JPEGs, by this package and by an equal PyTorch program.

    python scripts/bench/bench_end_to_end.py --network=small
    python scripts/bench/bench_end_to_end.py --network=resnet50 --json=end_to_end.json
    python scripts/bench/bench_end_to_end.py --network=resnet50 --device=gpu --only ours --augment_on=host

Ours is the loop of `simsiam_tf.pretrain` with its pipeline. The PyTorch program has torchvision's views,
a DataLoader with persistent workers, channels-last memory, autocast for bfloat16, and the same network,
batch and threads. Peak memory includes that of the DataLoader's workers. `waiting` is the share of our time
in which the step waits for data. On a GPU its utilisation is sampled by nvidia-smi.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from pathlib import Path

import bench_harness
import bench_views

NETWORKS = {  # flags of pretrain, batch size by device
    "small": (["--backbone=resnet10", "--width=0.25", "--d=256", "--stem=small"], {"cpu": 32, "gpu": 256}),
    "resnet50": ([], {"cpu": 16, "gpu": 256}),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument(
        "--images", metavar="FOLDER", help="folder of JPEGs; made from two photographs by default"
    )
    parser.add_argument(
        "--workers", type=int, help="workers of the DataLoader; as many as threads by default"
    )
    parser.add_argument("--steps", type=int, default=4, help="steps in a timed call")
    parser.add_argument("--batch_size", type=int, help="images a step; the network's own by default")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--augment_on", choices=("auto", "host", "device"), default="auto", help="as of pretrain"
    )
    parser.add_argument("--jit_compile", choices=("auto", "true", "false"), default="auto", help="the same")
    parser.add_argument("--only", choices=CANDIDATES, help="the one program to time; by default both")
    bench_harness.add_arguments(parser, repeats=5, calls=2, threads=None)
    args = parser.parse_args(argv)
    hint = "" if args.only == "ours" else bench_harness.install_hint("torch", "torchvision", "PIL")
    if hint:
        print(hint, file=sys.stderr)
        return 2
    batch = args.batch_size = args.batch_size or NETWORKS[args.network][1][args.device]
    with tempfile.TemporaryDirectory() as made:
        folder = args.images or bench_views.photographs(Path(made), max(bench_views.COUNT, 2 * batch))
        candidates = [
            bench_harness.Candidate(name, functools.partial(build, folder, args), batch * args.steps)
            for name, build in CANDIDATES.items()
            if args.only in (None, name)
        ]
        result = bench_harness.time_candidates(
            candidates, args.repeats, args.calls, args.threads, args.network, args.device
        )
    metadata = {
        **bench_harness.machine_metadata(args.threads),
        "network": args.network,
        "precision": args.precision,
        "batch": batch,
    }
    metadata |= {k: v for side in result.metadata.values() for k, v in side.items()}
    print(_table(metadata, result, batch))
    bench_harness.write_json(args.json, {**metadata, **result.as_json()})
    return 0


def _config(folder: str, args: argparse.Namespace):  # noqa: ANN202
    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig

    flags, _ = NETWORKS[args.network]
    fixed = [f"--data=folder:{folder}", "--augmentation=imagenet", "--monitor=none", "--strategy=one_device"]
    run = [f"--batch_size={args.batch_size}", f"--precision={args.precision}", "--epochs=10000"]
    run += [f"--augment_on={args.augment_on}", f"--jit_compile={args.jit_compile}"]
    return cli.parse(PretrainConfig, [*fixed, *run, *flags])


def _ours(folder: str, args: argparse.Namespace) -> bench_harness.TimedCall:
    import numpy as np
    import tensorflow as tf

    from simsiam_tf.runtime import malloc
    from simsiam_tf.training import build_run

    bench_harness.check_gpu(args.device)
    malloc.retain_freed_memory()
    bench_harness.set_threads(args.threads)
    config = _config(folder, args)
    components = build_run.build_pretraining(config)
    iterator, steps = bench_harness.training_steps(components, config)

    def call() -> dict[str, float]:
        began = time.perf_counter()
        losses, _, waited = steps(iterator, tf.constant(args.steps))[0].numpy().T
        if not np.isfinite(losses).all():
            raise SystemExit(f"Our loss became {losses}.")
        return {"waiting": float(waited.sum()) / (time.perf_counter() - began)}

    return call, {"tensorflow": tf.__version__}


def _theirs(folder: str, args: argparse.Namespace) -> bench_harness.TimedCall:
    import torch
    from reference_torch import torch_training, torchvision_views

    torch.set_num_threads(args.threads)
    config, device = _config(folder, args), "cuda" if args.device == "gpu" else "cpu"
    step, _ = torch_training.build(config, 224, 3, args.precision, device=device)
    workers = args.threads if args.workers is None else args.workers
    loader = torchvision_views.endless_loader(folder, config.batch_size, workers, pinned=device != "cpu")

    def call() -> None:
        for _ in range(args.steps):
            step(*(views.to(device, non_blocking=True) for views in next(loader)))
        if device != "cpu":
            torch.cuda.synchronize()

    return call, {"torch": torch.__version__}


CANDIDATES = {"ours": _ours, "torch": _theirs}


def _table(metadata: dict, result: bench_harness.Timings, batch: int) -> str:
    versions = [
        f"{library} {metadata[library]}" for library in ("tensorflow", "torch") if library in metadata
    ]
    lines = [
        f"{metadata['network']}, batch {batch}, {metadata['precision']}, {metadata['date']}",
        f"{metadata['cpu']}, {metadata['threads']} threads; {', '.join(versions)}",
        f"medians of {len(next(iter(result.seconds.values())))} alternations:",
        "",
        f"{'':8}{'images/s':>10}{'peak MiB':>10}{'waiting':>9}{'GPU':>7}   rate × torch (range)",
    ]
    for side in result.seconds:
        times = result.summary("torch", side) if "torch" in result.seconds else ""
        waiting, used = result.notes.get(side, {}).get("waiting"), result.utilisation.get(side)
        shares = (
            f"{'–' if waiting is None else f'{waiting:.1%}':>9}{'–' if used is None else f'{used:.0f} %':>7}"
        )
        lines.append(f"{side:8}{1 / result.median(side):10.1f}{result.memory[side]:10.0f}{shares}   {times}")
    lines += [result.warning()] if result.disturbed else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
