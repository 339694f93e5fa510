"""Embeddings as a folder of Parquet files, each of a range of the images, which many processes write.

shards.json         numbers of images and files, and what the features depend on
part-00000.parquet  columns "name" and "features" of the first images, without unreadable ones; and so on
memory-mapped/      all of them as `embedding_folder` has them; written when the shards are first read
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.features.embedding_folder import ABOUT, read_folder, write_blocks
from simsiam_tf.features.names import ArrowNames, Names
from simsiam_tf.features.parquet import embedding_blocks, read_about, write_parquet
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import TEMPORARY_FILES, atomic_file, atomic_write_text, remove_path
from simsiam_tf.runtime.digests import json_sha256
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError

MANIFEST, PARTS, COPY = "shards.json", "part-*.parquet", "memory-mapped"
SHARD = "shard"  # key of the record of a shard within `Embeddings.about`
WORDS = {"sha256": "weights", "place": "images", "names": "images"}  # digest → its object, for messages


@dataclasses.dataclass(frozen=True)
class Shards:
    """The division of a set into shards, and what its features depend on.

    images: number of images, unreadable ones included. shard_images: images of a shard; the last may have
    fewer. width: F, the number of features of an image. dtype: type of the features in the files.
    dependencies: digests and options that the features depend on, as JSON.
    """

    images: int
    shard_images: int
    width: int
    dtype: str
    dependencies: dict[str, Any]

    @property
    def count(self) -> int:
        return -(-self.images // self.shard_images)

    @property
    def key(self) -> str:
        """A digest of all fields."""
        return json_sha256(dataclasses.asdict(self))

    def images_of(self, number: int) -> range:
        """The images of a shard."""
        start = number * self.shard_images
        return range(start, min(start + self.shard_images, self.images))


def part_file(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / PARTS.replace("*", f"{number:05}")


def missing_shards(
    folder: Path, shards: Shards, contents: Sequence[str], overwrite: bool = False
) -> list[int]:
    """Makes a folder for these shards, or continues one; returns the numbers of the shards that it lacks.

    Shards that are damaged or whose images have changed are removed, and a line on stderr says so.

    contents: digest of the images of each shard. overwrite: whether shards of other weights, images or
    options are removed, too.

    Raises:
        UserError: the folder holds shards of other weights, images or options, or other files.
        OSError: the folder cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"out={folder}: is not a folder. Remove it, or choose another place.")
    folder.mkdir(parents=True, exist_ok=True)
    known = (MANIFEST, PARTS, COPY, TEMPORARY_FILES)
    others = [n for n in sorted(os.listdir(folder)) if not any(fnmatch.fnmatch(n, k) for k in known)]
    if others:
        raise UserError(
            f"out={folder}: is a folder of other files, such as {others[0]}. Choose another place."
        )
    manifest, wanted = folder / MANIFEST, json.loads(json.dumps(dataclasses.asdict(shards)))
    records = {part: _read_record(part) for part in sorted(folder.glob(PARTS))}
    foreign = [part.name for part, record in records.items() if record and record["key"] != shards.key]
    problem = _difference(_read_manifest(folder), wanted) if manifest.exists() else None
    if not problem and foreign:
        problem = f"{foreign[0]} is of other weights, images or options"
    if problem and not overwrite:
        raise UserError(f"out={folder}: {problem}. Choose another folder, or pass `overwrite`.")
    atomic_write_text(manifest, json.dumps(wanted, indent=1) + "\n")
    changed, damaged, content = [], [], dict(enumerate(contents))
    for part, record in records.items():
        if not record or record["key"] != shards.key or record["contents"] != content.get(record["number"]):
            (damaged if not record else changed).append(part)
            part.unlink()
    for parts, why in ((changed, "their images changed"), (damaged, "they are damaged")):
        if parts and not problem:
            shown = f"{folder}: {len(parts)} of {len(records)} shards are made anew, since {why}"
            print(f"{shown}, such as {parts[0].name}", file=sys.stderr)
    return [number for number in range(shards.count) if not part_file(folder, number).exists()]


def _read_manifest(folder: Path) -> Any:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _difference(old: Any, new: dict[str, Any]) -> str | None:
    """The first field in which two manifests differ, in words; None where they are equal."""
    try:
        flat_old, flat_new = ({**m, **m["dependencies"]} for m in (old, new))
    except (TypeError, KeyError):
        return f"its {MANIFEST} is damaged"
    for name, value in flat_new.items():
        if name != "dependencies" and flat_old.get(name) != value:
            values = f"{name}={one_line(flat_old.get(name))[:40]}, not {one_line(value)[:40]}"
            return f"holds shards of {f'other {WORDS[name]}' if name in WORDS else values}"
    return None


def _read_record(part: Path) -> dict[str, Any] | None:
    """The record of a shard, which `write_shard` wrote into its file; None where the file is damaged."""
    try:
        record = read_about(part)[1][SHARD]
        fits = part.name == part_file(part.parent, record["number"]).name
        return record if fits and {"key", "contents", "unreadable"} <= record.keys() else None
    except UserError:
        raise
    except Exception:  # noqa: BLE001 - Arrow raises many types
        return None


def write_shard(
    folder: Path,
    shards: Shards,
    number: int,
    contents: str,
    embeddings: tuple[Names, np.ndarray, dict],
    bad: dict,
) -> None:
    """Writes a shard's file, whole or not at all.

    contents: digest of its images. embeddings: [n] names, [n, F] features and the record of those that are
    readable. bad: name → reason of the others.
    """
    names, features, about = embeddings
    record = {"key": shards.key, "number": number, "contents": contents, "unreadable": bad}
    with atomic_file(part_file(folder, number)) as file:
        write_parquet(file, names, features, {**about, SHARD: record}, np.dtype(shards.dtype))


def finish_shards(folder: Path, shards: Shards) -> tuple[int, dict[str, str]]:
    """Removes temporary files of killed processes; returns (number of rows, unreadable image → reason)."""
    for left in folder.glob(TEMPORARY_FILES):
        remove_path(left)
    abouts = [read_about(part_file(folder, number)) for number in range(shards.count)]
    bad = {name: why for _, about in abouts for name, why in about[SHARD]["unreadable"].items()}
    return sum(rows for rows, _ in abouts), bad


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards."""
    return (folder / MANIFEST).is_file()


def read_shards(folder: Path) -> tuple[ArrowNames, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), the features memory-mapped from a copy of the shards.

    The copy is written where there is none of these files, a block of features in memory at a time.

    Raises:
        ValueError: a file is missing or damaged. UserError: the copy cannot be written.
    """
    shards = Shards(**_read_manifest(folder))
    files = set(folder.glob(PARTS))
    first_missing = next((n for n in range(shards.count) if part_file(folder, n) not in files), None)
    if first_missing is not None:
        raise ValueError(
            f"it has {len(files)} of {shards.count} files, without {part_file(folder, first_missing).name}; "
            "rerun embed"
        )
    parts = [part_file(folder, number) for number in range(shards.count)]
    abouts = [read_about(part) for part in parts]
    wrong = next(
        (p.name for p, (_, a) in zip(parts, abouts, strict=True) if a[SHARD]["key"] != shards.key), None
    )
    if wrong:
        raise ValueError(f"its {wrong} is of other weights, images or options")
    rows = sum(count for count, _ in abouts)
    # Of images with deep pixels the range is recorded where a shard has some.
    about = max((a for _, a in abouts), key=lambda a: "pixel_range" in a.get("pixels", {}))
    about = {name: value for name, value in about.items() if name != SHARD}
    states = [(part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    copied = {**about, "shards": json_sha256({"key": shards.key, "states": states})}
    copy = folder / COPY
    if not _is_copy(copy, copied):
        shown = f"memory-mapped copy of {printable_text(str(folder))}"

        def blocks() -> Iterator[tuple[ArrowNames, np.ndarray]]:
            with progress.bar(None, shown, total=rows, unit="image") as bar:
                for part, (count, _) in zip(parts, abouts, strict=True):
                    yield from embedding_blocks(part, shards.width) if count else ()
                    bar.update(count)

        try:
            write_blocks(copy, (rows, shards.width), blocks(), copied, np.dtype(shards.dtype))
        except OSError as error:
            raise UserError(
                f"embeddings={folder}: its memory-mapped copy, {copy}, cannot be written ({error.strerror})."
            ) from error
    names, features, _ = read_folder(copy)
    return names, features, about


def _is_copy(copy: Path, about: dict) -> bool:
    try:
        return json.loads((copy / ABOUT).read_text(encoding="utf-8")) == about
    except (OSError, ValueError):
        return False
