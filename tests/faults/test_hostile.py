"""Models made to harm: refused with a line, nothing run, nothing written, memory bounded."""

import base64
import importlib.util
import io
import json
import marshal
import pickle
import struct

import h5py
import keras
import numpy as np
import pytest
from hostile_files import Payload, good, packed, refused

from simsiam_tf.pretrained import backbone_file, keras_file_check

# Changes of the members {name: bytes} of a good file, given the canary.


def config(change):
    """A change of config.json."""

    def changed(members, canary):
        whole = json.loads(members["config.json"])
        members["config.json"] = json.dumps(change(whole, canary) or whole).encode()

    return changed


def layer(make):
    """A layer more: all that Keras needs to build and call it on the images."""

    def changed(whole, canary):
        images = {"shape": [None, None, None, 1], "dtype": "float32", "keras_history": ["images", 0, 0]}
        node = {"args": [{"class_name": "__keras_tensor__", "config": images}], "kwargs": {}}
        frame = {"name": "x", "inbound_nodes": [node], "registered_name": None}
        whole["config"]["layers"].append({**frame, **make(canary)})

    return config(changed)


def called(module, name, **more):
    """What a file asks for that wants a function called with a command."""
    return layer(
        lambda canary: {
            "module": module, "class_name": name, "config": {"command": f"touch {canary}"}, **more
        }
    )  # fmt: skip


def acting(canary):
    code = eval(f"lambda x: [open({str(canary)!r}, 'w').close(), x][1]").__code__
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}
    return {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x", "function": function}}


def nested(canary):
    inner = {"name": "m", "layers": [acting(canary)], "input_layers": [], "output_layers": []}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": inner}


def initializer(kind):
    def change(whole, canary):
        whole["config"]["layers"][1]["config"]["kernel_initializer"] = {**kind, "config": {}}

    return config(change)


def large(whole, canary):
    """2⁴⁰ weights, in a chain of layers that fit each other."""
    dense = {
        "module": "keras.layers", "class_name": "Dense", "registered_name": None,
        "config": {"units": 2**20, "use_bias": False},
    }  # fmt: skip
    first = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 2**20]}}
    whole.update(module="keras", class_name="Sequential", registered_name="Sequential")
    whole["config"] = {"name": "s", "layers": [first, dense]}


def hdf5(change):
    """A change of a data set of the HDF5 file: (its group, its name, its shape), once it is removed."""

    def changed(members, canary):
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            found = []
            file.visititems(lambda n, o: found.append(o) if isinstance(o, h5py.Dataset) else None)
            group, name, shape = found[0].parent, found[0].name.rpartition("/")[2], found[0].shape
            del group[name]
            change(group, name, shape)
        members["model.weights.h5"] = buffer.getvalue()

    return changed


def virtual(group, name, shape):
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
    group.create_virtual_dataset(name, layout)


def external(group, name, shape):
    group.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def shared(members, canary):
    """Five data sets whose numbers are those of a sixth."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["own"] = np.ones(1000, np.float32)
        for i in range(5):
            file.create_dataset(f"{i}", (1000,), "f4")
        at = struct.pack("<Q", file["own"].id.get_offset())
    size = struct.pack("<Q", 4000)
    assert buffer.getvalue().count(b"\xff" * 8 + size) == 5
    members["model.weights.h5"] = buffer.getvalue().replace(b"\xff" * 8 + size, at + size)


def claiming(shape, **kwargs):
    return hdf5(lambda g, n, s: g.create_dataset(n, shape, "f4", **kwargs))


def linked(link):
    return hdf5(lambda g, n, s: g.__setitem__(n, link))


def member(name, make=lambda canary: b"x"):
    return lambda members, canary: members.update({name.format(canary): make(canary)})


def replaced(data, name="config.json"):
    return lambda members, canary: members.update({name: data})


OF_KERAS, POINT = {"module": "keras.layers", "registered_name": None}, "point elsewhere"
HOSTILE = {  # name → (change, what the line says)
    "a Lambda layer": (layer(acting), "has a Lambda, which runs code"),
    "a Lambda in a model within": (layer(nested), "runs code of its own"),
    "a Lambda as Keras 2 wrote it": (layer(lambda c: {**acting(c), "module": None}), "runs code of its own"),
    "os.system as a layer": (called("os", "system"), "asks for os.system"),
    "exec as a function": (called("builtins", "function", registered_name="exec"), "builtins.function"),
    "os.system behind our package": (called("simsiam_tf.nets.conv.tf.os", "system"), "asks for simsiam_tf"),
    "a model of our package": (called("simsiam_tf.methods", "SimSiam"), "asks for simsiam_tf.methods.SimS"),
    "os.system in a layer's name": (
        called("keras.layers", "Conv2D", registered_name="os>system"), "asks for 'os>system'"),
    "another's layer in a layer's name": (
        called("keras.layers", "Dense", registered_name="keras_cv>Layer"), "'keras_cv>Layer' in the name"),
    "a downloader": (called("keras.src.utils.file_utils", "get_file"), "asks for keras.src.utils"),
    "a function of Keras": (called("keras.utils", "get_file"), "asks for keras.utils.get_file"),
    "unsafe mode": (called("keras.config", "enable_unsafe_deserialization"), "asks for keras.config"),
    "a SavedModel as a layer": (called("keras.layers", "TFSMLayer"), "keras.layers.TFSMLayer"),
    "a torch module": (called("keras.layers", "TorchModuleWrapper"), "keras.layers.TorchModuleWrapper"),
    "a vocabulary that is a file": (
        layer(lambda c: {**OF_KERAS, "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}),
        "keras.layers.StringLookup"),
    "a type of TensorFlow": (initializer({"class_name": "__typespec__", "module": "os"}), "os.__typespec__"),
    "a class that is a list": (initializer({"class_name": ["Zeros"], "module": "keras"}), "asks for"),
    "escape sequences": (initializer({"class_name": "\x1b[2J\n", "module": "m"}), r"m.\\x1b\[2J\\n"),
    "2⁴⁰ weights": (config(large), "asks for 1099511627776 weights and holds"),
    "a configuration too long": (replaced(b" " * 2**23), "has 8388608 bytes"),
    "a configuration without end": (replaced(b"[" * 200_000), "no Keras model"),
    "a configuration of nothing": (replaced(b"[]"), "no object"),
    "an external link": (linked(h5py.ExternalLink("/etc/passwd", "/")), POINT),
    "a soft link": (linked(h5py.SoftLink("/nowhere")), POINT),
    "weights in another file": (hdf5(external), "in another file"),
    "virtual weights": (hdf5(virtual), "in another file"),
    "weights of 256 GiB": (claiming((2**18, 2**18), chunks=(1, 1024)), "as Keras does not"),
    "weights that were never written": (claiming((2**18,)), "as Keras does not"),
    "weights that share their place": (shared, "claim 24000 bytes of"),
    "compressed weights": (claiming((2**18,), compression=9, fillvalue=1), "as Keras does not"),
    "groups in a circle": (hdf5(lambda g, n, s: g.__setitem__(n, g.parent)), "point to themselves"),
    "weights of text": (hdf5(lambda g, n, s: g.__setitem__(n, b"text")), "not all numbers"),
    "weights of nothing": (hdf5(lambda g, n, s: g.__setitem__(n, h5py.Empty("f4"))), "not all numbers"),
    "weights that are no HDF5": (replaced(b"\x80\x04.", "model.weights.h5"), "no Keras model"),
    "a path upwards": (member("../../escaped"), r"holds '\.\./\.\./escaped'"),
    "an absolute path": (member("{}"), "which Keras does not write"),
    "a pickle more": (member("x.pkl", lambda c: pickle.dumps(Payload(c))), "x.pkl"),
    "no weights": (lambda members, canary: members.pop("model.weights.h5"), "instead of"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused(tmp_path, name):
    change, expected = HOSTILE[name]
    members = good()
    change(members, tmp_path / "canary")
    refused(packed(tmp_path / "hostile.keras", members), expected)


def test_files_of_keras_are_accepted(tmp_path):
    assert len(backbone_file.load_backbone(str(packed(tmp_path / "good.keras", good()))).weights) == 60
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2")(images)
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.1)(x))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.compile("sgd", "mse")
    model.save(tmp_path / "another.keras")
    loaded = backbone_file.load_backbone(str(tmp_path / "another.keras"))
    assert loaded.count_params() == model.count_params() and not loaded.compiled


def test_the_payloads_act_when_loaded_carelessly(tmp_path):
    """Loaded without care they act, so that the tests above mean something."""
    members, canary = good(), tmp_path / "canary"
    layer(acting)(members, canary)
    path = packed(tmp_path / "hostile.keras", members)
    keras.saving.load_model(path, compile=False, safe_mode=False)
    assert canary.exists()
    (tmp_path / "secret").write_bytes(np.float32([1, 2, 3]).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (3,), "f4", external=[(str(tmp_path / "secret"), 0, 12)])
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file["x"]) == [1, 2, 3]  # of another file


def test_counting_weights_creates_none():
    before = keras.layers.Dense(2)
    before.build((None, 3))
    model = {"module": "keras", "class_name": "Sequential", "registered_name": None, "config": {}}
    large(model, None)
    assert backbone_file._count_weights(model) == 2**40  # 4 TiB
    keras.layers.Dense(2)(keras.Input((3,)))  # Keras gives values here to all variables that want for one
    assert before(np.ones((1, 3))).shape == (1, 2)


def test_allowed_classes_exist():
    for module, names in keras_file_check.ALLOWED.items():
        public = {"keras.src.models.functional": "keras.models"}.get(module, module)
        if str(module).startswith("keras_hub") and importlib.util.find_spec("keras_hub") is None:
            continue
        for name in names - {"__keras_tensor__", "__slice__", "Functional"}:
            part = getattr(__import__(public, fromlist=[name]), name)
            assert isinstance(part, type) and hasattr(part, "from_config")
