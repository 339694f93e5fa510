"""Detectors and segmenters on one of our ResNets: what learns, what is predicted, where."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.data import AUGMENTATIONS, Views
from simsiam_tf.dense_tasks import scores as test_scores
from simsiam_tf.dense_tasks.annotations import Annotated, AnnotatedSet
from simsiam_tf.dense_tasks.framing import Framing
from simsiam_tf.dense_tasks.models import DenseModel, Detector, Segmenter
from simsiam_tf.dense_tasks.square_batches import MOST_BOXES, TrainingBatches, padded
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.pretrained import keras_hub as hub
from simsiam_tf.training.labelled_task import LabelledTask

pytest.importorskip("keras_hub")
SIDE, BOXES = 64, np.array([[4, 6, 36, 38], [30, 20, 60, 60]], np.float32)


@dataclasses.dataclass(frozen=True)
class Pair(AnnotatedSet):
    """Two images of 80 × 40 pixels with two boxes."""

    def read(self, index):
        rng = np.random.default_rng(index)
        boxes = BOXES * np.float32([0.6, 1.2, 0.6, 1.2])
        mask = np.zeros((80, 40), np.uint8)
        for k, (left, top, right, lower) in enumerate(boxes.astype(int)):
            mask[top:lower, left:right] = k + 1
        image = rng.integers(0, 256, (80, 40, 3), dtype=np.uint8)
        return Annotated(image, boxes, np.array([1, 0]), np.zeros(2, bool), mask)


PAIR = Pair("pair", 2, ("a", "b"), "")
VIEWS = Views(dataclasses.replace(AUGMENTATIONS["imagenet"], size=SIDE))


def model(kind, frozen=False):
    keras.utils.set_random_seed(0)
    backbone = hub.to_keras_hub(nets.resnet10("imagenet"))
    for variable in backbone.variables:
        if variable.name == "gamma":  # the last of a block starts at 0, and no gradient passes
            variable.assign(tf.ones_like(variable))
    made = kind(backbone, 3 if kind is Segmenter else 2, SIDE, frozen)
    made.compile(keras.optimizers.SGD(0.01))
    return made


def batch(masks):
    made = TrainingBatches(PAIR, Framing(SIDE), VIEWS, masks, 2, 0, (0, 2))
    (first,) = made.dataset(0, 1)
    return first


@pytest.fixture(scope="module")
def detector():
    return model(Detector)


def test_the_box_code_of_every_anchor_leads_back_to_its_object(detector, monkeypatch):
    """Where the network says what the label encoder asks for, all objects are found, and nothing else."""
    x = tf.zeros([1, SIDE, SIDE, 3])
    boxes, labels = padded(BOXES, np.array([1, 0]))
    codes, classes = detector.network.label_encoder(
        images=x, gt_boxes=boxes[None], gt_classes=labels[None].astype(np.float32)
    )
    logits = 20.0 * tf.one_hot(tf.cast(classes, tf.int32), 2) - 10.0
    outputs = {"bbox_regression": tf.where(classes[..., None] >= 0, codes, 0.0), "cls_logits": logits}
    monkeypatch.setattr(Detector, "call", lambda self, images, training=False: outputs)
    found, scores, found_labels, count = (np.asarray(x[0]) for x in detector.detections(x))
    assert count == 2 and sorted(found_labels[:2]) == [0, 1] and (scores[:2] > 0.99).all()
    for box, label in zip(found[:2], found_labels[:2], strict=True):
        np.testing.assert_allclose(box, BOXES[[1, 0][label]], atol=1e-2)


def test_targets_are_not_rounded_in_bfloat16(detector):
    """Steps of bfloat16 are 1 above 128 and 2 above 256, in pixels and in class numbers."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        other = model(Detector)
    finally:
        keras.config.set_dtype_policy("float32")
    boxes, labels = padded(BOXES + np.float32(0.3), np.array([257, 399]))
    x = tf.zeros([1, SIDE, SIDE, 3])
    codes, classes = zip(
        *(m.network.label_encoder(images=x, gt_boxes=boxes[None], gt_classes=labels[None].astype(np.float32))
          for m in (detector, other)), strict=True,
    )  # fmt: skip
    np.testing.assert_array_equal(*codes)
    np.testing.assert_array_equal(*classes)
    assert {257, 399} <= set(np.unique(classes[1]).astype(int))


def test_found_boxes_are_in_pixels_of_the_image(detector, monkeypatch):
    truth = PAIR.read(0)
    seen, labels = Framing(SIDE).boxes(truth, Framing(SIDE).whole(80, 40))

    def found(self, images):
        n = len(images)
        return tuple(np.stack([v] * n) for v in (seen, np.ones(2), labels, np.array(2)))

    monkeypatch.setattr(Detector, "detections", found)
    scores = test_scores.evaluate(
        detector, PAIR, Framing(SIDE), VIEWS, Workers(tf.distribute.get_strategy()), "voc"
    )
    assert scores == {name: pytest.approx(1.0) for name in ("AP", "AP50", "AP75")}


def test_boxes_that_overflowed_are_left_out(detector, monkeypatch):
    boxes = np.float32([[[1, 2, 30, 40], [np.nan, 0, 9, 9], [0, 0, np.inf, 9]]])
    found = boxes, np.float32([[0.9, 0.8, 0.7]]), np.array([[0, 1, 1]]), np.array([3])
    monkeypatch.setattr(Detector, "detections", lambda self, images: found)
    (kept,) = test_scores.predicted_boxes(detector, Framing(SIDE), tf.zeros([1]), [PAIR.read(0)])
    assert kept.labels.tolist() == [0, 1] and kept.boxes.max() <= 80
    np.testing.assert_allclose(kept.boxes[1], [0, 0, 40, 9 * 80 / 64], rtol=1e-5)


@pytest.mark.parametrize("kind", [pytest.param(Detector, marks=pytest.mark.slow), Segmenter])
def test_a_step_trains_all_weights_or_the_heads_alone(kind):
    for frozen in (False, True):
        made = model(kind, frozen)
        before = {v.path: v.numpy().copy() for v in made.network.variables}
        made.train_on_batch(batch(kind is Segmenter))
        changed = {v.path for v in made.network.variables if (v.numpy() != before[v.path]).any()}
        backbone = {v.path for v in made.backbone.variables}
        assert changed - backbone
        assert bool(changed & backbone) != frozen
        if not frozen:
            used = {v.path for v in made.backbone.trainable_variables}
            if kind is Segmenter:  # small images are segmented on the map before the last
                used = {path for path in used if not path.startswith("stack3")}
            assert used <= changed
            learned = {v.path for v in made.learned_variables()}
            assert learned & backbone == used and learned - backbone, "what has no gradient has no optimizer"


def test_masks_are_of_the_size_of_the_image():
    made = model(Segmenter)
    counts = test_scores.evaluate(made, PAIR, Framing(SIDE), VIEWS, Workers(tf.distribute.get_strategy()))
    assert set(counts) == {"mIoU", "pixel accuracy"}
    x = VIEWS.normalise(tf.zeros([2, SIDE, SIDE, 3], tf.uint8))
    masks = test_scores.predicted_masks(made, Framing(SIDE), x, [PAIR.read(0), PAIR.read(1)])
    assert [mask.shape for mask in masks] == [(80, 40)] * 2


class Shares(DenseModel):
    """The metric of an image is its first pixel; an image whose second pixel is 0 has none."""

    metric_name = "share"

    def build_network(self):
        return keras.Sequential([keras.layers.Dense(1)])

    def learned_variables(self):
        return self.network.trainable_variables  # the backbone has no maps

    def losses_of(self, x, target, outputs):
        del target
        return tf.reduce_mean(outputs), x[:, 0, :2, 0]


SHARES = np.float32([[0.2, 1], [0, 0], [0.6, 1], [0.7, 1], [0, 0], [0, 0], [0, 0], [0, 0]])


def test_images_without_truth_are_no_part_of_the_training_metric():
    """Over batches, each image that has truth counts alike; a batch without any leaves no trace."""
    made = Shares(keras.Sequential([keras.Input((1, 2, 1))]), 2, SIDE)
    made.compile(keras.optimizers.SGD(0.0))
    batches = [np.reshape(rows, (2, 1, 2, 1)) for rows in np.split(SHARES, 4)]
    values = [float(made.metric(tf.constant(rows))) for rows in np.split(SHARES, 4)]
    np.testing.assert_allclose(values, [0.2, 0.65, np.nan, np.nan], rtol=1e-6)
    dataset = tf.data.Dataset.from_tensor_slices(np.stack(batches)).map(
        lambda x: {"views": (x,), "target": 0}
    )
    assert made.evaluate(dataset, verbose=0, return_dict=True)["share"] == pytest.approx(0.5)  # not 0.1875
    values = LabelledTask.record_values(types.SimpleNamespace(metric_name="share"), np.array(values), None)
    assert values == {"share": pytest.approx((0.2 + 0.65) / 2)}
    assert (
        LabelledTask.record_values(types.SimpleNamespace(metric_name="share"), np.full(2, np.nan), None) == {}
    )


def test_a_batch_is_a_function_of_the_step():
    first = batch(masks=False)
    for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(batch(masks=False)), strict=True):
        np.testing.assert_array_equal(a, b)
    boxes, labels = first["target"]
    assert boxes.shape == (2, MOST_BOXES, 4) and labels.dtype == tf.int32
    assert ((labels >= 0).numpy().sum(1) > 0).all()
    rows = TrainingBatches(PAIR, Framing(SIDE), VIEWS, False, 2, 0, (1, 2))
    (second,) = rows.dataset(0, 1)
    np.testing.assert_array_equal(second["views"][0][0], first["views"][0][1])


def test_more_boxes_than_fit_leave_the_smallest_out():
    boxes = np.tile(np.float32([0, 0, 1, 1]), (MOST_BOXES + 5, 1)) * np.arange(1, MOST_BOXES + 6)[:, None]
    kept, labels = padded(boxes.astype(np.float32), np.arange(MOST_BOXES + 5))
    assert kept[:, 2].min() == 6 and labels.min() == 5


def test_a_size_that_the_maps_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        Detector(hub.to_keras_hub(nets.resnet10("imagenet")), 2, 48)
