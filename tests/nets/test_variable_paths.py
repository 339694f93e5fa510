"""Variables are matched by their whole path: layers of equal names in two blocks keep their own."""

import keras
import numpy as np
import pytest

from simsiam_tf import nets, optimizers
from simsiam_tf.methods import MoCo, SimSiam
from simsiam_tf.nets.variable_paths import copy_variables, matched_variables, variables_by_path
from simsiam_tf.pretrained import backbone_file, initial_weights
from simsiam_tf.runtime.errors import UserError


def randomise(network, seed=0):
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return network


def vit():
    keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install 'simsiam-tf[kerashub]'")
    return keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
    )


def twins(widths=(8, 8), order=("left", "right")):
    """Two nested networks whose layers have the same names, one after the other."""
    inner = {}
    for name, width in zip(("left", "right"), widths, strict=True):
        x = keras.Input((None, None, 8))
        y = nets.BatchNorm(name="bn")(nets.Conv(width, 3, name="wide")(x))
        y = nets.Conv(8, 1)(keras.layers.ReLU()(y))  # numbered by Keras
        inner[name] = keras.Model(x, y, name=name)
    x = images = keras.Input((8, 8, 1), name="images")
    x = nets.Conv(8, 3, name="stem")(x)
    for name in order:
        x = inner[name](x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="backbone")


@pytest.mark.parametrize("build", [vit, twins])
def test_every_variable_arrives_at_its_own_path(build):
    source, target = randomise(build(), 1), randomise(build(), 2)
    paths = variables_by_path(source)
    assert [*map(id, paths.values())] == [*map(id, source.weights)]
    assert [*paths] == [*variables_by_path(target)]  # although Keras numbered some layers on
    tails = {"/".join(path.split("/")[-2:]) for path in paths}
    assert len(tails) < len(paths)  # by which weights would be lost
    copy_variables(source, target)
    for one, two in zip(source.weights, target.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    images = np.random.default_rng(0).normal(size=(2, *source.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(source(images, training=False), target(images, training=False))


def test_paths_name_the_networks_around_a_layer():
    network = twins()
    assert len({variable.path for variable in network.weights if variable.path.endswith("bn/gamma")}) == 1
    gammas = [path for path in variables_by_path(network) if path.endswith("gamma")]
    assert gammas == ["left/bn/gamma", "right/bn/gamma"]


def test_layers_of_one_name_and_shared_layers_have_one_path_each():
    class Block(keras.layers.Layer):
        def __init__(self, shared):
            super().__init__(name="block")
            self.parts = [keras.layers.Dense(3, name="fc"), keras.layers.Dense(3, name="fc"), shared]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    class Stray(Block):
        weights = property(lambda self: [*super().weights, keras.Variable(0.0)])

    shared = keras.layers.Dense(3, name="shared")
    network = keras.Sequential([keras.Input((3,)), Block(shared), shared])
    kernels = [path for path in variables_by_path(network) if path.endswith("kernel")]
    assert kernels == ["block/fc/kernel", "block/fc_1/kernel", "block/shared/kernel"]
    stray = Stray(shared)
    stray(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="belong to none of its layers"):
        variables_by_path(stray)


def test_blocks_that_are_swapped_keep_their_names():
    """Names decide, not places: the blocks of the other order hold each other's shapes in the same place."""
    source, target = randomise(twins((8, 4))), twins((8, 4), ("right", "left"))
    copy_variables(source, target)
    for name in ("left", "right"):
        for one, two in zip(source.get_layer(name).weights, target.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(one, two)


def test_explicit_numbers_are_names_and_those_of_keras_are_not():
    def chain(names):
        return keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(3, name=name) for name in names)])

    one, other = randomise(chain(["dense_2", "dense_1"]), 1), chain(["dense_1", "dense_2"])
    copy_variables(one, other)
    np.testing.assert_array_equal(one.get_layer("dense_1").kernel, other.get_layer("dense_1").kernel)
    names, values = matched_variables(chain([None, "layer_1"]), chain([None, "layer_2"]))
    assert {*names} - {*values} == {"layer_1/kernel", "layer_1/bias"}


def exported(network, folder):
    folder.mkdir()
    backbone_file.export_network(network, folder, {})
    return str(folder)


def test_a_run_starts_with_all_weights_of_a_nested_network(tmp_path):
    stored = randomise(twins())
    model = MoCo(twins(), d=6, projector_layers=2, queue=8)
    initial_weights.copy_networks(model, exported(stored, tmp_path / "w"))
    copies = [layer.backbone for layer in model._flatten_layers() if hasattr(layer, "follow")]
    for backbone in (model.backbone, *copies):
        for one, two in zip(stored.weights, backbone.weights, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(copies) == 1 and (model.started, model.left_out) == ("backbone", "")


def test_a_run_starts_with_all_weights_of_a_transformer(monkeypatch):
    stored = randomise(vit())
    pooled = [keras.Model(net.input, net.output[:, 0], name="backbone") for net in (stored, vit())]
    monkeypatch.setattr(backbone_file, "load_backbone", lambda weights: pooled[0])
    model = SimSiam(pooled[1], d=6, projector_layers=2, predictor_hidden=32)
    initial_weights.copy_networks(model, "runs/x")
    for one, two in zip(stored.weights, model.backbone.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_another_architecture_is_refused_by_its_paths(tmp_path):
    model = MoCo(twins((8, 8)), d=6, projector_layers=2, queue=8)
    weights = exported(twins((8, 4)), tmp_path / "w")
    said = r"differ: 6 of another shape \(right/wide/kernel: \(3, 3, 8, 8\) here, \(3, 3, 8, 4\) there"
    with pytest.raises(UserError, match=said):
        initial_weights.copy_networks(model, weights)
    model = MoCo(nets.resnet10(stem="small", width=0.125, channels=1), d=6, projector_layers=2, queue=8)
    with pytest.raises(
        UserError, match=r"60 only here \(stem_conv/kernel; .*…\), 13 only there \(stem/kernel; "
    ):
        initial_weights.copy_networks(model, weights)


def test_momentum_arrives_by_path(monkeypatch):
    model = SimSiam(twins(), d=6, projector_layers=2, predictor_hidden=32)
    model.compile(optimizers.SGD(0.1, 0.9))
    model.optimizer.build(model.trainable_variables)
    stored = randomise(twins())
    monkeypatch.setattr(backbone_file, "load_beside", lambda weights, name: stored)
    assert initial_weights.copy_momentum(model, "runs/x", ["backbone"])
    expected = {path: v for path, v in variables_by_path(stored).items() if v.trainable}
    for path, variable in variables_by_path(model.backbone).items():
        if variable.trainable:
            index = model.optimizer._get_variable_index(variable)
            np.testing.assert_array_equal(model.optimizer.momentums[index], expected[path])
