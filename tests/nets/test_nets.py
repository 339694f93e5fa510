"""Networks: sizes, initial values, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import nets

PARITY = "needs torch: pip install 'simsiam-tf[parity]'"


def _count(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [("resnet18", 11_176_512, 512), ("resnet34", 21_284_672, 512), ("resnet50", 23_508_032, 2048)],
)
def test_size_is_that_of_torchvision_without_its_fc(name, parameters, features):
    net = nets.resnet(name)
    assert _count(net.trainable_variables) == parameters
    assert net.output_shape == (None, features)
    gammas = [layer for layer in net.layers if isinstance(layer, nets.BatchNorm)]
    # The last BN of every block, and no other, starts at γ = 0; variances at 1.
    last = {"resnet18": 8, "resnet34": 16, "resnet50": 16}[name]
    ends = "_bn3" if name == "resnet50" else "_bn2"
    zero = {layer.name for layer in gammas if not layer.gamma.numpy().any()}
    assert zero == {layer.name for layer in gammas if layer.name.endswith(ends)}
    assert len(zero) == last
    assert all((layer.gamma.numpy() == 1).all() for layer in gammas if layer.name not in zero)
    assert all((b.moving_variance.numpy() == 1).all() and not b.beta.numpy().any() for b in gammas)


@pytest.mark.parametrize(("stem", "pixels"), [("imagenet", 8), ("cifar", 32), ("small", 16)])
def test_stem_sets_the_first_resolution(stem, pixels):
    net = nets.resnet10(stem, width=0.25, channels=1)
    first = keras.Model(net.input, net.get_layer("stage1_block1_relu").output)
    assert first(tf.zeros([1, 32, 32, 1])).shape == (1, pixels, pixels, 16)
    assert net(tf.zeros([2, 32, 32, 1])).shape == (2, 128)
    assert ("stem_pool" in {layer.name for layer in net.layers}) == (stem == "imagenet")


def test_bottlenecks_have_their_stride_in_the_3x3():
    net = nets.resnet50(width=0.125)
    strides = {layer.name: layer.strides for layer in net.layers if isinstance(layer, nets.Conv)}
    for stage in (2, 3, 4):
        block = f"stage{stage}_block1"
        found = [strides[f"{block}_{part}"][0] for part in ("conv1", "conv2", "conv3", "downsample")]
        assert found == [1, 2, 1, 2]
        assert net.get_layer(f"{block}_conv2").kernel_size == (3, 3)
    assert sum(s == (2, 2) for s in strides.values()) == 1 + 3 * 2


def test_unknown_names_and_empty_widths_are_errors():
    with pytest.raises(ValueError, match="'resnet19'.*resnet18"):
        nets.resnet("resnet19")
    with pytest.raises(ValueError, match="'mnist'.*small"):
        nets.resnet18("mnist")
    with pytest.raises(ValueError, match="width=0.001"):
        nets.resnet18(width=0.001)


def test_fc_init_is_uniform_within_root_of_one_over_fan_in():
    keras.utils.set_random_seed(0)
    net = nets.projector(400, 350, hidden=350, bn="none")
    for name, fan_in in (("fc1", 400), ("fc2", 350), ("fc3", 350)):
        bound = fan_in**-0.5
        for values in (net.get_layer(name).kernel.numpy(), net.get_layer(name).bias.numpy()):
            assert 0.97 * bound < np.abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / 3**0.5, rel=0.12 if values.ndim == 1 else 0.01)
    first, second = (net.get_layer(n).kernel.numpy() for n in ("fc2", "fc3"))
    assert np.abs(first - second).max() > 0.01


def test_conv_init_is_he_normal_by_fan_out():
    keras.utils.set_random_seed(0)
    net = nets.resnet18("imagenet", width=0.5)
    for name in ("stem_conv", "stage2_block1_conv1", "stage3_block1_downsample", "stage4_block2_conv2"):
        kernel = net.get_layer(name).kernel.numpy()
        height, width, _, outputs = kernel.shape
        std = (2 / (height * width * outputs)) ** 0.5
        assert kernel.std() == pytest.approx(std, rel=0.05)
        assert np.abs(kernel).max() > 2.5 * std  # not truncated


@pytest.mark.parametrize(
    ("row", "proj", "pred"),
    [("none", [], []), ("hidden", [1, 2], [1]), ("default", [1, 2, 3], [1]), ("all", [1, 2, 3], [1, 2])],
)
def test_bn_placement_is_table_3(row, proj, pred):
    for net, bns, layers in (
        (nets.projector(24, 16, bn=row), proj, 3), (nets.predictor(16, bn=row), pred, 2),
    ):  # fmt: skip
        found = [layer.name for layer in net.layers if isinstance(layer, nets.BatchNorm)]
        assert found == [f"bn{i}" for i in bns]
        # An fc has a bias where no BN follows it; ReLU follows all but the last.
        biased = [i for i in range(1, layers + 1) if net.get_layer(f"fc{i}").use_bias]
        assert biased == [i for i in range(1, layers + 1) if i not in bns]
        relus = [layer.name for layer in net.layers if isinstance(layer, keras.layers.ReLU)]
        assert relus == [f"relu{i}" for i in range(1, layers)]


def test_head_widths_and_defaults():
    shapes = lambda net: [layer.kernel.shape for layer in net.layers if isinstance(layer, keras.layers.Dense)]
    assert shapes(nets.projector(2048)) == [(2048, 2048)] * 3  # Sec. 3, with ResNet-50
    assert shapes(nets.projector(2048, 256)) == [(2048, 2048), (2048, 2048), (2048, 256)]  # App. B
    assert shapes(nets.projector(512)) == [(512, 512), (512, 512), (512, 2048)]
    assert shapes(nets.predictor()) == [(2048, 512), (512, 2048)]
    assert shapes(nets.projector(8, 16, hidden=32, layers=2)) == [(8, 32), (32, 16)]


def test_output_affine_concerns_the_output_bn_only():
    net = nets.projector(24, 16, output_affine=False)
    affine = {f"bn{i}": len(net.get_layer(f"bn{i}").trainable_variables) for i in (1, 2, 3)}
    assert affine == {"bn1": 2, "bn2": 2, "bn3": 0}
    z = net(np.random.default_rng(0).normal(3, 2, (64, 24)), training=True).numpy()
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)


def test_saved_backbone_gives_the_same_features(tmp_path):
    keras.utils.set_random_seed(0)
    net = nets.resnet10("small", width=0.25, channels=1)
    rng = np.random.default_rng(0)
    for v in net.weights:
        if v.name != "kernel":
            v.assign(rng.uniform(0.5, 1.5, v.shape))
    x = rng.normal(size=(4, 16, 16, 1)).astype("float32")
    net.save(tmp_path / "backbone.keras")
    again = keras.models.load_model(tmp_path / "backbone.keras")
    np.testing.assert_array_equal(again(x, training=False), net(x, training=False))
    np.testing.assert_array_equal(again(x, training=True), net(x, training=True))
    bn = again.get_layer("stage1_block1_bn2")
    assert (bn.momentum, bn.epsilon, bn.affine, bn.zero_gamma) == (0.9, 1e-5, True, True)


@pytest.mark.parametrize("how", ["sequential", pytest.param("functional", marks=pytest.mark.slow)])
@pytest.mark.parametrize("saved", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_frozen_backbone_keeps_its_statistics_in_plain_keras(how, saved, tmp_path):
    backbone, classes = nets.resnet10("small", width=0.125, channels=1), keras.layers.Dense(3)
    if saved:
        backbone.save(tmp_path / "backbone.keras")
        backbone = keras.saving.load_model(tmp_path / "backbone.keras")
    images = keras.Input((16, 16, 1))
    model = keras.Sequential([images, backbone, classes])
    if how == "functional":
        model = keras.Model(images, classes(backbone(images, training=False)))
    moving = [v for v in backbone.weights if "moving" in v.name]
    assert len(moving) == 24
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 1))
    for trainable in (False, True):
        backbone.trainable = trainable
        model.compile("sgd", "mse")
        before, kernel = [v.numpy() for v in backbone.weights], classes.kernel.numpy()
        model.fit(x, np.ones((8, 3)), verbose=0)
        changed = {
            v.path for v, w in zip(backbone.weights, before, strict=True) if not np.array_equal(v.numpy(), w)
        }
        assert changed >= {v.path for v in moving} if trainable else not changed
        assert np.abs(classes.kernel.numpy() - kernel).max() > 0


@pytest.mark.slow
def test_the_first_network_of_a_process_depends_on_its_seed_alone():
    code = (
        "import keras, numpy as np, simsiam_tf as ss\n"
        "def sums():\n"
        "    keras.utils.set_random_seed(0)\n"
        "    backbone = ss.nets.resnet10('small', width=0.125, channels=1)\n"
        "    return [float(np.sum(v)) for v in ss.SimSiam(backbone, d=8).get_weights()]\n"
        "print(sums() == sums())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True"], done.stderr
