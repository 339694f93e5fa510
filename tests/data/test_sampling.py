"""The order of images and the draws are functions of the step, and so are batches."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

import simsiam_tf.data as data
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import pipeline, sampling
from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.evaluate import knn_monitor
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import callbacks, run_data

SIZE, BATCH, SEED = 22, 8, 11  # 2.75 steps an epoch: batches straddle epochs
LIGHT = Augmentation(size=12, jitter_p=0.0, blur_p=0.0)  # quick to build; crop, gray and flip remain


def ids_of(steps, seed=SEED, batch=BATCH, size=SIZE) -> np.ndarray:
    return np.concatenate([sampling.example_ids(seed, step, batch, size) for step in steps])


@pytest.fixture(scope="module")
def views() -> Views:
    return Views(LIGHT)


@pytest.fixture(scope="module", params=["array", "encoded"])
def source(request) -> data.Source:
    """Images in memory, or of different sizes and read one at a time."""
    rng = np.random.default_rng(0)
    if request.param == "array":
        return data.from_arrays("noise", rng.integers(0, 256, [SIZE, 20, 16, 3], np.uint8))
    sides = rng.integers(12, 30, [SIZE, 2])
    files = tf.constant(
        [tf.io.encode_png(rng.integers(0, 256, [*side, 3], np.uint8)).numpy() for side in sides]
    )
    return EncodedSource("noise", SIZE, 3, None, (), "noise", lambda i: tf.gather(files, i))


@pytest.fixture(scope="module")
def whole(source, views) -> list[dict]:
    """The batches of steps 0 … 5."""
    return batches(source, views, 0, 6)


def batches(source, views, first, last, **kwargs) -> list[dict]:
    dataset = pipeline.StepBatches(source, views, BATCH, SEED, **kwargs).dataset(first, last)
    return list(dataset.as_numpy_iterator())


def assert_equal(ours: list[dict], theirs: list[dict], tolerance=0.0) -> None:
    """Ids are equal; views are equal to the bit, or differ by at most `tolerance` on average."""
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        for x, y in zip(a["views"], b["views"], strict=True):
            assert x.shape == y.shape and np.abs(x - y).mean() <= tolerance


def joined(parts: list[dict]) -> dict:
    """The batch of one step, from elements that hold its consecutive rows."""
    views = zip(*(part["views"] for part in parts), strict=True)
    index = np.concatenate([part["index"] for part in parts])
    return {"index": index, "views": tuple(np.concatenate(view) for view in views)}


# Order.


@pytest.mark.parametrize("size", [1, 7, 22, 1000])
def test_every_epoch_is_a_permutation(size):
    batch = max(1, size // 3)
    steps = range(-(-4 * size // batch))
    ids = ids_of(steps, batch=batch, size=size)[: 4 * size].reshape(4, size)
    np.testing.assert_array_equal(np.sort(ids, axis=1), np.tile(np.arange(size), (4, 1)))


def test_epochs_and_seeds_differ_in_order():
    steps = range(3 * 100 // 10)
    orders = [ids_of(steps, seed, 10, 100).reshape(3, 100) for seed in (0, 1, 2)]
    orders = np.concatenate([*orders, np.arange(100)[None]])  # and none is the order of the files
    same = (orders[:, None] == orders[None]).mean(axis=2)
    assert same[~np.eye(10, dtype=bool)].max() < 0.1


def test_a_batch_may_straddle_epochs():
    # Positions 16 … 23 of the stream: six of the first epoch, two of the second.
    whole = ids_of([0], batch=SIZE), ids_of([1], batch=SIZE)
    np.testing.assert_array_equal(ids_of([2]), np.concatenate([whole[0][16:], whole[1][:2]]))
    np.testing.assert_array_equal(ids_of(range(5))[:40], np.concatenate(whole)[:40])


def test_ids_of_steps_beyond_32_bits():
    step = tf.constant(2**31 + 5, tf.int64)  # its positions need 64 bits
    n = (2**31 + 5) * BATCH + np.arange(BATCH)
    in_epoch = ids_of([n[0] // SIZE], batch=SIZE)
    inside = n // SIZE == n[0] // SIZE
    np.testing.assert_array_equal(ids_of([step])[inside], in_epoch[n % SIZE][inside])


def test_steps_in_epochs():
    assert sampling.steps_in(1, 22, 8) == 2
    assert sampling.steps_in(4, 22, 8) == 11
    assert sampling.steps_in(0.5, 22, 8) == 1 and sampling.steps_in(0.01, 22, 8) == 1
    assert [sampling.epoch_end(epoch, 22, 8) for epoch in (1, 2, 3, 4)] == [3, 6, 9, 11]


# Draws.


def test_uniforms_differ_between_rows_columns_steps_and_seeds():
    u = np.stack([sampling.uniforms(seed, step, 50, 40) for seed, step in [(0, 0), (0, 1), (1, 0)]])
    assert u.min() >= 0 and u.max() < 1
    assert len(np.unique(u)) > 0.999 * u.size
    np.testing.assert_array_equal(u[1], sampling.uniforms(0, tf.constant(1, tf.int64), 50, 40))


@pytest.mark.parametrize("count", [2, 4])
def test_views_of_an_image_differ(count):
    views = Views(Augmentation(size=12), count)
    images = tf.cast(sampling.uniforms(0, 0, 8, 20 * 16 * 3) * 256, tf.uint8)
    images, u = tf.reshape(images, [8, 20, 16, 3]), sampling.uniforms(0, 1, 8, views.draws)
    made = [view.numpy() for view in views.augment(views.crop_batch(images, u), u)]
    assert len(made) == count
    for a, b in itertools.combinations(made, 2):
        assert np.abs(a - b).mean(axis=(1, 2, 3)).min() > 0.05


def test_every_draw_moves_one_view_only():
    views = Views(Augmentation(size=12), 4)
    images = tf.cast(sampling.uniforms(0, 0, 1, 20 * 16 * 3) * 256, tf.uint8)
    images = tf.reshape(images, [1, 20, 16, 3])
    u = tf.fill([1, views.draws], 0.2)  # every layer is applied to every view
    share = views.draws // 4

    def made(u):
        return [x.numpy() for x in views.augment(views.crop_batch(images, u), u)]

    for view in range(4):
        other = u.numpy()
        other[:, view * share : (view + 1) * share] = 0.4
        moved = [bool((a != b).any()) for a, b in zip(made(u), made(tf.constant(other)), strict=True)]
        assert moved == [k == view for k in range(4)]


# Pipelines.


def test_a_start_at_step_k_continues_the_run_to_the_bit(source, views, whole):
    assert_equal(batches(source, views, tf.constant(4, tf.int64), tf.constant(6, tf.int64)), whole[4:])


def test_the_full_augmentation_repeats_to_the_bit(source):
    views = Views(Augmentation(size=12))
    assert_equal(batches(source, views, 1, 3), batches(source, views, 0, 3)[1:])


# Another cut makes batches of other sizes, whose last bits may round differently.


@pytest.mark.parametrize("parts", [2, 4])
def test_elements_of_a_step_make_up_its_batch(source, views, whole, parts):
    cut = batches(source, views, 1, 4, elements_per_step=parts)
    assert len(cut) == 3 * parts and cut[0]["views"][0].shape == (BATCH // parts, 12, 12, 3)
    steps = [joined(cut[i : i + parts]) for i in range(0, len(cut), parts)]
    assert_equal(steps, whole[1:4], tolerance=1e-4)


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_of_two_workers_make_up_the_batch(source, views, whole, parts):
    workers = [batches(source, views, 1, 4, rows=rows, elements_per_step=parts) for rows in [(0, 4), (4, 8)]]
    assert [len(worker) for worker in workers] == [3 * parts] * 2
    steps = [
        joined([element for worker in workers for element in worker[k : k + parts]])
        for k in range(0, 3 * parts, parts)
    ]
    assert_equal(steps, whole[1:4], tolerance=1e-4)


def test_index_holds_the_ids_of_the_images():
    # Image i is all 10 · i: what is left of it after cropping and normalising names its id.
    images = np.arange(SIZE, dtype=np.uint8)[:, None, None, None] * np.full([16, 16, 3], 10, np.uint8)
    plain = Augmentation(size=8, jitter_p=0, gray_p=0, blur_p=0, flip_p=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    for batch in batches(data.from_arrays("flat", images), Views(plain), 0, 3):
        for view in batch["views"]:
            np.testing.assert_allclose(view[:, 4, 4, 0] * 25.5, batch["index"], atol=1e-4)


# For Keras' fit.


def test_every_iteration_of_pretraining_is_the_next_epoch(source, whole):
    dataset = data.pretraining(source, LIGHT, BATCH, seed=SEED)
    assert len(dataset) == SIZE // BATCH == 2
    epochs = [list(dataset.as_numpy_iterator()) for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [2, 2, 2]
    assert_equal(sum(epochs, []), whole)
    orders = [np.concatenate([batch["index"] for batch in epoch]) for epoch in epochs]
    assert (orders[0] != orders[1]).any() and (orders[1] != orders[2]).any()


def test_pretraining_takes_a_specification():
    dataset = data.pretraining("digits", batch_size=400, views=4, size=8)
    assert len(dataset) == 1437 // 400
    assert [tuple(x.shape) for x in dataset.element_spec["views"]] == [(400, 8, 8, 1)] * 4


@pytest.mark.slow
def test_views_are_as_large_as_those_of_the_command():
    """One rule: small images in memory give views of their size, with any named augmentation."""
    config = PretrainConfig(data="digits")
    _, views = run_data.open_data(config)
    assert views.augmentation.size == 8
    for augmentation in (None, "grayscale", "imagenet"):
        given = dataclasses.replace(config, augmentation=augmentation or "auto")
        size = run_data.open_data(given)[1].augmentation.size
        dataset = data.pretraining("digits", augmentation, 400)
        assert dataset.element_spec["views"][0].shape == (400, size, size, 1) and size == 8
    own = dataclasses.replace(data.AUGMENTATIONS["grayscale"], size=12)
    assert data.pretraining("digits", own, 400).element_spec["views"][0].shape[1] == 12
    assert data.pretraining("digits", None, 400, size=10).element_spec["views"][0].shape[1] == 10
    assert knn_monitor.monitor_of("digits").views.augmentation.size == 8
    assert callbacks.LabelFree("digits").monitor.views.augmentation.size == 8
    assert pipeline.view_size(data.open_source("digits"), own) == 8
    large = data.from_arrays("large", np.zeros((4, 65, 65), np.uint8))
    assert pipeline.augmentation_of(large).size == 224


def test_a_batch_larger_than_the_set_is_refused(source):
    with pytest.raises(ValueError, match=f"{SIZE + 1} is larger than noise, which has {SIZE}"):
        data.pretraining(source, "cifar", SIZE + 1)


def test_centred_keeps_the_order_and_the_last_smaller_batch(source):
    views, ids = Views(Augmentation(size=12)), [5, 3, 21, 0, 3]
    parts = list(pipeline.evaluation_views(source, views, ids, batch_size=2).as_numpy_iterator())
    assert [len(part) for part in parts] == [2, 2, 1]
    whole = np.concatenate(parts)
    for x, i in zip(whole, ids, strict=True):
        alone = views.normalise(views.evaluation_view(source.decode(tf.constant(i, tf.int64))))
        np.testing.assert_allclose(x, alone, atol=1e-5)


# Targets.


def labelled(source) -> data.Source:
    """The source with the label 3 · id + 1 of every image."""
    return dataclasses.replace(source, labels=3 * np.arange(SIZE) + 1)


def test_targets_travel_with_their_images(source, views, whole):
    made = batches(labelled(source), views, 0, 6, targets=True)
    assert_equal(made, whole)
    for batch in made:
        np.testing.assert_array_equal(batch["target"], 3 * batch["index"] + 1)
        assert batch["target"].dtype == np.int64
    on_device = pipeline.StepBatches(
        labelled(source), views, BATCH, SEED, elements_per_step=2, augment_on_host=False, targets=True
    )
    batch = next(iter(on_device.dataset(1, 2)))
    assert set(batch) == {"crops", "draws", "index", "target"}
    batch = pipeline.augment_batch(views, batch)
    assert set(batch) == {"views", "index", "target"}
    np.testing.assert_array_equal(batch["target"], 3 * whole[1]["index"][: BATCH // 2] + 1)


def test_targets_of_a_subset_in_a_dataset_for_fit(source):
    part = data.subset(labelled(source), np.arange(SIZE)[::-1][:10])
    (batch,) = data.pretraining(part, LIGHT, 10, targets=True).take(1)
    np.testing.assert_array_equal(batch["target"], 3 * (SIZE - 1 - batch["index"].numpy()) + 1)
    (batch,) = data.pretraining(part, LIGHT, 10).take(1)
    assert set(batch) == {"views", "index"}


def test_targets_of_a_source_without_labels_are_refused(source, views):
    with pytest.raises(UserError, match="noise: has no labels"):
        batches(source, views, 0, 1, targets=True)
