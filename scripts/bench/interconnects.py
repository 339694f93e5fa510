"""Times of collective operations between accelerators: formulas, and published bandwidths and latencies.

Units: bytes, seconds, and bytes/s in one direction. docs/scaling.md names the sources.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

US, GB, GBIT = 1e-6, 1e9, 1e9 / 8


@dataclasses.dataclass(frozen=True)
class Link:
    """A link of one accelerator to its neighbours.

    bandwidth: bytes/s in one direction.
    hop: latency in seconds to the next member of a ring.
    tree: latency between the levels of a tree; None where there are only rings.
    """

    bandwidth: float
    hop: float
    tree: float | None = None


Rings = Sequence[tuple[int, Link]]  # (members, link), from the inside outwards


def ring(n: int, size: float, link: Link) -> float:
    """All-reduce in a ring of n: 2(n − 1)/n · size / bandwidth + 2(n − 1) · hop."""
    return 2 * (n - 1) * (size / n / link.bandwidth + link.hop)


def all_reduce(rings: Rings, size: float, start: float = 0.0) -> float:
    """Seconds of an all-reduce by nested rings: each level works on the share that the level within left."""
    seconds = start
    for n, link in rings:
        seconds += ring(n, size, link)
        size /= n
    return seconds


def all_gather(rings: Rings, size: float, start: float = 0.0) -> float:
    """Seconds of an all-gather, the second half of an all-reduce. size: bytes of the gathered tensor."""
    return start + all_reduce(rings, size) / 2


def tree(rings: Rings, start: float = 0.0) -> float:
    """Latency of an all-reduce in NCCL's tree: a chain within a machine, a binary tree over machines."""
    (inside, link), *outside = rings
    hops = (inside - 1) * link.tree + sum(math.log2(n) * link.tree for n, link in outside)
    return start + 2 * hops


@dataclasses.dataclass(frozen=True)
class System:
    """Accelerators and their links.

    rings: function of the number of accelerators that returns their nested rings.
    images: images a second, of two views each, that one accelerator trains on alone.
    cores: host cores per accelerator (virtual cores with the TPU).
    start: seconds before the first hop of (a ring, a tree).
    """

    name: str
    rings: Callable[[int], Rings]
    images: float
    cores: float
    start: tuple[float, float] = (0.0, 0.0)

    def all_reduce(self, n: int, size: float) -> float:
        return all_reduce(self.rings(n), size, self.start[0]) if n > 1 else 0.0

    def all_gather(self, n: int, size: float) -> float:
        return all_gather(self.rings(n), size, self.start[0]) if n > 1 else 0.0

    def small(self, n: int) -> float:
        """The latency of an all-reduce of a few kilobytes, by the faster algorithm."""
        return min(self.small_by(n).values())

    def small_by(self, n: int) -> dict[str, float]:
        """Algorithm ("ring", "tree") → latency in seconds."""
        latency = {"ring": self.all_reduce(n, 0)}
        if n > 1 and all(link.tree is not None for _, link in self.rings(n)):
            latency["tree"] = tree(self.rings(n), self.start[1])
        return latency


def flat(link: Link) -> Callable[[int], Rings]:
    """`System.rings` of one ring through all accelerators."""
    return lambda n: [(n, link)]


def machines(inside: Link, outside: Link, size: int = 8) -> Callable[[int], Rings]:
    """`System.rings` of a ring in each machine of `size`, then `size` rings through the machines."""
    return lambda n: [(n, inside)] if n <= size else [(size, inside), (n // size, outside)]


def torus(link: Link) -> Callable[[int], Rings]:
    """`System.rings` along three axes; the bandwidth of `link` is that of all axes together."""
    return lambda n: [(k, link) for k in torus_shape(n)]


def torus_shape(n: int) -> tuple[int, int, int]:
    """Lengths of the three axes of n accelerators: 64 → (4, 4, 4), 128 → (8, 4, 4)."""
    power = n.bit_length() - 1
    if n != 1 << power:
        raise ValueError(f"{n} accelerators: must be a power of two.")
    return tuple(1 << (power + 2 - axis) // 3 for axis in range(3))


# Latencies: the constants of NCCL's own cost model (NVIDIA/nccl, src/graph/tuning.cc, protocol LL).
NCCL_START = 3.6 * US, 4.4 * US
NVLINK3 = Link(300 * GB, 0.47 * US, 0.52 * US)  # A100: 600 GB/s in both directions together
NVLINK4 = Link(450 * GB, 0.47 * US, 0.52 * US)  # H100: 900 GB/s
HDR = Link(200 * GBIT, 2.7 * US, 5.0 * US)  # DGX A100: a 200 Gbit/s port a GPU
NDR = Link(400 * GBIT, 2.7 * US, 5.0 * US)  # DGX H100: a 400 Gbit/s port a GPU
SHARED = Link(100 * GBIT / 8, 2.7 * US, 5.0 * US)  # one 100 Gbit/s port a machine of 8
# TPU v4: all-reduce bandwidth of a Pod over its chips; the hop is assumed.
ICI = Link(1.1e15 / 4096, 1.0 * US)


def systems(flops: float, cpu_images: float, grpc: Link, use: dict[str, float]) -> dict[str, System]:
    """Name → system, for the rows of the tables.

    flops: operations of a step, per image.
    cpu_images: images a second of the measured CPU.
    grpc: the link that was measured over gRPC.
    use: share of the peak that a step reaches, by accelerator.
    """
    a100, h100, v4 = (PEAK[name] * use[name] / flops for name in PEAK)
    grpc_outside = lambda n: [(n, NVLINK4)] if n <= 8 else [(n, grpc)]  # noqa: E731
    rows = [
        System("CPU, 2 cores, gRPC", flat(grpc), cpu_images, 2),
        System("H100, gRPC beyond 8", grpc_outside, h100, 14, NCCL_START),
        System("H100, 8 × 400 Gbit/s", machines(NVLINK4, NDR), h100, 14, NCCL_START),
        System("H100, 1 × 100 Gbit/s", machines(NVLINK4, SHARED), h100, 14, NCCL_START),
        System("A100, 8 × 200 Gbit/s", machines(NVLINK3, HDR), a100, 16, NCCL_START),
        System("TPU v4, ICI", torus(ICI), v4, 60),
    ]
    return {row.name: row for row in rows}


PEAK = {"A100": 312e12, "H100": 989e12, "TPU v4": 275e12}  # bfloat16 without sparsity, FLOP/s
