"""Times a training step, ours and PyTorch's in alternation, on this machine's CPU or GPU.

    python scripts/bench/bench_step.py --network=cifar_resnet18 --precision=both --json=step.json
    python scripts/bench/bench_step.py --network=resnet50 --device=gpu --torch_compile

Each program computes the forward pass of two views, the gradients and the SGD update, from one batch in
memory: no data pipeline. PyTorch has channels-last memory and, for bfloat16, autocast. `floor` is the time
of the network's convolutions and matrix products alone, each computed directly by oneDNN or cuDNN. Only a
step that computes fewer products can be faster. `products` is the time of the convolutions and products that
our step computes instead, without the arithmetic that prepares them (Winograd's tiles, patches). Run it on an
idle machine
(`bench_harness.py` says why). On a GPU a call is STEPS steps with one synchronisation, as in a training, and
float32 products take TF32 in all programs. `--only` names the candidates, for example `--only ours XLA`; with
one the GPU has no other program's tensors. Triton, which torch.compile needs on a GPU, and TensorFlow cannot
be loaded into one process: PyTorch's candidates do not load TensorFlow.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys

import bench_harness

NETWORKS = {  # flagfile, pixels, channels, batch by device (the flagfile's where none is given)
    "quickstart": ("flags/quickstart.cfg", 28, 1, {}),
    "cifar_resnet18": ("flags/cifar10/simsiam.cfg", 32, 3, {"cpu": 128}),
    "resnet50": ("flags/imagenet/simsiam_100ep.cfg", 224, 3, {"cpu": 16, "gpu": 256}),
}
STEPS = 10  # steps per call on a GPU
CANDIDATES = {  # title of the column: name of the candidate
    "ours": "ours", "XLA": "ours, XLA", "torch": "torch", "compiled": "torch compiled",
    "floor": "floor", "products": "our products",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    hint = bench_harness.install_hint("torch")
    if hint and any("torch" in CANDIDATES[title] for title in _titles(args)):
        print(hint, file=sys.stderr)
        return 2
    wanted = ["float32", "bfloat16"] if args.precision == "both" else [args.precision]
    results = {precision: _compare(args, precision) for precision in wanted}
    metadata = {**bench_harness.machine_metadata(args.threads), "network": args.network}
    metadata |= {"calls": args.calls, "repeats": args.repeats}
    print(_table(metadata, results))
    bench_harness.write_json(args.json, {**metadata, "results": {p: r.as_json() for p, r in results.items()}})
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="quickstart")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "both"), default="both")
    parser.add_argument("--batch_size", type=int, help="images a step; the network's own by default")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--torch_compile", nargs="?", const="also", choices=("also", "only"),
        help="also: time torch.compile, too, and compare with the faster; only: not PyTorch without it",
    )  # fmt: skip
    parser.add_argument("--xla", action="store_true", help="our step compiled by XLA is timed as well")
    parser.add_argument(
        "--only", nargs="+", choices=CANDIDATES, help="candidates to time, in place of --xla, --torch_compile"
    )
    bench_harness.add_arguments(parser, repeats=5, calls=5, threads=None)
    return parser.parse_args(argv)


def _titles(args: argparse.Namespace) -> list[str]:
    """The keys of CANDIDATES that are timed."""
    included = {
        "ours": True, "XLA": args.xla, "torch": args.torch_compile != "only",
        "compiled": bool(args.torch_compile), "floor": True, "products": args.device == "cpu",
    }  # fmt: skip
    return [title for title, default in included.items() if (title in args.only if args.only else default)]


def _compare(args: argparse.Namespace, precision: str) -> bench_harness.Timings:
    """Seconds a step of every candidate."""
    builds = {
        "ours": _our_step,
        "XLA": functools.partial(_our_step, xla=True),
        "torch": functools.partial(_torch_step, False),
        "compiled": functools.partial(_torch_step, True),
        "floor": functools.partial(_products, False),
        "products": functools.partial(_products, True),
    }
    candidates = [
        bench_harness.Candidate(
            CANDIDATES[title], functools.partial(builds[title], precision, args), _steps(args)
        )
        for title in _titles(args)
    ]
    result = bench_harness.time_candidates(
        candidates, args.repeats, args.calls, args.threads, precision, args.device
    )
    sizes = {metadata["parameters"] for metadata in result.metadata.values() if metadata}
    if len(sizes) > 1:
        raise SystemExit(f"The candidates differ in size: {sizes} parameters.")
    return result


def _config(args: argparse.Namespace):  # noqa: ANN202
    """(configuration of the flagfile, pixels, channels, batch)."""
    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig

    flagfile, size, channels, batch = NETWORKS[args.network]
    config = cli.parse(PretrainConfig, [f"--flagfile={flagfile}"])
    return config, size, channels, args.batch_size or batch.get(args.device, config.batch_size)


def _steps(args: argparse.Namespace) -> int:
    return STEPS if args.device == "gpu" else 1


def _views(batch: int, size: int, channels: int) -> list:
    import numpy as np

    return list(np.random.default_rng(0).normal(size=(2, batch, size, size, channels)).astype("float32"))


def traced_step(precision: str, args: argparse.Namespace, xla: bool = False):  # noqa: ANN201
    """Returns (the traced step of --network, two views for it, metadata).

    args: network, batch_size, threads, device.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from simsiam_tf.distributed import strategies
    from simsiam_tf.runtime import cores
    from simsiam_tf.training import build_run, step_memory

    bench_harness.check_gpu(args.device)
    bench_harness.set_threads(args.threads)
    strategies.set_precision(precision)
    config, size, channels, batch = _config(args)
    model = build_run.build_model(config, channels, size)
    model.compile(build_run.build_optimizer(config, 10_000, 100 * batch))
    model.optimizer.build(model.learned_variables())
    views = tuple(tf.constant(x) for x in _views(batch, size, channels))
    traced = tf.function(model.step, jit_compile=xla or None).get_concrete_function(views)
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    estimate = step_memory.peak_bytes(step_memory.nodes_of(traced.graph), cores.usable_cores())
    estimate += sum(v.numpy().nbytes for v in (*model.variables, *model.optimizer.variables))
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    for gpu in tf.config.list_physical_devices("GPU"):
        versions["gpu"] = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return (
        traced,
        views,
        {**versions, "batch": batch, "parameters": parameters, "estimated_mib": estimate / 2**20},
    )


def _our_step(precision: str, args: argparse.Namespace, xla: bool = False) -> bench_harness.TimedCall:
    from simsiam_tf.runtime import malloc

    malloc.retain_freed_memory()
    traced, views, metadata = traced_step(precision, args, xla)

    def steps() -> None:
        losses = [traced(views)["loss"] for _ in range(_steps(args))]
        loss = float(losses[-1])
        if not math.isfinite(loss):
            raise SystemExit(f"Our loss became {loss}.")

    return steps, metadata


def _products(by_shape: bool, precision: str, args: argparse.Namespace) -> bench_harness.TimedCall:
    import onednn_floor

    from simsiam_tf import nets
    from simsiam_tf.runtime import malloc

    malloc.retain_freed_memory()
    nets.fast_cpu_convolutions(by_shape)
    traced, _, metadata = traced_step(precision, args)
    return onednn_floor.replay_products(traced, _steps(args)), metadata


def _torch_step(compiled: bool, precision: str, args: argparse.Namespace) -> bench_harness.TimedCall:
    if compiled and args.device == "gpu":
        import triton  # noqa: F401  (or `reference_torch` keeps it out)
    import torch
    from reference_torch import torch_training

    torch.set_num_threads(args.threads)
    config, size, channels, batch = _config(args)
    device = "cuda" if args.device == "gpu" else "cpu"
    step, count = torch_training.build(config, size, channels, precision, compiled, device)
    views = [torch.tensor(x, device=device).permute(0, 3, 1, 2) for x in _views(batch, size, channels)]
    views = [x.contiguous(memory_format=torch.channels_last) for x in views]

    def steps() -> None:
        for _ in range(_steps(args)):
            step(*views)
        if device == "cuda":
            torch.cuda.synchronize()

    if "tensorflow" in sys.modules:
        raise SystemExit("TensorFlow was loaded into PyTorch's process.")
    return steps, {"torch": torch.__version__, "batch": batch, "parameters": count}


def _table(metadata: dict, results: dict[str, bench_harness.Timings]) -> str:
    first = next(iter(results.values()))
    shared = {k: v for each in first.metadata.values() for k, v in each.items()}
    shown = {title: name for title, name in CANDIDATES.items() if name in first.seconds}
    versions = [
        f"{library} {shared[library]}" for library in ("tensorflow", "keras", "torch") if library in shared
    ]
    lines = [
        f"{metadata['network']}, batch {shared['batch']}, {shared['parameters']:,} parameters, "
        f"{metadata['date']}",
        f"{shared.get('gpu') or metadata['cpu']}, {metadata['threads']} threads; {', '.join(versions)}",
        f"median seconds a step over {metadata['repeats']} alternations of {metadata['calls']} calls:",
        "",
        f"{'':10}{''.join(f'{title:>10}' for title in shown)}",
    ]
    for precision, result in results.items():
        lines.append(f"{precision:10}{''.join(f'{result.median(name):10.4f}' for name in shown.values())}")
        memory = {**result.memory, **{k: v for k, v in result.gpu_memory.items() if v}}
        lines.append(f"{'peak MiB':10}{''.join(f'{memory[name]:10.0f}' for name in shown.values())}")
        theirs = [name for name in result.seconds if name.startswith("torch")]
        ours = [name for name in ("ours", "ours, XLA") if name in result.seconds]
        pairs = [("ours / best torch", ours, theirs), ("floor / ours", ["floor"], ours)]
        for title, above, below in (*pairs, ("products / ours", ["our products"], ours)):
            if above and below and above[0] in result.seconds:
                lines.append(f"{title:20}{result.summary(result.best(above), result.best(below))}")
        lines += [f"{'':10}{result.warning()}"] if result.disturbed else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
