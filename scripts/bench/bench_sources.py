"""Measures images/s from each kind of place (folder, list, archive, …), or the time to open many files.

    python scripts/bench/bench_sources.py --json=sources.json
    python scripts/bench/bench_sources.py --start=200000

The first command takes the same JPEGs from a folder, a list, archives and tables on the local disk, through
the host stage of the training pipeline (read, decode, crop, resize), in random order as in training, with all
files in the system's cache.

The second command makes small files in folders of 1,000. It opens them three times, each time in a new
process: all files unknown, nothing changed, one file more. Opening comes after the imports and before the
model. Its seconds and its memory are extrapolated to ImageNet's 1,280,000 files in proportion.
"""

from __future__ import annotations

import argparse
import functools
import io
import multiprocessing
import os
import statistics
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import bench_harness
import bench_views

BATCH = 32
FILES = 1_280_000  # in ImageNet's training set, to which starts are extrapolated
AIM_SECONDS, AIM_MIB = 30, 1024  # most for a start on FILES files of which none has changed
CONTENTS, IN_A_FOLDER = 300, 1000  # distinct small files; files in each folder


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--throughput", action="store_true", help="measure images/s of each kind of place; the default"
    )
    parser.add_argument(
        "--start", type=int, metavar="FILES", help="measure the time to open this number of files instead"
    )
    parser.add_argument("--images", type=int, default=512, help="JPEGs in each place")
    parser.add_argument("--folder", help="folder on the disk to test; that of temporary files by default")
    bench_harness.add_arguments(parser, repeats=5, calls=3, threads=None)
    args = parser.parse_args(argv)
    if args.throughput and args.start:
        parser.error("--throughput and --start are two benchmarks. Pass one.")
    if args.images < BATCH:
        parser.error(f"--images={args.images}: at least {BATCH} are needed.")
    metadata = bench_harness.machine_metadata(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        os.environ["SIMSIAM_TF_CACHE"] = f"{made}/cache"  # an empty cache, in which no file is known
        os.environ["HF_DATASETS_CACHE"] = f"{made}/datasets"
        if args.start:
            starts = time_starts(Path(made), args.start)
            print(_start_table(metadata, starts))
            figures = {"starts": starts}
        else:
            specs = make_places(Path(made), args.images)
            candidates = [
                bench_harness.Candidate(
                    name,
                    functools.partial(_reader, spec, args.images, args.threads),
                    args.images // BATCH * BATCH,
                )
                for name, spec in specs.items()
            ]
            result = bench_harness.time_candidates(candidates, args.repeats, args.calls, args.threads)
            metadata |= result.metadata["folder"] | {"images": args.images}
            print(_place_table(metadata, result))
            figures = result.as_json()
    bench_harness.write_json(args.json, {**metadata, **figures})
    return 0


def make_places(root: Path, count: int) -> dict[str, str]:
    """Writes the same JPEGs into every kind of place; returns the specification of each."""
    folder = root / "folder"
    folder.mkdir()
    bench_views.photographs(folder, count)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    specs = {"folder": f"folder:{folder}"}
    for name, write in WRITERS.items():
        modules = {"parquet": ["pyarrow"], "hf": ["datasets", "pyarrow"]}.get(name, [])
        if hint := bench_harness.install_hint(*modules):
            print(f"{name}: {hint}", file=sys.stderr)
            continue
        place = root / name
        write(place, files)
        specs[name] = f"{name}:{place}"
    return specs


def _write_list(place: Path, files: dict[str, bytes]) -> None:
    place.write_text("".join(f"folder/{name}\n" for name in files))


def _write_tar(place: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(place, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _write_zip(place: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:  # as most programs do
        for name, data in files.items():
            archive.writestr(name, data)


def _write_parquet(place: Path, files: dict[str, bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": list(files.values())}), place, row_group_size=100)


def _write_tfrecord(place: Path, files: dict[str, bytes]) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(place)) as writer:
        for data in files.values():
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(data)
            writer.write(example.SerializeToString())


def _write_hf(place: Path, files: dict[str, bytes]) -> None:
    """A folder of Parquet, as sets of the Hub are stored."""
    import datasets

    place.mkdir()
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"bytes": data, "path": None} for data in files.values()]}
    datasets.Dataset.from_dict(rows, features).to_parquet(place / "train-00000-of-00001.parquet")


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], None]] = {
    "list": _write_list, "tar": _write_tar, "zip": _write_zip, "parquet": _write_parquet,
    "tfrecord": _write_tfrecord, "hf": _write_hf,
}  # fmt: skip


def _reader(spec: str, count: int, threads: int) -> bench_harness.TimedCall:
    """A call that takes crops of `count` images from the training pipeline."""
    import tensorflow as tf

    from simsiam_tf.data import AUGMENTATIONS, Views, open_source, pipeline

    bench_harness.set_threads(threads)
    # No views are made ahead while other candidates run.
    pipeline.PARALLEL, pipeline.PREFETCHED_STEPS = (threads if threads > 1 else None), 0
    views = Views(AUGMENTATIONS["imagenet"])
    batches = pipeline.StepBatches(open_source(spec), views, BATCH, augment_on_host=False)
    iterator = iter(batches.dataset(0, 10**6))

    def call() -> None:
        for _ in range(count // BATCH):
            next(iterator)

    return call, {"tensorflow": tf.__version__}


def make_files(root: Path, count: int) -> None:
    """Writes small JPEG and PNG files of a few hundred contents into folders of 1,000."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    contents = []
    for i in range(CONTENTS):
        height, width = rng.integers(24, 49, 2)
        file, name = io.BytesIO(), ("JPEG", "PNG")[i % 2]
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file, name)
        contents.append((name.lower().replace("e", ""), file.getvalue()))
    for i in range(count):
        folder = root / f"n{i // IN_A_FOLDER:08d}"
        if i % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        suffix, data = contents[i % CONTENTS]
        (folder / f"{folder.name}_{i:08d}.{suffix}").write_bytes(data)


def time_starts(root: Path, count: int) -> dict[str, dict]:
    """Metrics of three starts: the first, one where no file has changed, one with one file more."""
    folder = root / "files"
    print(f"making {count:,} files", file=sys.stderr)
    make_files(folder, count)
    starts = {}
    for name in ("first", "unchanged", "one more file"):
        if name == "one more file":
            _, *rest = sorted((folder / "n00000000").iterdir())
            (folder / "n00000000" / "new.jpg").write_bytes(rest[0].read_bytes())
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            starts[name] = pool.apply(_start, (f"folder:{folder}",))
        print(f"{name}: {starts[name]}", file=sys.stderr)
    return starts


def _start(spec: str) -> dict:
    """Opens a set as every command does; returns seconds, peak memory and the number of files checked."""
    from simsiam_tf.command_line import cli

    began = time.perf_counter()
    with cli.heavy_imports():
        from simsiam_tf.data import open_source
        from simsiam_tf.data.sources import checked_source

    checked, check = [], checked_source.decode_checked
    checked_source.decode_checked = lambda *args, **options: checked.append(1) or check(*args, **options)
    imported, base = time.perf_counter(), bench_harness.peak_mib(os.getpid())
    others = bench_harness.busy_seconds() - time.process_time()
    source = open_source(spec)
    source.contents()
    opened = time.perf_counter()
    others = bench_harness.busy_seconds() - time.process_time() - others
    return {
        "files": source.size, "checked": len(checked), "import_seconds": imported - began,
        "open_seconds": opened - imported, "import_mib": base,
        "peak_mib": bench_harness.peak_mib(os.getpid()), "cores_of_others": others / (opened - imported),
    }  # fmt: skip


def extrapolated(start: dict, files: int = FILES) -> tuple[float, float]:
    """(seconds, peak MiB) of a start on `files` files."""
    ratio = files / start["files"]
    memory = start["import_mib"] + (start["peak_mib"] - start["import_mib"]) * ratio
    return start["import_seconds"] + start["open_seconds"] * ratio, memory


def _start_table(metadata: dict, starts: dict[str, dict]) -> str:
    lines = [
        f"{starts['first']['files']:,} files, {metadata['date']}",
        f"{metadata['cpu']}",
        "",
        f"{'start':16}{'checked':>10}{'imports s':>11}{'opening s':>11}{'peak MiB':>10}"
        f"{f'{FILES:,} files':>22}",
    ]
    for name, start in starts.items():
        seconds, memory = extrapolated(start)
        lines.append(
            f"{name:16}{start['checked']:10,}{start['import_seconds']:11.1f}{start['open_seconds']:11.2f}"
            f"{start['peak_mib']:10.0f}{seconds:12.0f} s {memory:6.0f} MiB"
        )
    lines.append(f"aim for unchanged files: {AIM_SECONDS} s, {AIM_MIB} MiB")
    others = max(start["cores_of_others"] for start in starts.values())
    timings = bench_harness.Timings({}, {}, others, {})
    lines += [timings.warning()] if timings.disturbed else []
    return "\n".join(lines)


def _place_table(metadata: dict, result: bench_harness.Timings) -> str:
    lines = [
        f"{metadata['images']} JPEGs of 500×375 → crops, {metadata['date']}",
        f"{metadata['cpu']}, {metadata['threads']} threads; tensorflow {metadata['tensorflow']}",
        f"medians of {len(result.seconds['folder'])} alternations:",
        "",
        f"{'':10}{'images/s':>10}   × folder (range)",
    ]
    for name in result.seconds:
        rates = result.ratios("folder", name)
        times = f"{statistics.median(rates):.2f} ({min(rates):.2f}–{max(rates):.2f})"
        lines.append(f"{name:10}{1 / result.median(name):10.0f}   {times if name != 'folder' else '1'}")
    lines += [result.warning()] if result.disturbed else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
