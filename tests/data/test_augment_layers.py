"""The augmentation's operators against torchvision and PIL (tests/data/golden), and their use as layers."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import make_views as made
from PIL import Image, ImageOps

from simsiam_tf.data.augment import random_layers
from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.crops import RandomResizedCrop
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.sampling import uniforms
from simsiam_tf.runtime.devices import on_cpu

PHOTOS = tuple(made.REGION)
LAYERS = {
    "crop": functools.partial(RandomResizedCrop, 24),
    "jitter": functools.partial(random_layers.RandomColorJitter, p=1.0),
    "gray": functools.partial(random_layers.RandomGrayscale, p=1.0),
    "blur": functools.partial(random_layers.RandomGaussianBlur, sigma=(0.5, 2.0), p=1.0),
    "solarize": functools.partial(random_layers.RandomSolarization, p=1.0),
    "flip": functools.partial(random_layers.RandomHorizontalFlip, p=1.0),
    "vertical flip": functools.partial(random_layers.RandomVerticalFlip, p=1.0),
}


@pytest.fixture(scope="module")
def golden():
    with np.load(made.FILE) as file:
        return dict(file)


def patches(golden) -> np.ndarray:
    """The patches of both photographs, one float32 batch: the input of all operators but the crop."""
    return np.stack([golden[f"{photo}/region"][made.PATCH] for photo in PHOTOS]).astype(np.float32)


def expected(golden, name) -> np.ndarray:
    return np.stack([golden[f"{photo}/{name}"] for photo in PHOTOS]).astype(np.float32)


def error(ours, theirs) -> float:
    """The larger mean absolute difference of the two photographs, in gray levels."""
    assert ours.shape == theirs.shape
    return float(np.abs(np.asarray(ours) - theirs).mean(axis=(1, 2, 3)).max())


def jitter(images, order=(), **amounts) -> np.ndarray:
    """RandomColorJitter with the given amounts in the given order, through its uniforms."""
    layer = random_layers.RandomColorJitter(p=1.0)
    operators = random_layers.OPERATORS
    order = (*order, *(name for name in operators if name not in order))
    u = np.full([len(images), layer.draws], 0.5, np.float32)
    for k, name in enumerate(operators):
        if name in amounts:
            offset = amounts[name] - (name != "hue")
            u[:, 1 + k] = (offset / getattr(layer, name) + 1) / 2
        u[:, 5 + k] = order.index(name) / 4
    images = tf.constant(images)
    return layer.augment_images(images, layer.transformations(tf.constant(u), images)).numpy()


# Golden values.


@pytest.mark.parametrize("name", made.BOXES)
def test_crop_and_resize_equal_pil(golden, name):
    regions = tf.constant(expected(golden, "region"))
    boxes = tf.constant([made.BOXES[name]] * 2, tf.float32)
    ours = RandomResizedCrop(made.SIZE).augment_images(regions, {"boxes": boxes})
    assert error(ours, expected(golden, f"crop/{name}")) < 0.5


def test_crop_of_one_image_equals_the_crop_of_a_batch(golden):
    layer = RandomResizedCrop(48)
    regions = tf.constant(np.repeat(expected(golden, "region"), 8, axis=0))
    boxes = layer.transformations(uniforms(0, 0, 16, layer.draws), regions)["boxes"]
    whole = layer.augment_images(regions, {"boxes": boxes})
    single = tf.stack([layer.crop_of_one(*pair) for pair in zip(regions, boxes, strict=True)])
    np.testing.assert_allclose(single, whole, atol=0.02)


@pytest.mark.parametrize("factor", made.FACTORS)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_blends_equal_pil(golden, name, factor):
    ours = jitter(patches(golden), **{name: factor})
    theirs = expected(golden, f"{name}/{factor}")
    assert error(ours, theirs) < 0.5
    assert error(np.floor(ours + 1e-3), theirs) < 0.25  # as PIL's blend cuts the fraction off


@pytest.mark.parametrize("shift", made.HUES)
def test_hue_equals_torchvision(golden, shift):
    assert error(jitter(patches(golden), hue=shift), expected(golden, f"hue/{shift}")) < 0.1


def test_gray_equals_pil(golden):
    ours = random_layers.RandomGrayscale().augment_images(patches(golden), {"chosen": tf.fill([2], True)})
    assert error(ours, expected(golden, "gray")) < 0.5


@pytest.mark.parametrize("sigma", made.SIGMAS)
def test_blur_equals_pil(golden, sigma):
    how = {"chosen": tf.fill([2], True), "sigma": tf.fill([2], sigma)}
    ours = random_layers.RandomGaussianBlur().augment_images(patches(golden), how)
    assert error(ours, expected(golden, f"blur/{sigma}")) < 1.0
    assert error(patches(golden), expected(golden, f"blur/{sigma}")) > 2.0  # the blur shows


@pytest.mark.parametrize("shape", [(3, 5), (16, 9), (28, 28)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_by_products_equals_blur_by_shifted_sums(shape, channels):
    images = 255.0 * tf.random.stateless_uniform([4, *shape, channels], [1, 2])
    how = {"chosen": tf.constant([True, True, False, True]), "sigma": tf.constant([0.1, 1.3, 1.7, 2.0])}
    ways = [random_layers.RandomGaussianBlur(p=1.0, products=products) for products in (False, True)]
    shifted, multiplied = (layer.augment_images(images, how) for layer in ways)
    np.testing.assert_allclose(multiplied, shifted, atol=1e-3)
    np.testing.assert_array_equal(multiplied[2], images[2])


def test_small_views_on_a_cpu_are_blurred_by_products():
    for size, small in ((28, True), (64, True), (96, False)):
        (blur,) = (
            x
            for x in Views(Augmentation(size=size)).layers[0]
            if isinstance(x, random_layers.RandomGaussianBlur)
        )
        assert blur.products == (small and on_cpu())


@pytest.mark.parametrize("threshold", [128, 40])
def test_solarisation_equals_pil_and_keras_cv(golden, threshold):
    import keras_cv  # after ours, by which it imports under every Keras

    images = patches(golden)
    layer = random_layers.RandomSolarization(threshold=threshold)
    found = layer.augment_images(tf.constant(images), {"chosen": tf.constant([True, False])}).numpy()
    np.testing.assert_array_equal(found[1], images[1])
    pils = ImageOps.solarize(Image.fromarray(images[0].astype(np.uint8)), threshold)
    np.testing.assert_array_equal(found[0], pils)
    theirs = keras_cv.layers.Solarization((0, 255), threshold_factor=(threshold, threshold))
    below = threshold - 1  # keras-cv inverts what is above its threshold, PIL what is at it, too
    np.testing.assert_array_equal(found[0][images[0] != threshold], theirs(images)[0][images[0] != threshold])
    assert (found[0] != images[0]).any() and (
        found[0][images[0] <= below] == images[0][images[0] <= below]
    ).all()


def test_flip_equals_pil(golden):
    layer, images = random_layers.RandomHorizontalFlip(), patches(golden)
    np.testing.assert_array_equal(
        layer.augment_images(images, {"chosen": tf.fill([2], True)}), expected(golden, "flip")
    )
    np.testing.assert_array_equal(layer.augment_images(images, {"chosen": tf.fill([2], False)}), images)


def test_vertical_flips_and_turns_equal_numpys(golden):
    x = patches(golden)[:, :40, :40]
    flip, turn = random_layers.RandomVerticalFlip(0.5), random_layers.RandomQuarterTurn(0.5)
    u = np.array([[0.4], [0.6]], np.float32)  # below the probability: flipped
    flipped = flip.augment_images(x, flip.transformations(tf.constant(u), x))
    np.testing.assert_array_equal(flipped, np.stack([x[0][::-1], x[1]]))
    for second, quarters in ((0.0, 1), (0.34, 2), (0.99, 3)):
        u = np.array([[0.4, second], [0.6, second]], np.float32)
        turned = turn.augment_images(x, turn.transformations(tf.constant(u), x))
        np.testing.assert_array_equal(turned, np.stack([np.rot90(x[0], quarters), x[1]]))


def test_jitter_keeps_its_order(golden):
    images = patches(golden)
    chains = [jitter(images, order, **made.CHAIN) for order in made.ORDERS]
    for (i, ours), (j, theirs) in itertools.product(enumerate(chains), enumerate(chains)):
        if i == j:
            assert error(ours, expected(golden, f"chain/{j}")) < 0.2
        else:
            assert error(ours, expected(golden, f"chain/{j}")) > 2.0
            assert error(ours, theirs) > 2.0


def test_each_image_has_its_own_order(golden):
    image = patches(golden)[0]
    layer = random_layers.RandomColorJitter(p=1.0)
    images = tf.constant(np.stack([image] * 24))
    rank = tf.constant(list(itertools.permutations(range(4))))
    factors = tf.constant([[made.CHAIN[name] for name in ("brightness", "contrast", "saturation")]] * 24)
    how = {"factors": factors, "hue": tf.fill([24], made.CHAIN["hue"]), "rank": rank}
    together = layer.augment_images(images, how)
    names = random_layers.OPERATORS
    for ours, places in zip(together, rank.numpy(), strict=True):
        x, order = image[None], [names[op] for op in np.argsort(places)]
        for name in order:  # each operator alone, one after the other
            x = jitter(x, **{name: made.CHAIN[name]})
        np.testing.assert_allclose(ours[None], x, atol=0.05)


# Use.


def test_white_stays_white_under_blur():
    layer = random_layers.RandomGaussianBlur(p=1.0)
    images = tf.fill([4, 20, 9, 3], 255.0)
    how = {"chosen": tf.fill([4], True), "sigma": tf.constant([0.1, 0.7, 1.3, 2.0])}
    np.testing.assert_allclose(layer.augment_images(images, how), images, atol=1e-3)


def test_blur_not_chosen_changes_nothing(golden):
    how = {"chosen": tf.fill([2], False), "sigma": tf.fill([2], 2.0)}
    ours = random_layers.RandomGaussianBlur().augment_images(patches(golden), how)
    np.testing.assert_array_equal(ours, patches(golden))


def test_layers_of_one_channel_equal_those_of_three(golden):
    gray = expected(golden, "gray")
    one = gray[..., :1]
    np.testing.assert_array_equal(jitter(one, saturation=1.4, hue=0.1), one)
    np.testing.assert_array_equal(LAYERS["gray"]()(one), one)
    brighter = jitter(one, ("contrast", "brightness"), contrast=0.6, brightness=1.4)
    assert np.abs(brighter - one).mean() > 5
    orders = [("contrast", "brightness"), ("brightness", "contrast")]
    for order in orders:
        both = [jitter(x, order, contrast=0.6, brightness=1.4) for x in (one, gray)]
        np.testing.assert_allclose(both[0], both[1][..., :1], atol=0.01)
    for name in ("crop", "blur", "flip"):
        layer = LAYERS[name]()
        how = layer.transformations(uniforms(0, 0, 2, layer.draws), one)
        np.testing.assert_allclose(
            layer.augment_images(one, how), layer.augment_images(gray, how)[..., :1], atol=0.01
        )


@pytest.mark.parametrize("name", LAYERS)
def test_layers_work_as_keras_cv_layers(golden, name):
    layer, images = LAYERS[name](), tf.cast(patches(golden), tf.uint8)
    side = (24, 24) if name == "crop" else images.shape[1:3]
    views = layer(images)
    assert views.shape == (2, *side, 3) and views.dtype == "float32"
    if name != "crop":
        assert error(views, patches(golden)) > 1.0
    out = layer({"images": images, "labels": tf.constant([[3.0], [7.0]])})
    assert out["images"].shape == (2, *side, 3)
    assert out["labels"].numpy().tolist() == [[3.0], [7.0]]
    assert layer(images[0]).shape == (*side, 3)  # one image, without a batch
    same = type(layer).from_config(layer.get_config())
    assert same.get_config() == layer.get_config()
    how = [x.transformations(uniforms(0, 1, 2, x.draws), images) for x in (layer, same)]
    tf.nest.map_structure(np.testing.assert_array_equal, *how)


def test_layers_draw_for_each_image_and_call():
    layer, images = random_layers.RandomColorJitter(p=1.0), tf.fill([6, 4, 4, 3], 100.0)
    means = np.concatenate([tf.reduce_mean(layer(images), axis=[1, 2, 3]) for _ in range(2)])
    assert len(np.unique(means)) == 12


@pytest.mark.parametrize("name", LAYERS)
def test_layers_work_in_a_parallel_map(golden, name):
    layer, images = LAYERS[name](), patches(golden)

    def augmented(step):
        u = uniforms(0, step, 2, layer.draws)
        return layer.augment_images(images, layer.transformations(u, images))

    mapped = tf.data.Dataset.range(4).map(augmented, num_parallel_calls=2)
    for step, views in enumerate(mapped):
        np.testing.assert_allclose(views, augmented(step), atol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_stay_float32_under_a_mixed_policy(golden, name):
    images = patches(golden)

    def run():
        layer = LAYERS[name]()
        layer(images)
        u = uniforms(0, 2, 2, layer.draws)
        return layer(images).dtype, layer.augment_images(images, layer.transformations(u, images))

    _, before = run()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        dtype, mixed = run()
    finally:
        keras.config.set_dtype_policy(policy)
    assert dtype == "float32" and mixed.dtype == "float32"
    np.testing.assert_array_equal(mixed, before)
