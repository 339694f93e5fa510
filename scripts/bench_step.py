"""One optimisation step of ours against PyTorch's, in alternation, on this machine's CPU.

    python scripts/bench_step.py --network=cifar_resnet18 --precision=both --json=step.json

Both sides compute the forward pass of two views, the gradients and the SGD update, from one batch
in memory: no data pipeline. PyTorch has channels-last memory and, for bfloat16, autocast. `bare` is
the time of the step's convolutions and matrix products alone, each computed directly by oneDNN: the
floor that no rewriting of the rest could undercut, and only fewer products can. Run it on an
idle machine (`contest.py` says why).
"""

from __future__ import annotations

import argparse
import functools
import math
import sys

import bare
import contest

NETWORKS = {  # flagfile, pixels, channels, batch on a CPU (None: the flagfile's)
    "quickstart": ("flags/quickstart.cfg", 28, 1, None),
    "cifar_resnet18": ("flags/cifar10/simsiam.cfg", 32, 3, 128),
    "resnet50": ("flags/imagenet/simsiam_100ep.cfg", 224, 3, 16),
}


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    lacking = contest.missing("torch")
    if lacking:
        print(lacking, file=sys.stderr)
        return 2
    wanted = ["float32", "bfloat16"] if args.precision == "both" else [args.precision]
    results = {precision: _contest(args, precision) for precision in wanted}
    facts = {**contest.machine(args.threads), "network": args.network, "calls": args.calls}
    print(_table(facts, results))
    contest.write_json(args.json, {**facts, "results": {p: r.as_json() for p, r in results.items()}})
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="quickstart")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "both"), default="both")
    parser.add_argument("--batch_size", type=int, help="images a step; the network's own by default")
    parser.add_argument(
        "--torch_compile", nargs="?", const="also", choices=("also", "only"),
        help="torch.compile contests as well; its best side counts",
    )  # fmt: skip
    contest.arguments(parser, repeats=5, calls=5, threads=None)
    return parser.parse_args(argv)


def _contest(args: argparse.Namespace, precision: str) -> contest.Result:
    """Seconds a step of every side."""
    sides = [contest.Side("ours", functools.partial(_ours, precision, args))]
    if args.torch_compile != "only":
        sides.append(contest.Side("torch", functools.partial(_theirs, False, precision, args)))
    if args.torch_compile:
        sides.append(contest.Side("torch compiled", functools.partial(_theirs, True, precision, args)))
    sides.append(contest.Side("bare", functools.partial(_bare, precision, args)))
    result = contest.run(sides, args.repeats, args.calls, args.threads, precision)
    sizes = {facts["parameters"] for facts in result.facts.values() if facts}
    if len(sizes) > 1:
        raise SystemExit(f"The sides differ in size: {sizes} parameters.")
    return result


def _config(args: argparse.Namespace):  # noqa: ANN202
    """The flagfile's configuration, with pixels, channels and batch."""
    from simsiam_tf import cli
    from simsiam_tf.config import PretrainConfig

    flagfile, size, channels, batch = NETWORKS[args.network]
    config = cli.parse(PretrainConfig, [f"--flagfile={flagfile}"])
    return config, size, channels, args.batch_size or batch or config.batch_size


def _views(batch: int, size: int, channels: int) -> list:
    import numpy as np

    return list(np.random.default_rng(0).normal(size=(2, batch, size, size, channels)).astype("float32"))


def traced_step(precision: str, args: argparse.Namespace):  # noqa: ANN201
    """(the traced step of --network, two views for it, facts); args: network, batch_size, threads."""
    import keras
    import numpy as np
    import tensorflow as tf

    from simsiam_tf import assembly
    from simsiam_tf.cluster import distribute

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    distribute.set_precision(precision)
    config, size, channels, batch = _config(args)
    model = assembly.build_model(config, channels, size)
    model.compile(assembly.build_optimizer(config, 10_000, 100 * batch))
    model.optimizer.build(model.learned_variables())
    views = tuple(tf.constant(x) for x in _views(batch, size, channels))
    traced = tf.function(model.step).get_concrete_function(views)
    size = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return traced, views, {**versions, "batch": batch, "parameters": size}


def _ours(precision: str, args: argparse.Namespace) -> contest.Built:
    from simsiam_tf import memory

    memory.keep()
    traced, views, facts = traced_step(precision, args)

    def step() -> None:
        loss = float(traced(views)["loss"])
        if not math.isfinite(loss):
            raise SystemExit(f"Our loss became {loss}.")

    return step, facts


def _bare(precision: str, args: argparse.Namespace) -> contest.Built:
    from simsiam_tf import memory
    from simsiam_tf.nets import conv

    memory.keep()
    conv.MANY = sys.maxsize  # no Winograd
    traced, _, _ = traced_step(precision, args)
    return bare.replay(traced), {}


def _theirs(compiled: bool, precision: str, args: argparse.Namespace) -> contest.Built:
    import torch
    from peers import torch_training

    torch.set_num_threads(args.threads)
    config, size, channels, batch = _config(args)
    step, count = torch_training.build(config, size, channels, precision, compiled)
    views = [torch.tensor(x).permute(0, 3, 1, 2) for x in _views(batch, size, channels)]
    views = [x.contiguous(memory_format=torch.channels_last) for x in views]
    return functools.partial(step, *views), {"torch": torch.__version__, "parameters": count}


def _table(facts: dict, results: dict[str, contest.Result]) -> str:
    first = next(iter(results.values()))
    said = {k: v for side in first.facts.values() for k, v in side.items()}
    lines = [
        f"{facts['network']}, batch {said['batch']}, {said['parameters']:,} parameters, {facts['date']}",
        f"{facts['cpu']}, {facts['threads']} threads; tensorflow {said['tensorflow']}, "
        f"keras {said['keras']}, torch {said['torch']}",
        f"median seconds a step over {len(first.seconds['ours'])} alternations of {facts['calls']} steps:",
        "",
        f"{'':10}{'ours':>9}{'torch':>9}{'compiled':>10}{'bare':>9}   {'ours / best torch':22}bare / ours",
    ]
    for precision, result in results.items():
        sides = ("ours", "torch", "torch compiled", "bare")
        shown = [f"{result.median(s):.3f}" if s in result.seconds else "–" for s in sides]
        best = result.best([s for s in sides[1:3] if s in result.seconds])
        lines.append(
            f"{precision:10}{shown[0]:>9}{shown[1]:>9}{shown[2]:>10}{shown[3]:>9}   "
            f"{result.summary('ours', best):22}{result.summary('bare', 'ours')}"
        )
        lines += [f"{'':10}{result.warning()}"] if result.disturbed else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
