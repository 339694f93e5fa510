"""Archives of images: tar files, such as WebDataset's shards, and zip files, by random access."""

from __future__ import annotations

import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from simsiam_tf.data.sources.addresses import address_states, expand, open_address, read_bytes, reads_at_once
from simsiam_tf.data.sources.file_records import kept_arrays
from simsiam_tf.data.sources.members import Members, folder_classes, is_image_name
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

_LOCAL_HEADER = 30  # bytes of a zip member's header, before a name and an extra field
_ENCRYPTED = 1  # flag of a zip member
NO_LABEL = -1


def tar_members(pattern: str) -> Members:
    """The images in tar files, labelled by .cls files as in WebDataset, or by folders without .cls files.

    pattern: path or URL, which may have braces (shard-{000..127}.tar), *, ? and [].
    """
    return _archive_members("tar", pattern, _scan_tar)


def zip_members(pattern: str) -> Members:
    """The images in zip files, labelled by their folders. pattern: as for `tar_members`."""
    return _archive_members("zip", pattern, _scan_zip)


def _archive_members(kind: str, pattern: str, scan: Callable[[str], dict[str, Any]]) -> Members:
    name = f"{kind}:{pattern}"
    archives = expand(pattern)
    tables, states = [], [tuple(state) for state in address_states(archives).tolist()]
    for archive, state in progress.bar(
        list(zip(archives, states, strict=True)), f"listing the files in {printable_text(name)}"
    ):
        try:
            tables.append(kept_arrays(f"{kind}\0{archive}\0{state}", lambda archive=archive: scan(archive)))
        except UserError:
            raise
        except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{printable_text(name)}: {archive} is damaged or cut off ({reason}).") from error
    sizes = [len(table["name"]) for table in tables]
    if not sum(sizes):
        raise UserError(f"{printable_text(name)}: holds no image, in {counted(len(archives), 'archive')}.")
    column = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    archive_of = np.repeat(np.arange(len(archives)), sizes)
    names = column["name"].tolist()
    labels, class_names = _classes(names, column["label"])
    if len(archives) > 1:
        names = [f"{posixpath.basename(archives[a])}/{n}" for a, n in zip(archive_of, names, strict=True)]

    def read(i: int) -> bytes:
        archive, offset, length = archives[archive_of[i]], int(column["offset"][i]), int(column["length"][i])
        if kind == "tar":
            return read_bytes(archive, (offset, length))
        return _zip_member(
            archive, offset, length, *(int(column[key][i]) for key in ("size", "method", "crc"))
        )

    return Members(
        name, names, np.array(states, np.int64)[archive_of], read, "\0".join([kind, *archives]), labels,
        class_names, sizes=column["length" if kind == "tar" else "size"],
        reads_at_once=reads_at_once(archives),
    )  # fmt: skip


def _classes(names: list[str], labels: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(labels, class names): the labels of .cls files if any image has one, else those of the folders."""
    if (labels == NO_LABEL).all():
        return folder_classes(names)
    return labels, tuple(map(str, range(labels.max() + 1)))


def _scan_tar(address: str) -> dict[str, Any]:
    """Reads names, offsets, lengths and labels of the images in a tar file, in one pass over its headers."""
    rows: list[tuple[str, int, int]] = []
    labels: dict[str, int] = {}  # a sample's name up to its first dot → label
    with open_address(address) as file:
        if file.read(2) == b"\x1f\x8b":
            raise UserError(f"{address}: is compressed, so that no single file can be read. Unpack it.")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                cast(Any, archive).members = []  # tarfile would keep all members in memory
                if not member.isfile():
                    continue
                if member.name.endswith(".cls"):
                    content = archive.extractfile(member)
                    labels[_sample(member.name)] = int(content.read()) if content else NO_LABEL
                elif is_image_name(member.name):
                    rows.append((member.name, member.offset_data, member.size))
    names = [name for name, _, _ in rows]
    return {
        "name": np.array(names, object), "offset": np.array([r[1] for r in rows], np.int64),
        "length": np.array([r[2] for r in rows], np.int64),
        "label": np.array([labels.get(_sample(name), NO_LABEL) for name in names], np.int64),
    }  # fmt: skip


def _sample(name: str) -> str:
    """A file's name up to the first dot after its folder, which all files of a WebDataset sample share."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def _scan_zip(address: str) -> dict[str, Any]:
    with open_address(address) as file, zipfile.ZipFile(file) as archive:
        infos = [i for i in archive.infolist() if not i.is_dir() and is_image_name(i.filename)]
    columns = {
        "offset": [i.header_offset for i in infos], "length": [i.compress_size for i in infos],
        "size": [i.file_size for i in infos], "crc": [i.CRC for i in infos],
        "method": [-1 if i.flag_bits & _ENCRYPTED else i.compress_type for i in infos],
        "label": [NO_LABEL] * len(infos),
    }  # fmt: skip
    arrays = {key: np.array(values, np.int64) for key, values in columns.items()}
    return {"name": np.array([i.filename for i in infos], object), **arrays}


def _zip_member(address: str, offset: int, length: int, size: int, method: int, crc: int) -> bytes:
    """Reads a member; offset … crc: its row of `_scan_zip`.

    Raises:
        ValueError: it is encrypted, compressed by another method than deflate, or damaged.
    """
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("encrypted" if method < 0 else f"compressed by method {method}, which is not read")
    header = read_bytes(address, (offset, _LOCAL_HEADER))
    names = sum(struct.unpack("<HH", header[26:30]))  # lengths of its name and extra field
    data = read_bytes(address, (offset + _LOCAL_HEADER + names, length))
    if method == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    if len(data) != size or zlib.crc32(data) != crc:
        raise ValueError("damaged: its checksum differs")
    return data
