"""Detectors and segmenters of keras-hub on a ResNet, as models that the loop trains."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.dense_tasks import dense_losses
from simsiam_tf.methods import ViewModel
from simsiam_tf.methods.base import TRAINING

LAST = 5  # level of the backbone's last map
LOWEST, HIGHEST = 3, 7  # levels of RetinaNet's pyramid: maps of 1/8 to 1/128 of the image's sides
STRIDE = 32  # of the backbone's last map; sides of images must be multiples of it
# Pixels; smaller images have anchors of half the paper's size, and are segmented on the map of 1/16, not of
# 1/32, of their sides, which leaves the backbone's last stage unused.
SMALL = 256
BOX_FORMAT = "xyxy"
PRIOR = 0.01  # probability of a class at an anchor, at the start
SCORE, OVERLAP, MOST = 0.05, 0.5, 100  # least score, IoU of duplicates, detections of an image


class DenseModel(ViewModel):
    """A network of keras-hub on a backbone, trained on one view of each image and its boxes or mask.

    Args:
        backbone: keras-hub's ResNetBackbone.
        classes: number of classes; of masks with the background.
        size: side of the images, a multiple of `STRIDE`.
        frozen: whether the backbone computes as in inference, BN too, and none of its weights changes.
    """

    d = 2  # the metric of each image, and 1 where it has one, else 0
    network: keras.Model
    last_level: int  # of the backbone's maps, of 1/2**level of the image's sides, the smallest that is used

    def __init__(
        self, backbone: keras.Model, classes: int, size: int, frozen: bool = False, **kwargs: Any
    ) -> None:
        if size % STRIDE:
            raise ValueError(f"size={size}: must be a multiple of {STRIDE}.")
        super().__init__(backbone, **kwargs)
        self.classes, self.size, self.frozen = classes, size, frozen
        backbone.trainable = not frozen
        self.network = self.build_network()
        self.built = True

    def build_network(self) -> keras.Model:
        """The network: normalised images [B, size, size, C] → its outputs."""
        raise NotImplementedError

    def losses_of(self, x: tf.Tensor, target: Any, outputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Images, targets of `TrainingBatches`, outputs → (scalar loss, rows of "z").

        The rows, [B, 2], are of `metric_name`, as `dense_losses.hits` gives them.
        """
        raise NotImplementedError

    def learned_variables(self) -> list[keras.Variable]:
        """The trainable ones but those of stages of the backbone whose maps are not used."""
        backbone: Any = self.backbone
        used = keras.Model(backbone.inputs, backbone.pyramid_outputs[f"P{self.last_level}"])
        unused = {id(v) for v in backbone.variables} - {id(v) for v in used.variables}
        return [v for v in self.trainable_variables if id(v) not in unused]

    def call(self, images: tf.Tensor, training: bool = False) -> Any:
        return self.network(images, training=training)

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        (x,) = batch["views"]
        loss, metric = self.losses_of(x, batch["target"], self(x, training=TRAINING.get()))
        return {"loss": loss, "z": metric}

    def metric(self, z: tf.Tensor) -> tf.Tensor:
        """Mean of the metric over the images of a batch that have one; NaN where none has."""
        return tf.reduce_sum(z[:, 0] * z[:, 1]) / tf.reduce_sum(z[:, 1])

    def counted_rows(self, z: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(z[:, 1])


class Detector(DenseModel):
    """RetinaNet (Lin et al., arXiv 1708.02002): a pyramid of maps, and for each anchor a class and a box."""

    metric_name = "class_accuracy"

    def build_network(self) -> keras.Model:
        import keras_hub
        from keras_hub.src.models.retinanet.retinanet_label_encoder import RetinaNetLabelEncoder

        backbone: Any = self.backbone
        top = max(LOWEST, min(HIGHEST, int(math.log2(self.size)) - 1))  # whose map has at least 2×2 pixels
        self.last_level = min(top, LAST)
        pyramid = keras_hub.models.RetinaNetBackbone(
            image_encoder=backbone, min_level=LOWEST, max_level=top, use_p5=False,
            image_shape=(self.size, self.size, backbone.image_shape[-1]),
        )  # fmt: skip
        # In float32: a lower precision would round boxes to pixels, and large class numbers.
        anchors = keras_hub.layers.AnchorGenerator(
            BOX_FORMAT, LOWEST, top, num_scales=3, aspect_ratios=[0.5, 1.0, 2.0],
            anchor_size=2.0 if self.size < SMALL else 4.0, dtype="float32",
        )  # fmt: skip
        encoder = RetinaNetLabelEncoder(
            anchors, bounding_box_format=BOX_FORMAT, encoding_format="center_xywh", dtype="float32"
        )
        detector = keras_hub.models.RetinaNetObjectDetector(
            pyramid, num_classes=self.classes, bounding_box_format=BOX_FORMAT, anchor_generator=anchors,
            label_encoder=encoder, use_prediction_head_norm=True, name="detector",
        )  # fmt: skip
        _initialise_as_in_the_paper(detector)
        return detector

    def losses_of(self, x: tf.Tensor, target: Any, outputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        boxes, labels = target
        network: Any = self.network
        codes, classes = network.label_encoder(
            images=x, gt_boxes=boxes, gt_classes=tf.cast(labels, tf.float32)
        )
        classes = tf.cast(classes, tf.int32)
        logits, predicted = (tf.cast(outputs[k], tf.float32) for k in ("cls_logits", "bbox_regression"))
        loss = dense_losses.focal(logits, classes) + dense_losses.smooth_l1(predicted, codes, classes)
        return loss, dense_losses.hits(logits, classes)

    def detections(self, images: tf.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Normalised images → boxes [B, n, 4] in pixels, scores [B, n], classes [B, n], their numbers [B].

        Duplicates are removed class by class.
        """
        return tuple(x.numpy() for x in _decode(self, images))

    def anchors(self, images: tf.Tensor) -> tf.Tensor:
        """All anchors, [A, 4], of images of this size."""
        network: Any = self.network
        return tf.concat(list(network.anchor_generator(images).values()), axis=0)


def _initialise_as_in_the_paper(detector: Any) -> None:
    """The initial weights of RetinaNet's heads (Sec. 4.1): small, and every anchor improbable.

    keras-hub 0.32 draws them five times as large, and gives the improbable bias to the head of boxes.
    """
    improbable = -math.log((1 - PRIOR) / PRIOR)
    for head, bias in ((detector.box_head, 0.0), (detector.classification_head, improbable)):
        for layer in (*head.conv_layers, head.prediction_layer):
            layer.kernel.assign(keras.initializers.RandomNormal(stddev=0.01)(layer.kernel.shape))
        head.prediction_layer.bias.assign(keras.ops.full_like(head.prediction_layer.bias, bias))


@tf.function(reduce_retracing=True, autograph=False)
def _decode(model: Detector, images: tf.Tensor) -> Any:
    outputs = model(images, training=False)
    boxes = keras.utils.bounding_boxes.decode_deltas_to_boxes(
        anchors=model.anchors(images), boxes_delta=tf.cast(outputs["bbox_regression"], tf.float32),
        encoded_format="center_xywh", anchor_format=BOX_FORMAT, box_format=BOX_FORMAT,
        image_shape=(model.size, model.size, images.shape[-1]),
    )  # fmt: skip
    left, top, right, lower = tf.unstack(boxes, axis=-1)
    found = tf.image.combined_non_max_suppression(
        tf.stack([top, left, lower, right], axis=-1)[:, :, None],
        tf.sigmoid(tf.cast(outputs["cls_logits"], tf.float32)),
        max_output_size_per_class=MOST, max_total_size=MOST, iou_threshold=OVERLAP, score_threshold=SCORE,
        clip_boxes=False,
    )  # fmt: skip
    boxes = tf.gather(found.nmsed_boxes, [1, 0, 3, 2], axis=-1)
    return boxes, found.nmsed_scores, tf.cast(found.nmsed_classes, tf.int64), found.valid_detections


class Segmenter(DenseModel):
    """DeepLabv3+ (Chen et al., arXiv 1802.02611): a class for each pixel, from maps of several levels."""

    metric_name = "pixel_accuracy"

    def build_network(self) -> keras.Model:
        import keras_hub

        backbone: Any = self.backbone
        self.last_level = level = 4 if self.size < SMALL else LAST
        encoder = keras_hub.models.DeepLabV3Backbone(
            image_encoder=backbone, spatial_pyramid_pooling_key=f"P{level}", low_level_feature_key="P2",
            upsampling_size=2 ** (level - 2), dilation_rates=[6, 12, 18],
            image_shape=(self.size, self.size, backbone.image_shape[-1]),
        )  # fmt: skip
        return keras_hub.models.DeepLabV3ImageSegmenter(encoder, num_classes=self.classes, name="segmenter")

    def losses_of(self, x: tf.Tensor, target: Any, outputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        del x
        logits = tf.cast(outputs, tf.float32)
        return dense_losses.pixel_cross_entropy(logits, target), dense_losses.pixel_accuracy(logits, target)

    def masks(self, images: tf.Tensor) -> np.ndarray:
        """Normalised images → the class of each pixel, uint8 [B, size, size]."""
        return _classes(self, images).numpy()


@tf.function(reduce_retracing=True, autograph=False)
def _classes(model: Segmenter, images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(model(images, training=False), axis=-1), tf.uint8)


MODELS: dict[str, type[DenseModel]] = {"detection": Detector, "segmentation": Segmenter}
