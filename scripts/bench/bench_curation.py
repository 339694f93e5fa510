"""Measures time and memory of the answers from features, and how much of what was planted they find.

    python scripts/bench/bench_curation.py --images=50000
    python scripts/bench/bench_curation.py --images=1000000 --json=curation.json  # 2 GiB of disk

The features lie in clusters of 16 dimensions, in a memory-mapped file. Planted are copies (1 % of the rows, a
part of them exact, the others moved by up to 5 % of their length), strangers (0.1 %, in directions of their
own) and wrong labels (2 %). Seconds are those of the clock and, beside them, those of all cores together,
which other programs disturb less. Peak memory is that of one answer (VmHWM, reset before it) above the start;
it includes the pages of the file that the system keeps in memory, which are printed beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_harness
import numpy as np

CLUSTERS, DIMENSIONS = 50, 16
COPIES, STRANGERS, WRONG = 0.01, 0.001, 0.02  # shares of the rows
MOVED = 0.05  # the most that a copy is moved, in its length
BLOCK = 8192


def make_features(path: Path, rows: int, width: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Writes features [rows, width]; returns them memory-mapped, and what was planted, row numbers by name.

    "copies" are rows, "sources" those that they are copies of; "label" has a label for each row.
    """
    rng = np.random.default_rng(rows)
    centres = rng.standard_normal((CLUSTERS, width), np.float32)
    bases = rng.standard_normal((CLUSTERS, DIMENSIONS, width), np.float32) * (0.6 / DIMENSIONS**0.5)
    label = np.sort(rng.choice(CLUSTERS, rows, p=rng.dirichlet(np.full(CLUSTERS, 3.0))))
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    for c in range(CLUSTERS):
        members = np.flatnonzero(label == c)
        for start in range(0, len(members), BLOCK):
            part = members[start : start + BLOCK]
            array[part] = centres[c] + rng.standard_normal((len(part), DIMENSIONS), np.float32) @ bases[c]
    chosen = rng.permutation(rows)
    copies, sources, strangers, wrong = np.split(
        chosen[: round((2 * COPIES + STRANGERS + WRONG) * rows)],
        np.cumsum([round(COPIES * rows), round(COPIES * rows), round(STRANGERS * rows)]),
    )
    for start in range(0, len(copies), BLOCK):
        part = slice(start, start + BLOCK)
        original = array[sources[part]]
        moved = rng.standard_normal(original.shape, np.float32) / width**0.5
        moved *= np.linalg.norm(original, axis=1, keepdims=True) * rng.choice(
            [0, MOVED / 5, MOVED], (len(original), 1)
        )
        array[copies[part]] = original + moved
    label[copies] = label[sources]
    array[strangers] = 1.2 * rng.standard_normal((len(strangers), width), np.float32)
    true = label.copy()
    label[wrong] = (label[wrong] + rng.integers(1, CLUSTERS, len(wrong))) % CLUSTERS
    array.flush()
    planted = {"copies": copies, "sources": sources, "strangers": strangers, "wrong": wrong}
    return np.load(path, mmap_mode="r"), {**planted, "label": label, "true": true}


def found(rows: np.ndarray, planted: np.ndarray) -> str:
    """Recall and precision of rows in what was planted."""
    right = len(np.intersect1d(rows, planted))
    return f"recall {right / max(1, len(planted)):.3f}, precision {right / max(1, len(rows)):.3f}"


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result of a call, its seconds, and its peak memory above the start in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, began, others = memory("VmRSS"), time.perf_counter(), bench_harness.busy_seconds()
    cpu = time.process_time()
    result = call()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    others = (bench_harness.busy_seconds() - others - cpu) / seconds
    return result, {
        "seconds": seconds, "cpu_seconds": cpu, "cores_of_others": others,
        "mib": memory("VmHWM") - before, "mib_of_files": memory("RssFile"),
    }  # fmt: skip


def memory(name: str) -> float:
    """A line of /proc/self/status in MiB."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=5_000, help="rows of features")
    parser.add_argument("--features", type=int, default=512, help="numbers in a row")
    parser.add_argument("--k", type=int, default=20, help="neighbours")
    parser.add_argument("--search", default="auto", help="auto, exact or faiss")
    parser.add_argument("--subset", type=int, default=500, help="rows to choose")
    parser.add_argument("--folder", help="folder for the features; by default that of temporary files")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)

    import sklearn.cluster  # noqa: F401 - so that no answer is charged for the import

    from simsiam_tf import curation

    metadata: dict = {
        "machine": bench_harness.machine_metadata(multiprocessing.cpu_count()),
        "images": args.images, "features": args.features, "k": args.k,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        x, planted = make_features(Path(folder) / "features.npy", args.images, args.features)
        file_mib = x.nbytes / 2**20
        print(f"{args.images:,} × {args.features}, {file_mib:.0f} MiB")
        graph, figures = timed(lambda: curation.neighbour_graph(x, args.k, args.search))
        label = planted["label"]
        answers: dict[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
            "duplicates": (
                lambda: curation.duplicates(x, graph),
                lambda a: (
                    found(np.append(a.others, a.kept), np.append(planted["copies"], planted["sources"]))
                    + f", cosine {a.threshold:.5f}"
                ),
            ),
            "outliers": (
                lambda: curation.outliers(x, graph),
                lambda a: found(a.rows[: len(planted["strangers"])], planted["strangers"]),
            ),
            "k-means": (
                lambda: curation.k_means_clusters(x, labels=label),
                lambda a: f"{len(a.size)} clusters, purity {purity(a.cluster, planted['true']):.3f}",
            ),
            "HDBSCAN": (
                lambda: curation.hdbscan_clusters(x, labels=label),
                lambda a: (
                    f"{len(a.size)} clusters, purity {purity(a.cluster, planted['true']):.3f}, "
                    f"{np.mean(a.cluster < 0):.3f} in none"
                ),
            ),
            "k-centre": (
                lambda: curation.subset(x, args.subset, method="k_centre"),
                lambda a: f"last at {a.score[-1]:.3f}, {len(np.unique(planted['true'][a.rows]))} clusters",
            ),
            "typical": (
                lambda: curation.subset(x, args.subset, method="typical", graph=graph),
                lambda a: f"{len(np.unique(planted['true'][a.rows]))} clusters",
            ),
            "suspects": (
                lambda: curation.suspects(x, label, graph),
                lambda a: found(a.rows, planted["wrong"]),
            ),
        }
        table = {"neighbour graph": {**figures, "finds": f"recall {graph.recall:.3f} ({args.search})"}}
        print_row("neighbour graph", table["neighbour graph"])
        for name, (call, describe) in answers.items():
            answer, figures = timed(call)
            table[name] = {**figures, "finds": describe(answer)}
            print_row(name, table[name])
    seconds, cpu = (sum(row[name] for row in table.values()) for name in ("seconds", "cpu_seconds"))
    print(f"{'together':16}{seconds:9.1f} s {cpu:9.1f} s of cores")
    others = max(row["cores_of_others"] for row in table.values() if row["seconds"] > 1)
    print(bench_harness.Timings({}, {}, others, {}).warning())
    bench_harness.write_json(args.json, {**metadata, "file_mib": file_mib, "answers": table})
    return 0


def purity(cluster: np.ndarray, label: np.ndarray) -> float:
    """Share of the rows in clusters that have the commonest label of their cluster."""
    inside = cluster >= 0
    counts = np.zeros((cluster.max() + 1, label.max() + 1))
    np.add.at(counts, (cluster[inside], label[inside]), 1)
    return float(counts.max(axis=1).sum() / max(1, inside.sum()))


def print_row(name: str, row: dict) -> None:
    print(
        f"{name:16}{row['seconds']:9.1f} s {row['cpu_seconds']:9.1f} s of cores  peak {row['mib']:7.0f} MiB"
        f" above the start ({row['mib_of_files']:.0f} of files)  {row['finds']}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
