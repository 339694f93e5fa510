"""Refuses a .keras file that holds anything but a network of stock Keras layers and its weights.

A .keras file is a ZIP archive of two JSON files and one HDF5 file. Loading it builds whatever its
config.json names and reads whatever its HDF5 file points to. So both are read first, by the standard
library and h5py, which build and run nothing. What Keras would not have written is refused.
"""

from __future__ import annotations

import collections
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

MEMBERS = ["config.json", "metadata.json", "model.weights.h5"]
MAX_JSON_BYTES = 2**22  # most in config.json; a ResNet-50's has 150,000
MAX_DIRECTORY_BYTES = 2**12  # most in the archive's table of contents; three members take about 200

LAYERS = """Activation Add AveragePooling2D BatchNormalization Concatenate Conv2D Dense DepthwiseConv2D
    Dropout Flatten GlobalAveragePooling2D GlobalMaxPooling2D Identity InputLayer LayerNormalization
    MaxPooling2D Multiply ReLU Rescaling Reshape Softmax ZeroPadding2D"""
INITIALIZERS = """Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones
    RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros"""
ALLOWED = {  # module → classes that may be built: none runs code, reads a file or calls a function
    "keras.layers": set(LAYERS.split()),
    "keras.initializers": set(INITIALIZERS.split()),
    "keras.regularizers": {"L1", "L2", "L1L2"},
    "keras.src.models.functional": {"Functional"},
    "keras": {"DTypePolicy", "Sequential"},
    None: {"__keras_tensor__"},
}


def read_keras_file(path: Path) -> tuple[dict, int]:
    """The configuration of a harmless .keras file, and the number of values in its weights.

    Takes about twice as much memory as the file is long. Raises ValueError with the reason for a file that
    must not be loaded, and whatever else the libraries raise for one that is damaged.
    """
    _check_members(path)
    with zipfile.ZipFile(path) as archive:
        config = {**json.loads(archive.read("config.json")), "compile_config": None}
        _check_classes(config)
        return config, _count_values(archive.read("model.weights.h5"))


def _check_members(path: Path) -> None:
    """Checks the archive's table of contents, of which no more than `MAX_DIRECTORY_BYTES` are read."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_DIRECTORY_BYTES))
        with zipfile.ZipFile(io.BytesIO(file.read())) as end:
            members, comment = end.infolist(), end.comment
    names = sorted(member.filename for member in members)
    if names != MEMBERS or comment:
        raise ValueError(
            f"it holds {', '.join(map(repr, names))[:200]} instead of {', '.join(MEMBERS)} alone"
        )
    for member in members:
        # A compressed member may be longer than its header says, and expand a thousandfold.
        is_stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        if not is_stored or (member.filename.endswith(".json") and member.file_size > MAX_JSON_BYTES):
            raise ValueError(f"its {member.filename} is compressed, or larger than Keras writes it")


def _check_classes(config: dict) -> None:
    """Checks every class that loading would build against `ALLOWED`."""
    for entry in _object_descriptions(config):
        module, name, registered = (entry.get(key) for key in ("module", "class_name", "registered_name"))
        if name == "InputLayer" and entry["config"].get("dtype") == "uint8":
            raise ValueError(
                "it is an export with its preprocessing inside; pass the run that it was made from"
            )
        if name not in ALLOWED.get(module, ()) or registered not in (None, name):  # Keras looks for both
            asked = f"{module}.{name}" if registered in (None, name) else f"{registered} as {module}.{name}"
            raise ValueError(f"it asks for {asked[:150]}, which is not among the classes that are loaded")


def _object_descriptions(config: Any) -> Iterator[dict]:
    """All dictionaries within that describe an object, the outer ones first; without recursion."""
    pending = collections.deque([config])
    while pending:
        value = pending.popleft()
        if isinstance(value, dict):
            if not value.keys().isdisjoint(("class_name", "module", "registered_name")):
                yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _count_values(data: bytes) -> int:
    """The number of values in an HDF5 file, all of them plain numbers that lie in the file itself."""
    names: list[str] = []
    with h5py.File(io.BytesIO(data), "r") as file:
        file.visit_links(names.append)
        for name in names:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"its weights point elsewhere ({name})")
            if not _is_plain(file[name]):
                raise ValueError(f"its weights are not stored as Keras stores them ({name})")
        datasets: list[Any] = [file[name] for name in names if isinstance(file[name], h5py.Dataset)]
        claimed = sum(dataset.nbytes for dataset in datasets)
        if claimed > len(data):
            raise ValueError(f"its weights claim {claimed} bytes of {len(data)}")
        return sum(dataset.size for dataset in datasets)


def _is_plain(item: Any) -> bool:
    """Whether an HDF5 object is a group, or numbers as they are: compressed, a megabyte may be a terabyte."""
    if isinstance(item, h5py.Group):
        return True
    is_numbers = isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in "fiub"
    # Data that are compressed, virtual, or in another file have no offset in this one.
    return is_numbers and (item.size == 0 or item.id.get_offset() is not None)
