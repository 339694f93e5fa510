"""Views are the same with and without XLA, on host and device, whole and in pieces."""

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.augment import crops
from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.sampling import uniforms
from simsiam_tf.data.sources.base import EncodedSource, from_arrays

FULL = Augmentation(size=70)  # above the size from which XLA is used
BATCH = 12


def photographs(encoded: bool):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, [20, 9, 11, 3]).astype(np.float32)
    images = tf.cast(tf.image.resize(coarse, [90, 110]), tf.uint8).numpy()
    if not encoded:
        return from_arrays("noise", images)
    files = tf.constant([tf.io.encode_png(image[: 60 + 3 * i]).numpy() for i, image in enumerate(images)])
    return EncodedSource("noise", 20, 3, None, (), "noise", lambda i: tf.gather(files, i))


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="array"), pytest.param(True, id="encoded", marks=pytest.mark.slow)],
)
def source(request):
    return photographs(request.param)


def batch_of(source, views, **kwargs) -> dict:
    return next(iter(pipeline.StepBatches(source, views, BATCH, 5, **kwargs).dataset(1, 2)))


def assert_close(ours: dict, theirs: dict, atol: float) -> None:
    np.testing.assert_array_equal(ours["index"], theirs["index"])
    for a, b in zip(ours["views"], theirs["views"], strict=True):
        assert a.shape == b.shape == (BATCH, 70, 70, 3)
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.fixture(scope="module")
def reference(source):
    """A batch made without XLA, in one piece, on the host."""
    views = Views(FULL, xla=False)
    assert not views.xla and Views(FULL).xla and not Views(Augmentation(size=32)).xla
    return batch_of(source, views)


@pytest.mark.slow
def test_views_with_xla_equal_views_without(source, reference):
    assert_close(batch_of(source, Views(FULL)), reference, 2e-4)


def test_views_augmented_on_the_device_equal_those_of_the_host(source, reference):
    views = Views(FULL)
    raw = batch_of(source, views, augment_on_host=False)
    assert set(raw) == {"crops", "draws", "index"} and raw["crops"][0].dtype == tf.uint8
    on_device = tf.function(lambda batch: pipeline.augment_batch(views, batch))
    assert_close(on_device(raw), reference, 2e-4)
    assert pipeline.augment_batch(views, dict(reference)) == reference  # finished ones pass


@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_views_made_in_pieces_equal_views_made_at_once(source, reference, monkeypatch, finished):
    monkeypatch.setattr(pipeline, "PIECE_PIXELS", 4 * 70**2)
    views = Views(FULL)
    batch = batch_of(source, views, augment_on_host=finished)
    assert batch["index"].shape == (BATCH,)
    assert_close(pipeline.augment_batch(views, batch), reference, 2e-4)


def test_a_piece_divides_the_batch_and_fits():
    def piece(rows, size):
        return pipeline.StepBatches(photographs(False), Views(Augmentation(size)), rows).rows_per_piece

    assert piece(512, 224) == 8
    assert piece(12, 224) == 6
    assert piece(7, 224) == 7 and piece(11, 224) == 1
    assert piece(512, 32) == 256
    assert piece(64, 4096) == 1


@pytest.mark.parametrize(
    "size", [(40, 30, 24, 24), (10, 17, 24, 24), (64, 64, 31, 50), (1, 1, 5, 5)], ids=str
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_equals_tensorflows_antialiased_resize(size, channels):
    height, width, h, w = size
    image = tf.cast(256 * uniforms(0, 0, height, width * channels), tf.uint8)
    image = tf.reshape(image, [height, width, channels])
    expected = tf.image.resize(image, [h, w], antialias=True)
    np.testing.assert_allclose(crops.resize(image, h, w), expected, atol=1e-3)
