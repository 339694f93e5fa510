"""Whether a .keras file holds what Keras itself writes for a network, and nothing that acts.

A .keras file is a ZIP archive of two JSON files and one HDF5 file. Loading it builds whatever
config.json names and reads whatever the HDF5 file points to; so both are looked at first.
"""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
JSON_BYTES = 2**24
EXPANSION = 20, 2**26  # an archive may expand to 20 times its size and 64 MiB more
MODULES = re.compile(
    r"keras\.(layers|initializers|regularizers|constraints|dtype_policies)"
    r"|keras\.src\.models\.(functional|sequential)|simsiam_tf\.nets\.\w+"
)
PLAIN = {"DTypePolicy", "DTypePolicyMap", "Functional", "Sequential"}  # what may be of module "keras"
ACTING = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}  # layers that run other code
OTHER_KINDS = {
    ".pth": "a pickle, which can run code", ".pt": "a pickle, which can run code",
    ".tar": "a pickle, which can run code", ".pkl": "a pickle, which can run code",
    ".pickle": "a pickle, which can run code", ".npy": "an array", ".npz": "arrays",
    ".h5": "HDF5, which can point to other files", ".hdf5": "HDF5, which can point to other files",
    ".pb": "a SavedModel, which can run code", ".index": "a checkpoint, not a model",
}  # fmt: skip


def refusal(path: Path) -> str | None:
    """Why a file must not be loaded, in a few words; None for one that may.

    Reads the archive with the standard library and h5py; builds and runs nothing of it.
    """
    if path.suffix != ".keras":
        kind = OTHER_KINDS.get(path.suffix.lower(), "of another kind")
        return f"it is {kind}; only .keras files are loaded"
    try:
        with zipfile.ZipFile(path) as archive:
            return _members(archive, path.stat().st_size) or _config(archive) or _weights(archive)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError, RecursionError) as error:
        return f"it is no Keras model ({' '.join(str(error).split())[:200]})"


def _members(archive: zipfile.ZipFile, size: int) -> str | None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    odd = [n for n in names if n not in MEMBERS]
    if odd:
        return f"it holds {odd[0]!r}, which Keras does not write"
    if len(set(names)) < len(names) or set(names) != MEMBERS:
        return f"it holds {', '.join(names)} instead of {', '.join(sorted(MEMBERS))}"
    if any(stat.S_ISLNK(info.external_attr >> 16) for info in infos):
        return "it holds a link"
    factor, more = EXPANSION
    total = sum(info.file_size for info in infos)
    if total > factor * size + more or any(
        info.file_size > JSON_BYTES for info in infos if info.filename.endswith(".json")
    ):
        return f"it expands from {size} to {total} bytes"
    return None


def _config(archive: zipfile.ZipFile) -> str | None:
    config = json.loads(archive.read("config.json"))
    json.loads(archive.read("metadata.json"))
    for part in _parts(config):
        module, name = part.get("module"), part.get("class_name")
        if name in ACTING or (isinstance(name, str) and "Lambda" in name):
            return f"it has a layer {name}, which runs code of its own"
        known = module is None or (
            isinstance(module, str)
            and (MODULES.fullmatch(module) is not None or (module == "keras" and name in PLAIN))
        )
        if not known:
            return f"it asks for {module}.{name}, which is no part of a network"
    return None


def _parts(config: Any) -> Iterator[dict]:
    """All dictionaries within, without recursion."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if "class_name" in part or "module" in part:
                yield part
            pending += part.values()
        elif isinstance(part, list):
            pending += part


def _weights(archive: zipfile.ZipFile) -> str | None:
    data = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(data), "r") as file:
        pending, seen = [file["/"]], set()
        while pending:
            group = pending.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    return f"its weights point elsewhere ({group.name}/{name})"
                part = group[name]
                address = h5py.h5o.get_info(part.id).addr
                if address in seen:
                    return f"its weights point to themselves ({part.name})"
                seen.add(address)
                if isinstance(part, h5py.Group):
                    pending.append(part)
                elif not isinstance(part, h5py.Dataset):
                    return f"its weights hold a data type ({part.name})"
                elif part.external or part.is_virtual:
                    return f"its weights are kept in another file ({part.name})"
                elif part.dtype.kind not in "fiub":
                    return f"its weights are no numbers ({part.name})"
                elif part.nbytes > 4 * part.id.get_storage_size() + 2**20:
                    return f"its weights claim more than they hold ({part.name}: {part.nbytes} bytes)"
    return None
