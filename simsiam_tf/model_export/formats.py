"""Exports a backbone with its preprocessing in the formats of other programs, and reads each back."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import preprocess
from simsiam_tf.nets import keras_networks
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import check_writable, remove_path
from simsiam_tf.runtime.errors import UserError

TOLERANCE = 1e-2  # relative to the largest feature; one pixel rounded differently makes a tenth of it

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Format:
    """A row: suffix of the file, Keras' name for the format, modules that it needs, an example of its use.

    open_model: path → function from uint8 images to features.
    """

    suffix: str
    keras_name: str
    modules: tuple[str, ...]
    open_model: Callable[[Path], Run]
    usage: str


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """An export. difference: the largest, of any feature from the source's. largest: largest feature."""

    path: Path
    format: str
    sha256: str
    difference: float
    largest: float


def export_model(
    pretrained: Pretrained, path: Path | str, format: str | None = None, overwrite: bool = False
) -> ExportedModel:
    """Writes a backbone with its preprocessing, reads it back and compares its features with the source's.

    The file maps uint8 images [B, H, W, C], of any size that is the same for a batch, to float32
    features [B, F].

    Args:
        pretrained: the backbone.
        path: path of the file, or of the folder for "saved_model".
        format: a key of `FORMATS`; by the path's suffix when None.
        overwrite: replace an earlier export.

    Raises:
        UserError: an unknown format, a missing library, a path that exists or cannot be written, or
            features that differ from the source's.
    """
    path = Path(path).expanduser()
    format = format or _format_of(path)
    check_output(path, format, overwrite)
    row = FORMATS[format]
    new = path.with_name(f".writing-{path.stem}{row.suffix}")
    try:
        remove_path(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of libraries about each other
            model = with_preprocessing(pretrained)
            if row.keras_name:
                model.export(str(new), format=row.keras_name, verbose=False)
            else:
                backbone_file.save_network(model, new)
            difference, largest = compare_features(pretrained, row.open_model(new))
        if not difference <= TOLERANCE * largest:
            raise UserError(
                f"format={format}: its features differ from the source's by {difference:.2g} (largest "
                f"feature {largest:.2g}), so {path} was not written."
            )
        remove_path(path)
        new.replace(path)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:150]
        raise UserError(f"out={path}: cannot be written ({reason}).") from error
    finally:
        remove_path(new)
    return ExportedModel(path, format, content_digest(path), difference, largest)


def check_output(path: Path, format: str, overwrite: bool = False) -> None:
    """Raises UserError if `export_model` could not write the file. Call it before any long work."""
    missing = [name for name in FORMATS[format].modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format={format}: needs {' and '.join(missing)}: pip install 'simsiam-tf[{format}]'."
        )
    if path.suffix != FORMATS[format].suffix:
        raise UserError(
            f"out={path}: a file of format={format} must end in {FORMATS[format].suffix}."
            if FORMATS[format].suffix
            else f"out={path}: format=saved_model makes a folder, whose name has no suffix."
        )
    check_writable(path, folders=True)
    if path.exists() and not overwrite:
        raise UserError(f"out={path}: exists. Choose another, or pass `overwrite`.")
    if path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").exists():
        raise UserError(f"out={path}: is a folder with something else in it. Choose another.")


def _format_of(path: Path) -> str:
    for name, row in FORMATS.items():
        if path.suffix == row.suffix:
            return name
    raise UserError(
        f"out={path}: must end in .keras, .onnx or .tflite, or have no suffix for a SavedModel's folder."
    )


def with_preprocessing(pretrained: Pretrained) -> keras.Model:
    """A network of stock layers: uint8 images [B, H, W, C] of any size → float32 features [B, F]."""
    images = keras.Input((None, None, pretrained.channels), dtype="uint8", name="images")
    backbone = keras_networks.to_stock_layers(pretrained.backbone)
    model = keras.Model(images, backbone(preprocess(images, pretrained.augmentation)), name="features")
    size = pretrained.augmentation.size
    model(tf.zeros([1, size, size, pretrained.channels], tf.uint8))  # Keras exports what has been called
    return model


def compare_features(pretrained: Pretrained, run: Run, seed: int = 0) -> tuple[float, float]:
    """(largest difference between `run` and the source, largest feature) on images of three shapes."""
    size = pretrained.augmentation.size
    difference = largest = 0.0
    for i, shape in enumerate(((size, size), (size * 5 // 4, size * 3 // 2), (size * 2, size + 1))):
        images = _pictures(3, *shape, pretrained.channels, seed + i)
        expected = source_features(pretrained, pretrained.backbone, images)
        features = np.asarray(run(images))
        if features.shape != expected.shape:
            return float("inf"), 0.0
        difference = max(difference, float(np.abs(features - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        if np.isnan(features).any():
            return float("nan"), largest
    return difference, largest


def source_features(pretrained: Pretrained, backbone: Any, images: np.ndarray) -> np.ndarray:
    """Features of uint8 images [B, H, W, C] by a backbone after the preprocessing of every command."""
    views = pretrained.views
    ready = tf.stack([views.normalise(views.evaluation_view(tf.constant(image))) for image in images])
    return backbone(ready, training=False).numpy()


def _pictures(count: int, height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Images of smooth colours with noise: uint8 [count, height, width, channels]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 5, 5, channels))
    smooth = tf.image.resize(coarse, (height, width), "bicubic").numpy()
    return np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


def content_digest(path: Path) -> str:
    """SHA-256 of a file; for a folder, of the names and digests of its files in order."""
    if path.is_file():
        return backbone_file.sha256(path)
    files = sorted(f for f in path.rglob("*") if f.is_file())
    lines = (f"{backbone_file.sha256(f)}  {f.relative_to(path).as_posix()}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _open_keras(path: Path) -> Run:
    model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda images: model(images, training=False).numpy()


def _open_saved_model(path: Path) -> Run:
    loaded: Any = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(images).numpy()


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _open_tflite(path: Path) -> Run:
    if importlib.util.find_spec("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    else:
        Interpreter = tf.lite.Interpreter  # noqa: N806 - a class
    interpreter: Any = Interpreter(model_path=str(path))
    images_index = interpreter.get_input_details()[0]["index"]
    features_index = interpreter.get_output_details()[0]["index"]

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(images_index, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(images_index, images)
        interpreter.invoke()
        return interpreter.get_tensor(features_index)

    return run


FORMATS = {
    "keras": Format(
        ".keras", "", (), _open_keras,
        'import keras\nmodel = keras.saving.load_model("{name}")\n'
        "features = model(images).numpy()",
    ),
    "saved_model": Format(
        "", "tf_saved_model", (), _open_saved_model,
        'import tensorflow as tf\nmodel = tf.saved_model.load("{name}")\n'
        "features = model.serve(images).numpy()",
    ),
    "onnx": Format(
        ".onnx", "onnx", ("tf2onnx", "onnxruntime"), _open_onnx,
        'import onnxruntime\nsession = onnxruntime.InferenceSession("{name}")\n'
        "features = session.run(None, {{session.get_inputs()[0].name: images}})[0]",
    ),
    "tflite": Format(
        ".tflite", "litert", (), _open_tflite,
        'import tensorflow as tf\nmodel = tf.lite.Interpreter("{name}")\n'
        'place = model.get_input_details()[0]["index"]\n'
        "model.resize_tensor_input(place, images.shape)\nmodel.allocate_tensors()\n"
        "model.set_tensor(place, images)\nmodel.invoke()\n"
        'features = model.get_tensor(model.get_output_details()[0]["index"])',
    ),
}  # fmt: skip
