"""Files of PyTorch weights. Pickles are opened with torch's `weights_only`, so none of their code runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.pretrained.torch_layouts import SUFFIXES, WRITABLE_SUFFIXES
from simsiam_tf.runtime.atomic_files import atomic_write_bytes
from simsiam_tf.runtime.display_text import TERMINAL_SEQUENCES, one_line, printable_text
from simsiam_tf.runtime.errors import UserError

METADATA_KEY = "simsiam_tf"  # key of this package's metadata in a file that it writes
_WRAPPERS = r"((model_?|checkpoint)?(state_dict)?\.)*"  # usual names of the entry that holds the weights
_SAVE_PLAIN = 'torch.save({"state_dict": model.state_dict()}, "weights.pth")'


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a file of PyTorch weights.

    state: name → float32 array; where several entries of the file hold weights, names begin with the name of
        the entry.
    epoch: epochs done, None where the file does not say. optimizer: the optimizer's state_dict, or empty.
    metadata: metadata of this package, in a file that it wrote; else empty.
    """

    state: dict[str, np.ndarray]
    epoch: int | None = None
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a .safetensors file or a checkpoint of PyTorch.

    Raises:
        UserError: the file is missing, damaged, of another format or a pickle of more than tensors; its
            tensors are not plain finite numbers or claim more bytes than it has; or a library is missing.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise UserError(f"weights={path}: must end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise UserError(f"weights={path}: no such file.")
    checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for name, array in checkpoint.state.items():
        if not np.isfinite(array).all():
            raise UserError(f"weights={path}: {printable_text(name)} holds NaN or infinite values.")
    return checkpoint


def write_weights(
    state: Mapping[str, np.ndarray],
    path: Path | str,
    metadata: Mapping[str, object] | None = None,
    envelope: Mapping[str, object] | None = None,
) -> Path:
    """Writes name → array as .safetensors, .pth or .pt, completely or not at all.

    metadata: kept as JSON in a .safetensors file; other files ignore it.
    envelope: entries of a .pth or .pt file beside the weights, which then are its "state_dict".

    Raises:
        UserError: another suffix, a missing library, or a file that cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix not in WRITABLE_SUFFIXES:
        raise UserError(f"out={path}: must end in .safetensors or .pth.")
    require_library("safetensors" if path.suffix == ".safetensors" else "torch", path)
    arrays = {name: np.array(array, order="C") for name, array in state.items()}
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        data = save(arrays, {"format": "pt", METADATA_KEY: json.dumps(dict(metadata or {}))})
    else:
        import torch

        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        content = tensors if envelope is None else {**envelope, "state_dict": tensors}
        torch.save(content, buffer := io.BytesIO())
        data = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, data)
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror or error}).") from error
    return path


def require_library(library: str, path: Path) -> None:
    """Raises UserError where the library for a file is missing."""
    if importlib.util.find_spec(library) is None:
        extra = "convert" if library == "safetensors" else library
        raise UserError(f"{path.suffix} files need {library}: pip install 'simsiam-tf[{extra}]'.")


def as_array(name: str, value: Any, path: Path | str = "") -> np.ndarray:
    """A tensor of PyTorch, or an array, in float32. Raises UserError as `check_plain`."""
    if not hasattr(value, "untyped_storage"):
        return np.asarray(value, np.float32)
    check_plain(name, value, path)
    return value.detach().float().cpu().numpy()


def check_plain(name: str, tensor: Any, path: Path | str = "") -> None:
    """Raises UserError unless a tensor is dense, real and not expanded: each number stored by itself."""
    if tensor.is_nested or str(tensor.layout) != "torch.strided":
        reason = "is sparse"
    elif tensor.is_meta:
        reason = 'has no values (it is on the device "meta")'
    elif tensor.is_quantized:
        reason = "is quantised"
    elif tensor.is_complex():
        reason = "is complex"
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        reason = "is longer than its values (a tensor that was expanded)"
    else:
        return
    raise UserError(f"weights={path}: {printable_text(name)} {reason}. Save plain tensors: {_SAVE_PLAIN}.")


def _read_safetensors(path: Path) -> Checkpoint:
    require_library("safetensors", path)
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as file:
            state = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(state, metadata=_parse_metadata((file.metadata() or {}).get(METADATA_KEY)))
    except Exception as error:  # noqa: BLE001 - the library has exceptions of its own
        raise UserError(f"weights={path}: cannot be read ({_error_text(error)}).") from error


def _parse_metadata(text: Any) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _read_pickle(path: Path) -> Checkpoint:
    require_library("torch", path)
    import torch

    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - zip, pickle and torch raise many kinds
        raise UserError(
            f"weights={path}: is refused: damaged, or it holds more than tensors, which could run code "
            f"({_error_text(error)}). Where it was made, save its weights alone: {_SAVE_PLAIN}."
        ) from error
    content = content if isinstance(content, Mapping) else {}
    tensors = _named_tensors(content)
    if not tensors:
        raise UserError(f"weights={path}: holds no weights by name.")
    state: dict[str, np.ndarray] = {}
    arrays: dict[tuple, np.ndarray] = {}  # a tensor that has several names is read once
    bytes_left = 2 * path.stat().st_size
    for name, tensor in tensors.items():
        check_plain(name, tensor, path)
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in arrays:
            bytes_left -= tensor.numel() * tensor.element_size()
            if bytes_left < 0:
                raise UserError(f"weights={path}: is refused: its weights claim more bytes than it has.")
            arrays[key] = as_array(name, tensor)
        state[name] = arrays[key]
    epoch, optimizer = content.get("epoch"), content.get("optimizer")
    if isinstance(epoch, int) and "pytorch-lightning_version" in content:
        epoch += 1  # Lightning counts from 0 the epoch that has ended
    return Checkpoint(
        state,
        epoch if isinstance(epoch, int) and 0 <= epoch < 2**31 else None,
        optimizer if isinstance(optimizer, Mapping) else {},
        _parse_metadata(content.get(METADATA_KEY)),
    )


def _check_archive(path: Path) -> None:
    """Raises ValueError for an archive that is cut off or that would expand: torch compresses nothing."""
    with open(path, "rb") as file:
        begin, size = file.read(4), path.stat().st_size
        file.seek(max(0, size - 22))
        end = file.read()
    if begin != b"PK\3\4":
        return  # torch's format before it wrote archives; torch checks its lengths
    if end[:4] != b"PK\5\6" or struct.unpack("<H", end[-2:])[0]:
        raise ValueError("not an archive, or cut off")
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if any(i.compress_type != zipfile.ZIP_STORED or i.compress_size != i.file_size for i in infos):
        raise ValueError("its archive is compressed, which torch does not do")
    if sum(i.file_size for i in infos) > size:
        raise ValueError("its archive holds the same bytes by several names")


def _named_tensors(content: Any) -> dict[str, Any]:
    """Name → tensor of everything in a checkpoint but its optimizer.

    Where several entries hold weights, names begin with the name of the entry: "teacher.".
    """
    import torch

    entries: dict[str, dict[str, Any]] = {}
    pending, seen = [("", content)], set()
    while pending:
        place, entry = pending.pop(0)
        if isinstance(entry, Mapping) and id(entry) not in seen:
            seen.add(id(entry))
            entries[place] = {f"{name}": t for name, t in entry.items() if isinstance(t, torch.Tensor)}
            pending += [(f"{place}{name}.", sub) for name, sub in entry.items() if "optim" not in f"{name}"]
    kernels = {p: named for p, named in entries.items() if any(t.dim() > 1 for t in named.values())}
    entries = kernels or {p: named for p, named in entries.items() if named}
    if len(entries) == 1 and re.fullmatch(_WRAPPERS, (place := next(iter(entries)))):
        return entries[place]
    return {place + name: tensor for place, named in entries.items() for name, tensor in named.items()}


def _error_text(error: Exception) -> str:
    return one_line(TERMINAL_SEQUENCES.sub("", str(error)))[:150]
