"""Files of PyTorch weights. A pickle is opened by the loader that builds tensors and nothing else."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from simsiam_tf.errors import UserError

PICKLES = (".pth", ".pt", ".ckpt", ".tar", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
HELD_UNDER = ("state_dict", "model", "model_state_dict")  # what checkpoints call their weights


def read(path: Path | str) -> dict[str, np.ndarray]:
    """Name → float32 array, of a .safetensors file or a checkpoint of PyTorch.

    Raises:
        UserError: missing, damaged, of another kind, or a pickle with more than tensors in it.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise UserError(f"--weights={path}: must end in {', '.join(SUFFIXES)}, or be weights of ours.")
    if not path.is_file():
        raise UserError(f"--weights={path}: no such file.")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    wrong = [n for n, a in found.items() if not np.isfinite(a).all()]
    if wrong:
        raise UserError(f"--weights={path}: {wrong[0]} holds values that are no numbers.")
    return found


def write(
    state: Mapping[str, np.ndarray], path: Path | str, about: Mapping[str, object] | None = None
) -> Path:
    """Writes name → array as .safetensors or .pth, whole or not at all.

    about: kept in a .safetensors file's metadata, as JSON.

    Raises:
        UserError: another suffix, a library that is missing, or it cannot be written.
    """
    path = Path(path).expanduser()
    made = path.with_name(f".writing-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            needs("safetensors", path)
            from safetensors.numpy import save_file

            arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
            save_file(arrays, made, {"format": "pt", "simsiam_tf": json.dumps(dict(about or {}))})
        elif path.suffix in (".pth", ".pt"):
            needs("torch", path)
            import torch

            torch.save({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, made)
        else:
            raise UserError(f"--out={path}: must end in .safetensors or .pth.")
        made.replace(path)
    except OSError as error:
        raise UserError(f"--out={path}: cannot be written ({error.strerror or error}).") from error
    finally:
        made.unlink(missing_ok=True)
    return path


def needs(library: str, path: Path) -> None:
    """Raises UserError where the library for a file is missing."""
    if importlib.util.find_spec(library) is None:
        extra = "convert" if library == "safetensors" else library
        raise UserError(f"{path.suffix} files need {library}: pip install 'simsiam-tf[{extra}]'.")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    needs("safetensors", path)
    from safetensors.numpy import load_file

    try:
        return {name: np.asarray(a, np.float32) for name, a in load_file(path).items()}
    except Exception as error:  # noqa: BLE001 - the library has exceptions of its own
        raise UserError(f"--weights={path}: cannot be read ({_short(error)}).") from error


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    needs("torch", path)
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - zip, pickle and torch raise many kinds
        raise UserError(
            f"--weights={path}: is refused: damaged, or it holds more than tensors, which could run code "
            f"({_short(error)}). Where it was made, save its weights alone: "
            'torch.save({"state_dict": model.state_dict()}, "weights.pth").'
        ) from error
    for name in HELD_UNDER:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    tensors = held if isinstance(held, Mapping) else {}
    found = {str(k): v.float().numpy() for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    if not found:
        raise UserError(f"--weights={path}: holds no weights by name.")
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150]
