"""Whether a .keras file holds what Keras itself writes for a network, and nothing that acts.

A .keras file is a ZIP archive of two JSON files and one HDF5 file. Loading it builds whatever its
config.json names and reads whatever its HDF5 file points to; so both are read first, by the standard
library and h5py, which build and run nothing.
"""

from __future__ import annotations

import io
import json
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
JSON_BYTES = 2**22  # of config.json; a ResNet-50's has 150,000
DIRECTORY_BYTES = 2**12  # of the archive's table of contents; three members take about 200

LAYERS = """Activation Add AveragePooling2D BatchNormalization Concatenate Conv2D Dense DepthwiseConv2D
    Dropout Flatten GlobalAveragePooling2D GlobalMaxPooling2D Identity InputLayer LayerNormalization
    MaxPooling2D Multiply ReLU Rescaling Reshape Softmax ZeroPadding2D"""
INITIALIZERS = """Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones
    RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros"""
PARTS = {  # module → what may be built of it: nothing that runs code, reads a file or calls a function
    "keras.layers": set(LAYERS.split()),
    "keras.initializers": set(INITIALIZERS.split()),
    "keras.regularizers": {"L1", "L2", "L1L2"},
    "keras.src.models.functional": {"Functional"},
    "keras": {"DTypePolicy", "Sequential"},
    None: {"__keras_tensor__"},
}
OWN = re.compile(r"simsiam_tf\.nets\.\w+")  # modules whose registered layers may be built, too

_PICKLE = "a pickle, which can run code"
_OUTWARD = "HDF5 alone, which can point to other files"
OTHERS = {  # suffix → what such a file is
    ".pth": _PICKLE, ".pt": _PICKLE, ".ckpt": _PICKLE, ".pkl": _PICKLE, ".pickle": _PICKLE,
    ".bin": _PICKLE, ".joblib": _PICKLE, ".npy": "an array, which can be a pickle",
    ".npz": "arrays, which can be pickles", ".h5": _OUTWARD, ".hdf5": _OUTWARD,
    ".pb": "a SavedModel, which can run code", ".index": "a checkpoint without its network",
    ".safetensors": "weights without their network",
}  # fmt: skip
TORCH = (".pth", ".pt", ".ckpt", ".pth.tar", ".bin", ".safetensors")  # what `convert` reads of these


def other_kind(path: Path) -> str | None:
    """What a file or folder is that is no .keras file, by its name; it is not opened."""
    if path.is_dir():
        return "a SavedModel, which can run code" if (path / "saved_model.pb").exists() else None
    if path.suffix == ".keras":
        return None
    return OTHERS.get(path.suffix.lower(), "no .keras file")


def read(path: Path) -> tuple[dict, int]:
    """A harmless .keras file's configuration, and how many numbers its weights are.

    Takes about twice as much memory as the file is long.

    Raises:
        Refused: saying in a few words why the file must not be loaded.
        Exported: it takes images as they are.
    """
    try:
        with open(path, "rb") as file:
            _directory(file)
            with zipfile.ZipFile(file) as archive:
                _members(archive)
                config = {**_json(archive.read("config.json")), "compile_config": None}  # never compiled
                _json(archive.read("metadata.json"))
                _parts(config)
                return config, _weights(archive.read("model.weights.h5"))
    except (Exported, Refused):
        raise
    except Exception as error:  # noqa: BLE001 - the libraries raise whatever the file provokes
        raise Refused(f"it is no Keras model ({' '.join(str(error).split())[:200]})") from error


class Exported(ValueError):
    """The file is what `export format=keras` wrote, not a backbone; in words."""

    def __init__(self) -> None:
        super().__init__(
            "an export with its preprocessing inside, for other programs; commands here take the run that "
            "it was made from"
        )


class Refused(ValueError):
    """Why a file must not be loaded, in one printable line whatever the file's own words are."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason if reason.isprintable() else ascii(reason))


def _directory(file: BinaryIO) -> None:
    """The table of contents, whose length the archive's last 22 bytes give (APPNOTE 4.3.16).

    The standard library reads it whole, and keeps some ten times as much of it in memory.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 42))
    locator, end = (tail := file.read())[:-22], tail[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise Refused("it is no Keras model (not an archive, or cut off)")
    long = locator[:4] == b"PK\6\7" and size < 2**31  # another table, as large archives have
    if long or struct.unpack("<I", end[12:16])[0] > DIRECTORY_BYTES:
        raise Refused("it holds more files than Keras writes")


def _members(archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    for name in names:
        if name not in MEMBERS:
            raise Refused(f"it holds {name[:100]!r}, which Keras does not write")
    if len(names) != len(MEMBERS) or set(names) != MEMBERS:
        raise Refused(f"it holds {', '.join(names)} instead of {', '.join(sorted(MEMBERS))}")
    for info in infos:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Refused(f"its {info.filename} is a link")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            # Compressed, a member may be longer than it says, and expand a thousandfold.
            raise Refused(f"its {info.filename} is compressed, which Keras does not do")
        if info.filename.endswith(".json") and info.file_size > JSON_BYTES:
            raise Refused(f"its {info.filename} has {info.file_size} bytes")


def _json(data: bytes) -> dict:
    whole = json.loads(data)
    if not isinstance(whole, dict):
        raise Refused("it is no Keras model (its JSON is no object)")
    return whole


def _parts(config: dict) -> None:
    """Everything that loading would build, against what a network is made of."""
    for part in _described(config):
        module, name, registered = (part.get(k) for k in ("module", "class_name", "registered_name"))
        if not (isinstance(module, str | None) and isinstance(name, str)):
            raise Refused(f"it asks for {str(name)[:100]!r} of {str(module)[:100]!r}")
        if "lambda" in name.lower():
            raise Refused(f"it has a {name[:100]}, which runs code of its own")
        if (module, name) == ("simsiam_tf.data.augment.eval_transform", "EvalTransform"):
            raise Exported
        own = bool(module and OWN.fullmatch(module))
        if not own and name not in PARTS.get(module, ()):
            raise Refused(f"it asks for {module}.{name}"[:200] + ", which is no part of a network known here")
        # Keras goes by the registered name before it looks at the others.
        if registered not in ((f"simsiam_tf>{name}",) if own else (None, name)):
            raise Refused(f"it asks for {str(registered)[:100]!r} in the name of {name}")


def _described(config: Any) -> Iterator[dict]:
    """All dictionaries within that describe an object; without recursion."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if not part.keys().isdisjoint(("class_name", "module", "registered_name")):
                yield part
            pending += part.values()
        elif isinstance(part, list):
            pending += part


def _weights(data: bytes) -> int:
    """How many numbers an HDF5 file holds, all of them its own."""
    count, held = 0, 0
    with h5py.File(io.BytesIO(data), "r") as file:
        pending, seen = [file["/"]], set()
        while pending:
            group = pending.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise Refused(f"its weights point elsewhere ({group.name}/{name})")
                part = group[name]
                address = h5py.h5o.get_info(part.id).addr
                if address in seen:
                    raise Refused(f"its weights point to themselves ({part.name})")
                seen.add(address)
                if isinstance(part, h5py.Group):
                    pending.append(part)
                    continue
                _own_numbers(part)
                count, held = count + part.size, held + part.nbytes
    if held > len(data):
        raise Refused(f"its weights claim {held} bytes of {len(data)}")
    return count


def _own_numbers(part: Any) -> None:
    if not isinstance(part, h5py.Dataset) or part.shape is None or part.dtype.kind not in "fiub":
        raise Refused(f"its weights are not all numbers ({part.name})")
    if part.external or part.is_virtual:
        raise Refused(f"its weights are kept in another file ({part.name})")
    if part.chunks or part.nbytes != part.id.get_storage_size():
        # Compressed, a megabyte may claim a terabyte.
        raise Refused(f"its weights are stored as Keras does not store them ({part.name})")
