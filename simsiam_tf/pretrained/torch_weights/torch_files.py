"""Files of PyTorch weights. A pickle is opened by the loader that builds tensors and nothing else."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.runtime.display_text import COLOURS, printable_text
from simsiam_tf.runtime.errors import UserError

PICKLES = (".pth", ".pt", ".ckpt", ".tar", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
_HOLDERS = r"((model_?|checkpoint)?(state_dict)?\.)*"  # what checkpoints call their weights
OURS = "simsiam_tf"  # the key of what we say of a file that we write


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is in a file of PyTorch.

    state: name → float32 array; where several parts of the file hold weights, names begin with theirs.
    epoch: epochs done, where the file says so.
    optimizer: the state_dict of the optimizer; empty where there is none.
    about: what we wrote of it ourselves.
    """

    state: dict[str, np.ndarray]
    epoch: int | None = None
    optimizer: dict[str, Any] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def read(path: Path | str) -> dict[str, np.ndarray]:
    """Name → float32 array, of a .safetensors file or a checkpoint of PyTorch (`open_checkpoint`)."""
    return open_checkpoint(path).state


def open_checkpoint(path: Path | str) -> Checkpoint:
    """The content of a .safetensors file or a checkpoint of PyTorch.

    Raises:
        UserError: missing, damaged, of another kind, a pickle with more than tensors in it, or tensors
            that are no plain numbers or claim to be more than the file holds.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise UserError(f"weights={path}: must end in {', '.join(SUFFIXES)}, or be weights of ours.")
    if not path.is_file():
        raise UserError(f"weights={path}: no such file.")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    wrong = [n for n, a in found.state.items() if not np.isfinite(a).all()]
    if wrong:
        raise UserError(f"weights={path}: {printable_text(wrong[0])} holds values that are no numbers.")
    return found


def write(
    state: Mapping[str, np.ndarray],
    path: Path | str,
    about: Mapping[str, object] | None = None,
    envelope: Mapping[str, object] | None = None,
) -> Path:
    """Writes name → array as .safetensors or .pth, whole or not at all.

    about: kept in a .safetensors file's metadata, as JSON.
    envelope: what a .pth file has beside the weights, which then are its "state_dict".

    Raises:
        UserError: another suffix, a library that is missing, or it cannot be written.
    """
    path = Path(path).expanduser()
    made = path.with_name(f".writing-{path.name}")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"out={path}: must end in .safetensors or .pth.")
    needs("safetensors" if path.suffix == ".safetensors" else "torch", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.array(array, order="C") for name, array in state.items()}
        made.unlink(missing_ok=True)  # it could be a link to another place
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(arrays, made, {"format": "pt", OURS: json.dumps(dict(about or {}))})
        else:
            import torch

            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            with open(made, "wb") as file:  # torch's own errors do not say why
                torch.save(tensors if envelope is None else {**envelope, "state_dict": tensors}, file)
        made.replace(path)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - safetensors and torch have exceptions of their own
        made.is_file() and made.unlink()
        reason = getattr(error, "strerror", None) or _short(error)
        raise UserError(f"out={path}: cannot be written ({reason}).") from error
    return path


def needs(library: str, path: Path) -> None:
    """Raises UserError where the library for a file is missing."""
    if importlib.util.find_spec(library) is None:
        extra = "convert" if library == "safetensors" else library
        raise UserError(f"{path.suffix} files need {library}: pip install 'simsiam-tf[{extra}]'.")


def as_array(name: str, value: Any, where: Path | str = "") -> np.ndarray:
    """A tensor of PyTorch, or an array, in float32.

    Raises:
        UserError: it is sparse, quantised, complex, without values, or longer than its storage.
    """
    if not hasattr(value, "untyped_storage"):
        return np.asarray(value, np.float32)
    reason = _no_plain_numbers(value)
    if reason:
        raise UserError(
            f"weights={where}: {printable_text(name)} {reason}. Save plain tensors: "
            'torch.save({"state_dict": model.state_dict()}, "weights.pth").'
        )
    return value.detach().float().cpu().numpy()


def _no_plain_numbers(tensor: Any) -> str | None:
    """What a tensor is that is not read; None for one that is."""
    if tensor.is_nested or str(tensor.layout) != "torch.strided":
        return "is sparse"
    if tensor.is_meta:
        return 'has no values (it is on the device "meta")'
    if tensor.is_quantized:
        return "is quantised"
    if tensor.is_complex():
        return "is complex"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "is longer than its values (a tensor that was expanded)"
    return None


def _read_safetensors(path: Path) -> Checkpoint:
    needs("safetensors", path)
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as file:
            state = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
            about = (file.metadata() or {}).get(OURS)
    except Exception as error:  # noqa: BLE001 - the library has exceptions of its own
        raise UserError(f"weights={path}: cannot be read ({_short(error)}).") from error
    return Checkpoint(state, about=_about(about))


def _about(text: Any) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _read_pickle(path: Path) -> Checkpoint:
    needs("torch", path)
    import torch

    try:
        _check_archive(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - zip, pickle and torch raise many kinds
        raise UserError(
            f"weights={path}: is refused: damaged, or it holds more than tensors, which could run code "
            f"({_short(error)}). Where it was made, save its weights alone: "
            'torch.save({"state_dict": model.state_dict()}, "weights.pth").'
        ) from error
    tensors = _weights(held)
    if not tensors:
        raise UserError(f"weights={path}: holds no weights by name.")
    arrays: dict[tuple, np.ndarray] = {}  # of tensors that are the same by several names
    state, most = {}, 2 * path.stat().st_size
    for name, tensor in tensors.items():
        plain = _no_plain_numbers(tensor) is None
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if plain else name
        if key not in arrays:
            most -= tensor.numel() * tensor.element_size() if plain else 0
            if most < 0:
                raise UserError(f"weights={path}: is refused: its weights claim more bytes than it has.")
            arrays[key] = as_array(name, tensor, path)
        state[name] = arrays[key]
    held = held if isinstance(held, Mapping) else {}
    epoch, optimizer = held.get("epoch"), held.get("optimizer")
    if isinstance(epoch, int) and "pytorch-lightning_version" in held:
        epoch += 1  # which counts from 0 the epoch that has ended
    return Checkpoint(
        state,
        epoch if isinstance(epoch, int) and 0 <= epoch < 2**31 else None,
        dict(optimizer) if isinstance(optimizer, Mapping) else {},
        _about(held.get(OURS)),
    )


def _check_archive(path: Path) -> None:
    """Raises ValueError for an archive that would become more than it is: torch itself compresses nothing."""
    with open(path, "rb") as file:
        begin, size = file.read(4), path.stat().st_size
        file.seek(max(0, size - 22))
        end = file.read()
    if begin != b"PK\3\4":
        return  # the format before archives, which torch holds against its length
    if end[:4] != b"PK\5\6" or struct.unpack("<H", end[-2:])[0]:
        raise ValueError("not an archive, or cut off")
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if any(i.compress_type != zipfile.ZIP_STORED or i.compress_size != i.file_size for i in infos):
        raise ValueError("its archive is compressed, which torch does not do")
    if sum(i.file_size for i in infos) > size:
        raise ValueError("its archive holds the same bytes by several names")


def _weights(held: Any) -> dict[str, Any]:
    """Name → tensor of all that a checkpoint holds but its optimizer.

    Names begin with that of the part that holds them where several do: "teacher.", "student.".
    """
    import torch

    parts: dict[str, dict[str, Any]] = {}
    pending, seen = [("", held)], set()
    while pending:
        place, part = pending.pop(0)
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        parts[place] = {f"{name}": t for name, t in part.items() if isinstance(t, torch.Tensor)}
        pending += [(f"{place}{name}.", sub) for name, sub in part.items() if "optim" not in f"{name}"]
    several = {p: named for p, named in parts.items() if any(t.dim() > 1 for t in named.values())}
    several = several or {p: named for p, named in parts.items() if named}
    if len(several) == 1 and re.fullmatch(_HOLDERS, (place := next(iter(several)))):
        return several[place]
    return {place + name: tensor for place, named in several.items() for name, tensor in named.items()}


def _short(error: Exception) -> str:
    return printable_text(" ".join(COLOURS.sub("", str(error)).split())[:150])
