"""Exports a backbone with its preprocessing in the formats of other programs, and reads each back."""

from __future__ import annotations

import dataclasses
import functools
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
from simsiam_tf.model_export import hub_folder, keras_hub_folder, onnx_file
from simsiam_tf.nets import keras_networks
from simsiam_tf.nets.whitening import without_whitening
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import check_writable, remove_path
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

TOLERANCE = 1e-2  # relative to the largest feature
COMPARED_IMAGES = "on 9 made-up images of 3 sizes"  # those of `_compare_features`, for messages and cards


@dataclasses.dataclass(frozen=True)
class Format:
    """A row of `FORMATS`.

    suffix: suffix of the file; "" for a folder whose name has none, None for a folder of any name.
    write: writes the export, given (the backbone to export, path).
    usage: code for the model card, which makes `features` of `images` with the export at {path}.
    content: names of files that the folder may have; it always has the first. Empty for a single file.
    modules: needed libraries; `pip install` of the extra installs them.
    read: (the exported backbone, path, uint8 images) → features; when None, `usage` is run.
    tolerance: largest difference of a feature from the source's, relative to the largest feature.
    finished: whether the features are finished where the source's are; else they are the pooled ones.
    """

    suffix: str | None
    write: Callable[[Pretrained, Path], None]
    usage: str = ""
    content: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    extra: str = ""
    read: Callable[[Pretrained, Path, np.ndarray], np.ndarray] | None = None
    tolerance: float = TOLERANCE
    finished: bool = True

    def read_features(self, pretrained: Pretrained, path: Path, images: np.ndarray) -> np.ndarray:
        """Features of images by an export: by `read`, else by `usage`, the code that the model card shows."""
        if self.read:
            return self.read(pretrained, path, images)
        variables = {"images": images}
        exec(self.usage.format(path=repr(str(path))), variables)
        return np.asarray(variables["features"])


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """An export. difference: largest difference of a feature from the source's. largest: the source's
    largest feature by magnitude. sha256: `content_digest`.
    """

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
    features [B, F]. Two formats are folders without preprocessing in the network: "hub", for the Hub, whose
    card describes it, and "keras_hub", a preset of keras-hub, whose ImageConverter comes close to it.

    Args:
        pretrained: the backbone; for "keras_hub", one of our ResNets of width 1 with the ImageNet stem.
        path: path of the file, or of the folder for "saved_model", "hub" and "keras_hub".
        format: a key of `FORMATS`; by the path's suffix when None.
        overwrite: whether an earlier export is replaced.

    Raises:
        UserError: no format for the suffix, a missing library, a network that the format cannot hold, a
            path that exists or cannot be written, an export that cannot be read back, or features that differ
            from the source's by more than the format's tolerance.
    """
    path = Path(path).expanduser()
    format = format or next((name for name, row in FORMATS.items() if row.suffix == path.suffix), None)
    if format is None:
        raise UserError(
            f"out={path}: must end in .keras, .onnx or .tflite, or have no suffix for a SavedModel's folder."
        )
    check_output(path, format, overwrite)
    row, new = FORMATS[format], path.with_name(f".writing-{path.name}")
    try:
        remove_path(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of libraries about each other
            row.write(pretrained, new)
            try:
                difference, largest = _compare_features(pretrained, row, new)
            except Exception as error:  # noqa: BLE001 - the libraries raise many types
                reason = one_line(error)[:200]
                raise UserError(
                    f"out={path}: not written, because it cannot be read back ({reason}). Try another format."
                ) from error
        if not difference <= row.tolerance * largest:
            raise UserError(
                f"out={path}: not written, because its features differ from the source's by {difference:.2g} "
                f"(largest feature {largest:.2g})."
            )
        remove_path(path)
        new.replace(path)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)[:150]
        raise UserError(f"out={path}: cannot be written ({reason}).") from error
    finally:
        remove_path(new)
    return ExportedModel(path, format, content_digest(path), difference, largest)


def check_output(path: Path, format: str, overwrite: bool = False) -> None:
    """Raises UserError if `export_model` could not write the path. Call it before any long work."""
    row = FORMATS[format]
    missing = [name for name in row.modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"out={path}: needs {' and '.join(missing)}: pip install 'simsiam-tf[{row.extra}]'.")
    if row.suffix is not None and path.suffix != row.suffix:
        name = f"end in {row.suffix}" if row.suffix else "have no suffix, since it is a folder"
        raise UserError(f"out={path}: for format={format} it must {name}.")
    check_writable(path, folders=True)
    existing = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if existing and (existing - {*row.content} or row.content[0] not in existing):
        raise UserError(f"out={path}: is a folder with something else in it. Choose another.")
    if row.content and path.exists() and not path.is_dir():
        raise UserError(f"out={path}: is no folder, which format={format} makes. Choose another.")
    is_empty_folder = bool(row.content) and path.is_dir() and not existing
    if path.exists() and not overwrite and not is_empty_folder:
        raise UserError(f"out={path}: exists. Choose another, or pass `overwrite`.")


def with_preprocessing(pretrained: Pretrained) -> keras.Model:
    """A network of stock layers: uint8 images [B, H, W, C] of any size → float32 features [B, F]."""
    images = keras.Input((None, None, pretrained.channels), dtype="uint8", name="images")
    backbone = keras_networks.to_stock_layers(pretrained.backbone)
    model = keras.Model(images, backbone(preprocess(images, pretrained.augmentation)), name="features")
    size = pretrained.augmentation.size
    model(tf.zeros([1, size, size, pretrained.channels], tf.uint8))  # Keras exports only a called model
    return model


def _compare_features(pretrained: Pretrained, row: Format, path: Path) -> tuple[float, float]:
    """(largest difference between an export's features and its source's, largest feature of the source).

    Compares them on images of three sizes; (∞, 0) where the features differ in shape.
    """
    size = pretrained.augmentation.size
    source = pretrained.backbone if row.finished else without_whitening(pretrained.backbone)
    difference = largest = 0.0
    for seed, shape in enumerate(((size, size), (size * 5 // 4, size * 3 // 2), (size * 2, size + 1))):
        images = random_images(3, *shape, pretrained.channels, seed)
        expected = source(pretrained.prepare(images), training=False).numpy()
        features = row.read_features(pretrained, path, images)
        if features.shape != expected.shape:
            return float("inf"), 0.0
        difference = np.maximum(difference, np.abs(features - expected).max())  # keeps NaN
        largest = np.maximum(largest, np.abs(expected).max())
    return float(difference), float(largest)


def random_images(count: int, height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Images of smooth colours with noise: uint8 [count, height, width, channels]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 5, 5, channels))
    smooth = tf.image.resize(coarse, (height, width), "bicubic").numpy()
    return np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


def content_digest(path: Path) -> str:
    """SHA-256 of a file; for a folder, of its files' digests and names, sorted by name."""
    if path.is_file():
        return backbone_file.sha256(path)
    files = sorted(f for f in path.rglob("*") if f.is_file())
    lines = (f"{backbone_file.sha256(f)}  {f.relative_to(path).as_posix()}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write_model(pretrained: Pretrained, path: Path, format: Any = None) -> None:
    """Writes a .keras file, or, with `format`, that format of `keras.Model.export`."""
    model = with_preprocessing(pretrained)
    if format is None:
        backbone_file.save_network(model, path)
    else:
        model.export(str(path), format=format, verbose=False)


FORMATS = {
    "keras": Format(
        ".keras", _write_model,
        "import keras\nmodel = keras.saving.load_model({path})\nfeatures = model(images).numpy()",
    ),
    "saved_model": Format(
        "", functools.partial(_write_model, format="tf_saved_model"),
        "import tensorflow as tf\nmodel = tf.saved_model.load({path})\n"
        "features = model.serve(images).numpy()",
        content=("saved_model.pb", "fingerprint.pb", "assets", "variables"),
    ),
    "onnx": Format(
        ".onnx", lambda pretrained, path: onnx_file.write_onnx(with_preprocessing(pretrained), path),
        "import onnxruntime\nsession = onnxruntime.InferenceSession({path})\n"
        'features = session.run(None, {{"images": images}})[0]',
        modules=("tf2onnx", "onnxruntime"), extra="onnx",
    ),
    "tflite": Format(
        ".tflite", functools.partial(_write_model, format="litert"),
        "import tensorflow as tf\nmodel = tf.lite.Interpreter({path}).get_signature_runner()\n"
        'features = model(images=images)["output_0"]',
    ),
    "hub": Format(
        None, hub_folder.write_hub_folder, content=hub_folder.CONTENT, read=hub_folder.read_features,
        modules=("huggingface_hub", "safetensors"), extra="hub",
    ),
    "keras_hub": Format(
        None, keras_hub_folder.write_keras_hub_folder, content=keras_hub_folder.CONTENT,
        read=keras_hub_folder.read_features, modules=("keras_hub",), extra="kerashub", tolerance=1e-4,
        finished=False,
    ),
}  # fmt: skip
