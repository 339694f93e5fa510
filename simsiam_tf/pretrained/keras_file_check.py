"""Refuses a .keras file that holds anything but weights and a network of known Keras or keras-hub classes.

A .keras file is a ZIP archive of two JSON files and one HDF5 file. Loading it builds all objects that its
config.json names, and reads all files that its HDF5 file points to. So these files are checked first, with
the standard library and h5py, which build and run nothing.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from simsiam_tf.runtime.zip_directory import directory_bytes

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
MAX_JSON_BYTES = 2**22  # of either JSON file; a ResNet-50's config.json has 150,000
MAX_DIRECTORY_BYTES = 2**12  # of the archive's table of contents; three members take about 200

LAYERS = """Activation Add Average AveragePooling2D BatchNormalization Concatenate Conv2D Cropping2D Dense
    DepthwiseConv2D Dropout ELU Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization Identity InputLayer LayerNormalization
    LeakyReLU MaxPooling2D Maximum Multiply Normalization PReLU Permute ReLU Rescaling Reshape
    SeparableConv2D Softmax SpatialDropout2D Subtract UpSampling2D ZeroPadding2D"""
INITIALIZERS = """Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones
    RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros"""
KERAS_HUB = """cspnet.cspnet.CSPNet deit.deit.DeiT densenet.densenet.DenseNet dinov2.dinov2.DINOV2
    dinov3.dinov3.DINOV3 efficientnet.efficientnet.EfficientNet hgnetv2.hgnetv2.HGNetV2
    mit.mit.MiT mobilenet.mobilenet.MobileNet resnet.resnet.ResNet
    swin_transformer.swin_transformer.SwinTransformer vgg.vgg.VGG vit.vit.ViT xception.xception.Xception"""
ALLOWED = {  # module → classes that may be built: none runs code, reads a file or calls a function
    "keras.layers": set(LAYERS.split()),
    "keras.initializers": set(INITIALIZERS.split()),
    "keras.regularizers": {"L1", "L2", "L1L2"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.ops.numpy": {"Add", "Flip", "GetItem", "Multiply", "Subtract"},
    "keras.src.applications.convnext": {"LayerScale", "StochasticDepth"},
    "keras": {"DTypePolicy", "Sequential"},
    "simsiam_tf.nets.batch_norm": {"BatchNorm"},  # of a backbone that was saved without `export`
    "simsiam_tf.nets.conv": {"Conv"},
    **{
        f"keras_hub.src.models.efficientnet.{name.lower()}": {f"{name}Block"}
        for name in ("CBA", "MBConv", "FusedMBConv")
    },
    None: {"__keras_tensor__", "__slice__"},
    **{
        f"keras_hub.src.models.{folder}.{file}_backbone": {f"{name}Backbone"}
        for folder, file, name in (words.split(".") for words in KERAS_HUB.split())
    },
}
MAX_NUMBER = {"window_size": 64}  # largest values of some arguments of keras-hub's classes
MAX_ARGUMENT = 2**14  # largest value of their other arguments

_PICKLE = "a pickle, which can run code"
_HDF5 = "HDF5 alone, which can point to other files"
OTHER_FORMATS = {
    ".pth": _PICKLE, ".pt": _PICKLE, ".ckpt": _PICKLE, ".pkl": _PICKLE, ".pickle": _PICKLE,
    ".bin": _PICKLE, ".joblib": _PICKLE, ".npy": "an array, which can be a pickle",
    ".npz": "arrays, which can be pickles", ".h5": _HDF5, ".hdf5": _HDF5,
    ".pb": "a SavedModel, which can run code", ".index": "a checkpoint without its network",
    ".safetensors": "weights without their network",
}  # fmt: skip


class Exported(ValueError):
    """The file is an export (`export --format=keras`), with preprocessing inside, not a bare backbone."""

    def __init__(self) -> None:
        super().__init__(
            "an export with its preprocessing inside, for other programs; commands here take the run that "
            "it was made from"
        )


class Refused(ValueError):
    """The file must not be loaded. The message is one printable line, whatever the file contains."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason if reason.isprintable() else ascii(reason))


def other_format(path: Path) -> str | None:
    """The format of a file that is no .keras file, in words; None for a .keras file.

    Files are judged by their suffix. A folder has a format only if it is a SavedModel.
    """
    if path.is_dir():
        return "a SavedModel, which can run code" if (path / "saved_model.pb").exists() else None
    return None if path.suffix == ".keras" else OTHER_FORMATS.get(path.suffix.lower(), "no .keras file")


def read_keras_file(path: Path) -> tuple[dict, int]:
    """The configuration of a harmless .keras file, and the number of values in its weights.

    Needs about twice as much memory as the file has bytes.

    Raises:
        Refused: the file must not be loaded.
        Exported: the network takes uint8 images, so it includes the preprocessing.
    """
    try:
        with open(path, "rb") as file:
            if directory_bytes(file) > MAX_DIRECTORY_BYTES:
                raise Refused("it holds more files than Keras writes")
            with zipfile.ZipFile(file) as archive:
                _check_members(archive)
                config = {**_json_object(archive.read("config.json")), "compile_config": None}
                _json_object(archive.read("metadata.json"))
                _check_classes(config)
                return config, count_values(archive.read("model.weights.h5"))
    except (Exported, Refused):
        raise
    except Exception as error:  # noqa: BLE001 - the libraries raise whatever the file provokes
        raise Refused(f"it is no Keras model ({' '.join(str(error).split())[:200]})") from error


def _check_members(archive: zipfile.ZipFile) -> None:
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
            # A compressed member may be longer than its header says, and expand a thousandfold.
            raise Refused(f"its {info.filename} is compressed, which Keras does not do")
        if info.filename.endswith(".json") and info.file_size > MAX_JSON_BYTES:
            raise Refused(f"its {info.filename} has {info.file_size} bytes")


def _json_object(data: bytes) -> dict:
    content = json.loads(data)
    if not isinstance(content, dict):
        raise Refused("it is no Keras model (its JSON is no object)")
    return content


def _check_classes(config: dict) -> None:
    """Raises Refused for a class outside `ALLOWED` that loading would build, and Exported for an export."""
    arguments = config.get("config")
    if isinstance(arguments, dict) and isinstance(arguments.get("backbone"), dict):
        raise Refused(
            f"it is a training's whole model ({str(config.get('class_name'))[:100]}), and only its backbone "
            "is taken. In Python, save that: model.backbone.save('backbone.keras')"
        )
    descriptions = list(_object_descriptions(config))
    for entry in descriptions:
        if entry.get("class_name") == "InputLayer" and entry["config"].get("dtype") == "uint8":
            raise Exported
    for entry in descriptions:
        module, name, registered = (entry.get(k) for k in ("module", "class_name", "registered_name"))
        if not (isinstance(module, str | None) and isinstance(name, str)):
            raise Refused(f"it asks for {str(name)[:100]!r} of {str(module)[:100]!r}")
        if "lambda" in name.lower():
            raise Refused(f"it has a {name[:100]}, which runs code of its own")
        if name not in ALLOWED.get(module, ()):
            raise Refused(
                f"it asks for {module}.{name}"[:200]
                + ", which is no part of a network known here; its code would "
                "run with trust_code=true, which is for files of people you trust"
            )
        library = str(module).partition(".")[0]
        if registered not in (None, name, f"{library}>{name}"):  # Keras looks this name up first
            raise Refused(f"it asks for {str(registered)[:100]!r} in the name of {name}")
        if library == "keras_hub":
            _check_arguments(entry.get("config"))


def _check_arguments(config: Any) -> None:
    """Refuses arguments of keras-hub's classes that would make them build tables larger than memory."""
    if not isinstance(config, dict):
        raise Refused("it is no Keras model (a class without arguments)")
    for key, value in config.items():
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, list):
                pending += item
            elif isinstance(item, int | float) and not abs(item) <= MAX_NUMBER.get(key, MAX_ARGUMENT):
                raise Refused(f"it asks for {key[:100]}={item}")


def _object_descriptions(config: Any) -> Iterator[dict]:
    """All dictionaries within a configuration that describe an object; without recursion."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if not value.keys().isdisjoint(("class_name", "module", "registered_name")):
                yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def count_values(data: bytes) -> int:
    """The number of values in an HDF5 file. Raises Refused unless all are plain numbers within it."""
    links: list[tuple[str, Any]] = []
    objects: list[Any] = []
    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems_links(lambda name, link: links.append((name, link)))
        for name, link in links:
            if not isinstance(link, h5py.HardLink):
                raise Refused(f"its weights point elsewhere ({name})")
        file.visititems(lambda _, item: objects.append(item))  # each once, however many links it has
        if len(links) > len(objects):
            raise Refused("its weights point to themselves")
        datasets = [item for item in objects if not isinstance(item, h5py.Group)]
        for dataset in datasets:
            _check_dataset(dataset)
        claimed = sum(dataset.nbytes for dataset in datasets)
        if claimed > len(data):
            raise Refused(f"its weights claim {claimed} bytes of {len(data)}")
        return sum(dataset.size for dataset in datasets)


def _check_dataset(dataset: Any) -> None:
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype.kind not in "fiub":
        raise Refused(f"its weights are not all numbers ({dataset.name})")
    if dataset.external or dataset.is_virtual:
        raise Refused(f"its weights are kept in another file ({dataset.name})")
    if dataset.chunks or dataset.nbytes != dataset.id.get_storage_size():
        # A compressed megabyte may expand to a terabyte.
        raise Refused(f"its weights are stored as Keras does not store them ({dataset.name})")
