"""Depths of blocks rise along networks of many makes, as in timm, and layers freeze up to a name."""

import keras
import numpy as np
import pytest

from simsiam_tf import nets
from simsiam_tf.nets import layer_order
from simsiam_tf.runtime.errors import UserError

PARITY = "needs timm: pip install timm"


def hub_vit(layers=3):
    hub = pytest.importorskip("keras_hub")
    return hub.models.ViTBackbone((16, 16, 3), 4, layers, 2, 8, 16)


def wrapped_vit():
    vit = hub_vit()
    images = keras.Input((16, 16, 3))
    return keras.Model(images, keras.layers.GlobalAveragePooling1D()(vit(images)), name="wrapped")


def application(name):
    make = getattr(keras.applications, name)
    return lambda: make(weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3))


DENSE = "transformer_block_2/mlp/dense_1"
NETWORKS = {  # network, number of blocks, layers of the stem, block of a layer, layers after the last block
    "resnet18": (nets.resnet18, 8, "stem_conv", ("stage2_block1_conv2", 3), ""),
    "EfficientNetV2B0": (
        application("EfficientNetV2B0"), 21, "stem_conv", ("block2b_project_bn", 3), "top_conv",
    ),
    "ResNet50V2": (application("ResNet50V2"), 16, "conv1_conv", ("conv3_block2_2_conv", 5), "post_bn"),
    "MobileNet": (application("MobileNet"), 13, "conv1", ("conv_pw_4_bn", 4), ""),
    "vit": (hub_vit, 3, "class_token", (DENSE, 2), "vit_encoder/ln"),
    "vit in a model": (wrapped_vit, 3, "class_token", (DENSE, 2), "vit_encoder/ln"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_depths_rise_along_the_network(name):
    make, blocks, stem, (layer, depth), after = NETWORKS[name]
    network = make()
    depths, heads = layer_order.block_depths(network)
    assert heads == blocks + 1
    numbers = [d for _, d in depths]
    assert numbers == sorted(numbers) and set(numbers) == set(range(heads))
    assert {id(v) for v, _ in depths} == {id(v) for v in network.trainable_variables}
    assert {d for v, d in depths if stem in v.path} == {0}
    assert {d for v, d in depths if f"{layer}/" in v.path} == {depth}
    assert not after or {d for v, d in depths if f"{after}/" in v.path} == {blocks}


def timm():
    pytest.importorskip("reference_torch.torchvision_views", reason=PARITY)  # lets torchvision be imported
    return pytest.importorskip("timm", reason=PARITY)


def scales(peer):
    """Factors of timm, by the names of the parameters."""
    names = {id(p): name for name, p in peer.named_parameters()}
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(peer, 0.05, layer_decay=0.75)
    return {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}


def factors(network):
    variables = network.trainable_variables
    return {
        v.path: f for v, f in zip(variables, layer_order.rate_factors(network, variables, 0.75), strict=True)
    }


def test_rates_of_a_transformer_are_those_of_timm():
    peer = timm().models.VisionTransformer(img_size=16, patch_size=4, embed_dim=8, depth=3, num_heads=2)
    theirs, ours = scales(peer), factors(hub_vit())
    stem, encoder = "vit_patching_and_embedding", "vit_encoder"
    pairs = {
        f"{stem}/class_token": "cls_token",
        f"{stem}/position_embedding/embeddings": "pos_embed",
        f"{stem}/patch_embedding/kernel": "patch_embed.proj.weight",
        f"{encoder}/ln/gamma": "norm.weight",
    }
    for i in range(3):
        pairs[f"{encoder}/transformer_block_{i + 1}/mlp/dense_1/kernel"] = f"blocks.{i}.mlp.fc1.weight"
    for mine, peers in pairs.items():
        assert ours[mine] == pytest.approx(theirs[peers]), mine
    assert theirs["head.weight"] == 1 and ours["vit_encoder/ln/gamma"] == 0.75
    assert ours["vit_patching_and_embedding/class_token"] == pytest.approx(0.75**4)


def test_rates_of_a_resnet_are_those_of_timm():
    theirs, ours = scales(timm().create_model("resnet18")), factors(nets.resnet18())
    pairs = {"stem_conv/kernel": "conv1.weight", "stem_bn/gamma": "bn1.weight"} | {
        f"stage{s}_block{b + 1}_conv1/kernel": f"layer{s}.{b}.conv1.weight"
        for s in (1, 2, 3, 4)
        for b in (0, 1)
    }
    for mine, peers in pairs.items():
        assert ours[mine] == pytest.approx(theirs[peers]), mine
    assert ours["stage4_block2_conv2/kernel"] == 0.75 and theirs["fc.weight"] == 1


def test_a_network_without_blocks_is_an_error():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first")], name="plain")
    with pytest.raises(UserError, match=r"`layer_decay`: the network plain has no blocks.*first"):
        layer_order.rate_factors(network, network.trainable_variables, 0.5)
    assert layer_order.rate_factors(network, network.trainable_variables, 1.0) == [1.0, 1.0]


def test_layers_freeze_up_to_the_last_of_a_name():
    network = nets.resnet18(width=0.125)
    layer_order.freeze_until(network, "stage2")
    trained = {v.path.split("_")[0] for v in network.trainable_variables}
    assert trained == {"stage3", "stage4"}
    statistics = {v.path: v.numpy() for v in network.non_trainable_variables if "moving" in v.path}
    network(np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32"), training=True)
    changed = {v.path.split("_")[0] for v in network.weights if v.path in statistics
               and (v.numpy() != statistics[v.path]).any()}  # fmt: skip
    assert changed == {"stage3", "stage4"}


def test_a_number_counts_as_a_whole():
    network = hub_vit(layers=11)
    layer_order.freeze_until(network, "transformer_block_1")
    blocks = {layer_order.block_of(tuple(v.path.split("/"))) for v in network.trainable_variables}
    names = {f"vit_encoder/transformer_block_{i}" for i in range(2, 12)}
    assert blocks == names | {""}  # and the last norm
    assert not [v.path for v in network.trainable_variables if "embedding" in v.path]


def test_a_layer_that_holds_frozen_and_trained_ones_keeps_the_latter():
    network = hub_vit()
    layer_order.freeze_until(network, "transformer_block_2")
    paths = [v.path for v in network.trainable_variables]
    assert len(paths) == 18 and all("transformer_block_3" in p or "vit_encoder/ln/" in p for p in paths)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stage22", r"freeze_until=stage22: no layer of backbone .* Did you mean stage2_block2"),
        ("stage4_block2_bn2", "freezes every weight of backbone"),
        ("pool", "freezes every weight of backbone"),
    ],
)
def test_a_name_that_does_not_fit_is_an_error(name, said):
    network = nets.resnet18(width=0.125)
    with pytest.raises(UserError, match=said):
        layer_order.freeze_until(network, name)
    assert all(layer.trainable for layer in network.layers)
