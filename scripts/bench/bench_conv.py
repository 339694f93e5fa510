"""Times a convolution with both its gradients, by one of our algorithms and by oneDNN, layer by layer.

    python scripts/bench/bench_conv.py --json=conv.json
    python scripts/bench/bench_conv.py --way=patches --precision=bfloat16 --threads=1
    python scripts/bench/bench_conv.py --way=rows --threads=1
    python scripts/bench/bench_conv.py --way=pixels --threads=1
    python scripts/bench/bench_conv.py --way=tiny_maps --precision=bfloat16

The layers are those of the networks that `bench_step.py` times, and more tiny maps. The two algorithms
alternate in one process. `--way` chooses ours. winograd: Winograd's tiles; patches: the kernel's gradient as
a product with patches; rows: at stride 2 the input's gradient by rows; pixels: a 1×1 kernel, at stride 2 on
every other pixel alone; tiny_maps: a map of at most 2×2 pixels as one product.
Rounding errors of the outputs and of both gradients are relative to float64.
The thresholds in `nets/cpu/dispatch.py` were set by hand from these tables.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time

import bench_harness

STRIDE_1 = [  # batch, pixels of the input's side, channels; stride 1, as many filters as channels
    (256, 14, 16), (256, 7, 32), (256, 4, 64), (256, 2, 128),  # the quickstart's network
    (128, 32, 64), (128, 16, 128), (128, 8, 256), (128, 4, 512),  # CIFAR ResNet-18
    (16, 56, 64), (16, 28, 128), (16, 14, 256), (16, 7, 512),  # ResNet-50
]  # fmt: skip
STRIDE_2 = [  # batch, pixels of the input's side, channels, filters; at stride 2
    (256, 14, 16, 32), (256, 7, 32, 64), (256, 4, 64, 128),
    (128, 32, 64, 128), (128, 16, 128, 256), (128, 8, 256, 512),
    (16, 56, 128, 128), (16, 28, 256, 256), (16, 14, 512, 512),
]  # fmt: skip
KERNEL_1 = [  # batch, pixels of the input's side, channels, filters, stride; a 1×1 kernel
    (256, 14, 16, 32, 2), (256, 7, 32, 64, 2), (256, 4, 64, 128, 2),
    (128, 32, 64, 128, 2), (128, 16, 128, 256, 2), (128, 8, 256, 512, 2),
    (16, 56, 64, 256, 1), (16, 56, 256, 64, 1), (16, 28, 512, 128, 1), (16, 14, 256, 1024, 1),
    (16, 56, 256, 512, 2), (16, 28, 512, 1024, 2), (16, 14, 1024, 2048, 2),
]  # fmt: skip
TINY_MAPS = [(256, 2, 128), (256, 2, 256), (256, 2, 512), (256, 1, 128)]
WAYS = {  # algorithm: layers, each with filters, stride and kernel size
    "winograd": [(*layer, layer[2], 1, 3) for layer in STRIDE_1],
    "patches": [(*layer, layer[2], 1, 3) for layer in STRIDE_1] + [(*layer, 2, 3) for layer in STRIDE_2],
    "rows": [(*layer, 2, 3) for layer in STRIDE_2],
    "pixels": [(*layer, 1) for layer in KERNEL_1],
    "tiny_maps": [(*layer, layer[2], 1, 3) for layer in TINY_MAPS],
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--way", choices=WAYS, default="winograd", help="algorithm to compare with oneDNN's")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    bench_harness.add_arguments(parser, repeats=7, calls=3, threads=None)
    args = parser.parse_args(argv)
    layers, rows = WAYS[args.way], []
    for layer in layers:
        rows.append(_compare(*layer, args))
        print(f"{len(rows)}/{len(layers)} layers", file=sys.stderr)
    metadata = {**bench_harness.machine_metadata(args.threads), "way": args.way, "precision": args.precision}
    print(_table(metadata, rows))
    bench_harness.write_json(args.json, {**metadata, "layers": rows})
    return 0


def _compare(
    batch: int,
    pixels: int,
    channels: int,
    filters: int,
    stride: int,
    size: int,
    args: argparse.Namespace,
) -> dict:
    import numpy as np
    import tensorflow as tf

    from simsiam_tf.nets.cpu import dispatch, tiny_maps, winograd
    from simsiam_tf.runtime import malloc

    malloc.retain_freed_memory()
    tf.get_logger().setLevel("ERROR")  # TensorFlow warns that each layer is traced anew
    if tf.config.threading.get_intra_op_parallelism_threads() != args.threads:
        tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, pixels, pixels, channels))
    kernel = rng.normal(size=(size, size, channels, filters)) / (size * channels**0.5)
    halved = -(-pixels // stride)
    upstream = rng.normal(size=(batch, halved, halved, filters))

    def both_ways(convolution):  # noqa: ANN001, ANN202
        @tf.function
        def call(x, kernel, upstream):  # noqa: ANN001, ANN202
            with tf.GradientTape() as tape:
                tape.watch((x, kernel))
                y = convolution(x, kernel)
            return y, *tape.gradient(y, (x, kernel), upstream)

        return call

    direct = both_ways(functools.partial(dispatch.conv_onednn, stride=stride))
    ours = {
        "winograd": winograd.conv,
        "patches": functools.partial(dispatch.conv_onednn, stride=stride, by_patches=True),
        "rows": functools.partial(dispatch.conv_onednn, stride=stride, by_rows=True),
        "pixels": functools.partial(dispatch.conv_training, stride=stride),
        "tiny_maps": tiny_maps.conv,
    }[args.way]
    candidates = {"direct": direct, args.way: both_ways(ours)}
    values = [tf.cast(v, args.precision) for v in (x, kernel, upstream)]
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(args.repeats + 1):
        for name, call in candidates.items():
            began = time.perf_counter()
            for _ in range(args.calls):
                call(*values)[2].numpy()
            if repeat:  # the first compiles
                times[name].append((time.perf_counter() - began) / args.calls)
    few = slice(0, min(batch, 8))  # float64 has no fast kernel
    exact = direct(*(tf.constant(v) for v in (x[few], kernel, upstream[few])))

    def error(call) -> float:  # noqa: ANN001
        pairs = zip(call(values[0][few], values[1], values[2][few]), exact, strict=True)
        return max(float(np.abs(a.numpy().astype(float) - b).max() / np.abs(b).max()) for a, b in pairs)

    ratios = [d / w for d, w in zip(times["direct"], times[args.way], strict=True)]
    return {
        "batch": batch, "pixels": pixels, "channels": channels, "filters": filters,
        "stride": stride, "size": size,
        "seconds": times,
        "ratios": ratios, "errors": {name: error(call) for name, call in candidates.items()},
    }  # fmt: skip


def _table(metadata: dict, rows: list[dict]) -> str:
    way = metadata["way"]
    lines = [
        f"{metadata['cpu']}, {metadata['threads']} threads, {metadata['precision']}, {metadata['date']}",
        "median ms of the convolution and both gradients; errors are the largest of the three:",
        f"{'batch, pixels, channels':32}{'direct':>8}{way:>10}   {f'direct / {way}':20}{'errors':>17}",
    ]
    for row in rows:
        d, w = (1000 * statistics.median(row["seconds"][side]) for side in ("direct", way))
        r = row["ratios"]
        ratio = f"{statistics.median(r):.2f} ({min(r):.2f}–{max(r):.2f})"
        layer = f"{row['batch']}, {row['pixels']}×{row['pixels']}, {row['channels']}"
        layer += f"→{row['filters']}" if row["channels"] != row["filters"] else ""
        layer += ", stride 2" if row["stride"] == 2 else ""
        errors = " ".join(f"{row['errors'][side]:.0e}" for side in ("direct", way))
        lines.append(f"{layer:32}{d:8.1f}{w:10.1f}   {ratio:20}{errors:>17}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
