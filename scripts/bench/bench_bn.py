"""Times BN with ReLU, forward and backward, with and without XLA, on the feature maps of ResNet-50.

    python scripts/bench/bench_bn.py --batch_size=128

Runs in bfloat16, on the GPU where there is one. Because of this table `nets/batch_norm.py` uses XLA on GPUs.
"""

from __future__ import annotations

import argparse
import functools
import sys

import bench_harness

MAPS = [(112, 64), (56, 64), (56, 256), (28, 128), (28, 512), (14, 256), (14, 1024), (7, 512), (7, 2048)]
STEPS = 20  # steps of a call, with one synchronisation
FUNCTIONS = {"op": "_fused", "XLA": "_fused_by_xla"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), default="gpu", help="gpu: uses the CPU where there is no GPU"
    )
    bench_harness.add_arguments(parser, repeats=5, calls=2, threads=None)
    args = parser.parse_args(argv)
    rows = []
    for pixels, channels in MAPS:
        shape = (args.batch_size, pixels, pixels, channels)
        candidates = [
            bench_harness.Candidate(w, functools.partial(_candidate, FUNCTIONS[w], shape), STEPS)
            for w in FUNCTIONS
        ]
        result = bench_harness.time_candidates(
            candidates, args.repeats, args.calls, args.threads, str(shape), args.device
        )
        rows.append({"shape": shape, "xla_by_op": result.summary("XLA", "op"), **result.as_json()})
    metadata = {**bench_harness.machine_metadata(args.threads), **rows[0]["metadata"]["op"]}
    print(f"{metadata['device']}, {metadata['date']}; median ms of BN, ReLU and gradients, bfloat16:\n")
    print(f"{'feature map':24}{'op':>9}{'XLA':>9}   XLA / op")
    for row in rows:
        times = "".join(f"{1000 * row['median_seconds'][way]:9.3f}" for way in FUNCTIONS)
        print(f"{row['shape']!s:24}{times}   {row['xla_by_op']}")
    bench_harness.write_json(args.json, {**metadata, "maps": rows})
    return 0


def _candidate(way: str, shape: tuple[int, ...]) -> bench_harness.TimedCall:
    import tensorflow as tf

    from simsiam_tf.nets import batch_norm

    x, upstream = (tf.cast(tf.random.normal(shape), tf.bfloat16) for _ in range(2))
    gamma, beta = tf.Variable(tf.ones(shape[3])), tf.Variable(tf.zeros(shape[3]))

    @tf.function(autograph=False)
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.relu(getattr(batch_norm, way)(x, gamma, beta, [], [], 1e-5, True).y)
        return tape.gradient(y, [x, gamma, beta], upstream)

    def steps() -> None:
        for _ in range(STEPS):
            last = step()
        float(last[2][0])

    gpus = tf.config.list_physical_devices("GPU")
    named = tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else None
    return steps, {"device": named or "CPU"}


if __name__ == "__main__":
    sys.exit(main())
