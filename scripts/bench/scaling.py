"""Computes (does not measure) how efficient training is on 8, 64 and 512 accelerators.

    python scripts/bench/scaling.py                                       # the tables of docs/scaling.md
    python scripts/bench/scaling.py --step_seconds=0.05 --accelerators 16 32

What a step computes and sends is counted on the real model. Its times are computed from these counts, from
the bandwidths and latencies that manufacturers publish, and from the few measured numbers that are defaults
of the options. docs/scaling.md says where every default comes from.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable

import bench_harness
import interconnects
from interconnects import System
from scaling_model import StepCounts, count_step, step_seconds

GRPC, NCCL = "H100, gRPC beyond 8", "H100, 8 × 400 Gbit/s"
# Each row adds a change to the rows above: change, system, whether the gradient is sent in packs during the
# backward pass.
CHANGES = [
    ("without NCCL between machines", GRPC, False),
    ("as it is", NCCL, False),
    ("gradient in packs, during the backward pass", NCCL, True),
]


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    sent = count_step(args.flagfile)
    use = dict(zip(interconnects.PEAK, args.use, strict=True))
    if args.step_seconds:
        use = {
            name: args.batch / args.step_seconds * sent.flops / peak
            for name, peak in interconnects.PEAK.items()
        }
    grpc = interconnects.Link(args.grpc_bandwidth, args.grpc_hop)
    systems = interconnects.systems(sent.flops, args.cpu_batch / args.cpu_step, grpc, use)
    print(text(args, sent, systems))
    bench_harness.write_json(args.json, results(args, sent, systems))
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add: Callable = parser.add_argument
    add("--flagfile", default="flags/imagenet/simsiam_100ep.cfg", help="flagfile of the model")
    add("--accelerators", type=int, nargs="+", default=[8, 64, 512], help="how many: powers of two from 8 on")
    add("--batch", type=int, default=64, help="images per accelerator and step, for weak scaling")
    add("--global_batch", type=int, default=512, help="images per step of all, for strong scaling")
    add(
        "--step_seconds",
        type=float,
        help="seconds of a step of --batch images on any GPU or TPU; replaces --use",
    )
    add("--use", type=float, nargs=3, default=[0.19, 0.11, 0.19], metavar="SHARE",
        help=f"shares of the peak that a step reaches: {', '.join(interconnects.PEAK)}")  # fmt: skip
    add("--cpu_step", type=float, default=2.668, help="measured seconds of a step on a CPU")
    add("--cpu_batch", type=int, default=16, help="images of the step that --cpu_step measured")
    add("--grpc_hop", type=float, default=0.72e-3, help="measured seconds of a hop over gRPC")
    add("--grpc_bandwidth", type=float, default=0.22e9, help="measured bytes/s over gRPC")
    add("--host_rate", type=float, default=658, help="measured images/s a core decodes, crops, resizes")
    add("--host_rate_all", type=float, default=372, help="measured images/s a core makes whole views of")
    add("--check_rate", type=float, default=1790, help="measured images/s a core decodes, and no more")
    add(
        "--embed_rate",
        type=float,
        nargs=2,
        default=[1912, 3229],
        metavar="IMAGES",
        help="published images/s whose features an A100 computes, in TF32 and in mixed precision",
    )
    add("--h100_factor", type=float, default=1.85, help="published speed of an H100, that of an A100 being 1")
    add("--embed_images", type=float, default=100e6, help="images to compute features of")
    add("--image_bytes", type=float, default=110e3, help="mean bytes of an encoded image of ImageNet")
    add("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    if any(n < 8 or n & (n - 1) for n in args.accelerators):
        parser.error(f"--accelerators {args.accelerators}: powers of two from 8 on are wanted.")
    return args


def text(args: argparse.Namespace, sent: StepCounts, systems: dict[str, System]) -> str:
    """All tables in Markdown, each under its title."""
    tables = [
        ("What a step sends", _sent(args, sent)),
        ("Accelerators alone", _alone(args, sent, systems)),
        ("One small all-reduce, µs", _small(args, systems)),
        (f"Weak scaling: {args.batch} images an accelerator", _scaling(args, sent, systems, "weak")),
        (f"Strong scaling: {args.global_batch} images a step", _scaling(args, sent, systems, "strong")),
        ("Images", _images(args, systems)),
        ("Features of a set, 8 GPUs", _features(args, systems)),
        ("What must change first", _changes(args, sent, systems)),
    ]
    return "\n".join(f"### {title}\n\n{table}\n" for title, table in tables)


def results(args: argparse.Namespace, sent: StepCounts, systems: dict[str, System]) -> dict:
    """Weak and strong scaling as numbers, for the JSON file."""
    rows = []
    for kind in ("weak", "strong"):
        for system, n, batch in _settings(args, systems, kind):
            seconds = step_seconds(system, n, batch, sent)
            rows.append({
                "scaling": kind, "system": system.name, "accelerators": n, "batch": n * batch,
                **dataclasses.asdict(seconds), "no_overlap": seconds.no_overlap,
                "full_overlap": seconds.full_overlap,
                "efficiency": [seconds.efficiency(s) for s in (seconds.no_overlap, seconds.full_overlap)],
            })  # fmt: skip
    return {"arguments": vars(args), "sent": dataclasses.asdict(sent), "rows": rows}


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def _sent(args: argparse.Namespace, sent: StepCounts) -> str:
    gathered = ", ".join(f"{sent.z_bytes(n * args.batch) / 1e6:.1f}" for n in args.accelerators)
    each = sent.norm_bytes / sent.norm_all_reduces / 1e3
    rows = [
        ("trained parameters", f"{sent.parameters:,}"),
        ("gradient, float32, one all-reduce", f"{sent.gradient_bytes / 1e6:.1f} MB"),
        ("BN layers; channels of all", f"{sent.layers}; {sent.channels:,}"),
        ("all-reduces of BN statistics", f"{sent.norm_all_reduces:.0f} of {each:.1f} KB each"),
        (f"at a record, z of all, {args.batch} images each, n = {args.accelerators}", f"{gathered} MB"),
        ("arithmetic, an image", f"{sent.flops / 1e9:.2f} GFLOP"),
    ]
    return _markdown((f"a step, {sent.views} views", ""), rows)


def _alone(args: argparse.Namespace, sent: StepCounts, systems: dict[str, System]) -> str:
    rows = [
        (s.name, f"{s.images:,.0f}", _seconds(args.batch / s.images), f"{s.images * sent.flops / 1e12:.2f}")
        for s in systems.values()
    ]
    return _markdown(("", "images/s", f"step of {args.batch}", "TFLOP/s"), rows)


def _small(args: argparse.Namespace, systems: dict[str, System]) -> str:
    rows = []
    for system in systems.values():
        by = [system.small_by(n) for n in args.accelerators]
        rows.append((system.name, *(" / ".join(f"{1e6 * s:,.0f}" for s in each.values()) for each in by)))
    return _markdown(("ring / tree where there is one", *_each(args)), rows)


def _settings(
    args: argparse.Namespace, systems: dict[str, System], kind: str
) -> list[tuple[System, int, float]]:
    batch = {"weak": lambda n: args.batch, "strong": lambda n: args.global_batch / n}[kind]
    return [(s, n, batch(n)) for s in systems.values() for n in args.accelerators]


def _scaling(args: argparse.Namespace, sent: StepCounts, systems: dict[str, System], kind: str) -> str:
    rows = []
    for system, n, batch in _settings(args, systems, kind):
        t = step_seconds(system, n, batch, sent)
        seconds = (_seconds(s) for s in (t.compute, t.gradient, t.norm))
        both = f"{_percent(t.efficiency(t.no_overlap))} – {_percent(t.efficiency(t.full_overlap))}"
        rows.append(
            (system.name, f"{n}", f"{n * batch:,.0f}", *seconds, both, f"{n * batch / t.no_overlap:,.0f}")
        )
    head = ("", "n", "batch", "arithmetic", "gradient", "BN", "efficiency", "images/s at least")
    return _markdown(head, rows)


def _images(args: argparse.Namespace, systems: dict[str, System]) -> str:
    rows = []
    for s in systems.values():
        cores = (f"{s.images / rate:.2f}" for rate in (args.host_rate, args.host_rate_all))
        read = (f"{n * s.images * args.image_bytes / 1e9:.2f}" for n in args.accelerators)
        rows.append((s.name, f"{s.images:,.0f}", *cores, f"{s.cores:g}", *read))
    head = ("one accelerator", "images/s", "cores for crops", "cores for whole views", "cores available")
    return _markdown((*head, *(f"GB/s that all read, {n}" for n in _each(args))), rows)


def _features(args: argparse.Namespace, systems: dict[str, System], gpus: int = 8) -> str:
    rows = []
    for name, factor in (("A100, 8 × 200 Gbit/s", 1.0), (NCCL, args.h100_factor)):
        for option, rate in zip(("embed", "embed --fast"), args.embed_rate, strict=True):
            images = gpus * factor * rate
            views, check = images / args.host_rate, images / args.check_rate
            hours = args.embed_images / images / 3600
            rows.append((
                f"{name.partition(',')[0]}, {option}", f"{images:,.0f}", f"{hours:.1f}",
                f"{views:.0f}", f"{views + check:.0f}", f"{gpus * systems[name].cores:g}",
                f"{images * args.image_bytes / 1e9:.1f}",
            ))  # fmt: skip
    head = (f"{gpus} GPUs", "images/s", f"hours for {args.embed_images / 1e6:.0f} million")
    cores = ("cores for views", "with the check", "cores available", "GB/s of images")
    return _markdown((*head, *cores), rows)


def _changes(args: argparse.Namespace, sent: StepCounts, systems: dict[str, System]) -> str:
    rows = []
    for what, name, packs in CHANGES:
        steps = (step_seconds(systems[name], n, args.batch, sent) for n in args.accelerators)
        shares = (_percent(t.efficiency(t.gradient_overlap if packs else t.no_overlap)) for t in steps)
        rows.append((what, *shares))
    return _markdown((f"H100, {args.batch} images each", *_each(args)), rows)


def _each(args: argparse.Namespace) -> list[str]:
    return [f"n = {n}" for n in args.accelerators]


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _percent(share: float) -> str:
    if share < 1e-4:
        return "< 0.01 %"
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2f} %"


if __name__ == "__main__":
    sys.exit(main())
