"""A 3×3 convolution with both its gradients, by Winograd's tiles and directly, layer by layer.

    python scripts/bench_conv.py --json=conv.json

The layers are those of the networks that `bench_step.py` times. Both ways alternate in one process
and take float32; the rounding errors are relative to float64, of the outputs and of both gradients.
`nets/conv.py` chooses between the two by this table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import contest

LAYERS = [  # batch, pixels, channels
    (256, 14, 16), (256, 7, 32), (256, 4, 64), (256, 2, 128),  # the quickstart's network
    (128, 32, 64), (128, 16, 128), (128, 8, 256), (128, 4, 512),  # CIFAR ResNet-18
    (16, 56, 64), (16, 28, 128), (16, 14, 256), (16, 7, 512),  # ResNet-50
]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    contest.arguments(parser, repeats=7, calls=3, threads=None)
    args = parser.parse_args(argv)
    rows = []
    for layer in LAYERS:
        rows.append(_contest(*layer, args))
        print(f"{len(rows)}/{len(LAYERS)} layers", file=sys.stderr)
    facts = contest.machine(args.threads)
    print(_table(facts, rows))
    contest.write_json(args.json, {**facts, "layers": rows})
    return 0


def _contest(batch: int, pixels: int, channels: int, args: argparse.Namespace) -> dict:
    import numpy as np
    import tensorflow as tf

    from simsiam_tf import memory
    from simsiam_tf.nets import winograd

    memory.keep()
    tf.get_logger().setLevel("ERROR")  # that every layer is traced anew is meant
    if tf.config.threading.get_intra_op_parallelism_threads() != args.threads:
        tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, pixels, pixels, channels))
    kernel = rng.normal(size=(3, 3, channels, channels)) / (3 * channels**0.5)
    upstream = rng.normal(size=x.shape)

    def both_ways(convolution):  # noqa: ANN001, ANN202
        @tf.function
        def call(x, kernel, upstream):  # noqa: ANN001, ANN202
            with tf.GradientTape() as tape:
                tape.watch((x, kernel))
                y = convolution(x, kernel)
            return y, *tape.gradient(y, (x, kernel), upstream)

        return call

    direct = both_ways(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"))
    sides = {"direct": direct, "winograd": both_ways(winograd.conv)}
    values = [tf.constant(v, tf.float32) for v in (x, kernel, upstream)]
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(args.repeats + 1):
        for name, call in sides.items():
            began = time.perf_counter()
            for _ in range(args.calls):
                call(*values)[2].numpy()
            if repeat:  # the first compiles
                times[name].append((time.perf_counter() - began) / args.calls)
    few = slice(0, min(batch, 8))  # float64 has no fast kernel
    exact = direct(*(tf.constant(v) for v in (x[few], kernel, upstream[few])))

    def error(call) -> float:  # noqa: ANN001
        pairs = zip(call(values[0][few], values[1], values[2][few]), exact, strict=True)
        return max(float(np.abs(a.numpy() - b.numpy()).max() / np.abs(b).max()) for a, b in pairs)

    ratios = [d / w for d, w in zip(times["direct"], times["winograd"], strict=True)]
    return {
        "batch": batch, "pixels": pixels, "channels": channels, "seconds": times,
        "ratios": ratios, "errors": {name: error(call) for name, call in sides.items()},
    }  # fmt: skip


def _table(facts: dict, rows: list[dict]) -> str:
    lines = [
        f"{facts['cpu']}, {facts['threads']} threads, {facts['date']}",
        "median ms of the convolution and both gradients; errors are the largest of the three:",
        f"{'batch, pixels, channels':26}{'direct':>8}{'winograd':>10}   "
        f"{'direct / winograd':20}{'errors':>17}",
    ]
    for row in rows:
        d, w = (1000 * statistics.median(row["seconds"][side]) for side in ("direct", "winograd"))
        r = row["ratios"]
        ratio = f"{statistics.median(r):.2f} ({min(r):.2f}–{max(r):.2f})"
        layer = f"{row['batch']}, {row['pixels']}×{row['pixels']}, {row['channels']}"
        errors = " ".join(f"{row['errors'][side]:.0e}" for side in ("direct", "winograd"))
        lines.append(f"{layer:26}{d:8.1f}{w:10.1f}   {ratio:20}{errors:>17}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
