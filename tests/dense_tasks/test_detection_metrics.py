"""Average precision against pycocotools' evaluation of files, VOC's rules as loops, and cases by hand."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from simsiam_tf.dense_tasks.detection_metrics import (
    METRICS,
    Detections,
    average_precision,
    box_iou,
    check_metric,
    voc_ap50,
    voc_average_precision,
)
from simsiam_tf.runtime.errors import UserError, as_flags

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def truth(boxes, labels=None, ignored=None):
    count = len(boxes)
    return SimpleNamespace(
        boxes=np.reshape(boxes, (count, 4)).astype(np.float32),
        labels=np.asarray(labels if labels is not None else [0] * count, np.int64),
        ignored=np.asarray(ignored if ignored is not None else [False] * count, bool),
    )


def found(boxes, scores, labels=None):
    labels = labels if labels is not None else [0] * len(boxes)
    boxes = np.reshape(boxes, (len(boxes), 4)).astype(np.float32)
    return Detections(boxes, np.asarray(scores, np.float32), np.asarray(labels, np.int64))


@pytest.fixture(params=METRICS)
def metric(request):
    if request.param == "coco":
        pytest.importorskip("pycocotools", reason="needs pycocotools: pip install 'simsiam-tf[coco]'")
    return METRICS[request.param]


def scenes(seed, images=12, classes=4):
    """Truths, a tenth of them ignored, and detections: shifted truths and random boxes, with equal scores."""
    rng = np.random.default_rng(seed)
    truths, detections = [], []

    def boxes(count):
        corner, side = rng.uniform(0, 150, (count, 2)), rng.uniform(10, 60, (count, 2))
        return np.c_[corner, corner + side]

    for image in range(images):
        count = int(rng.integers(0, 8))
        true, labels = boxes(count), rng.integers(0, classes - 1, count)  # the last class has no truths
        truths.append(truth(true, labels, rng.random(count) < 0.1))
        again = rng.integers(0, count, 2 * count) if count else np.zeros(0, int)
        near = true[again] + rng.normal(0, 3, (len(again), 4))
        wrong = 150 if image == 0 else int(rng.integers(0, 6))  # more than the 100 of a class that count
        wrong_labels = np.zeros(wrong) if image == 0 else rng.integers(0, classes, wrong)
        scores = np.r_[rng.uniform(0.3, 1, len(again)), rng.uniform(0, 0.7, wrong)].round(1)
        all_labels = np.r_[labels[again], wrong_labels].astype(int)
        detections.append(found(np.r_[near, boxes(wrong)], scores, all_labels))
    return truths, detections, classes


def by_coco_files(truths, detections, classes, folder):
    """AP, AP50, AP75 as pycocotools' documentation has them, with all areas and limits of detections."""
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")

    def rows(images, key, field):
        out = []
        for image, item in enumerate(images):
            for box, label, value in zip(item.boxes, item.labels, getattr(item, field), strict=True):
                left, top, right, lower = map(float, box)
                row = {"image_id": 7 + image, "category_id": 3 + int(label)}
                out.append(row | {"bbox": [left, top, right - left, lower - top], key: value.item()})
        return out

    annotations = rows(truths, "iscrowd", "ignored")
    for number, row in enumerate(annotations):
        width, height = row["bbox"][2:]
        row |= {"id": 1 + number, "area": width * height, "iscrowd": int(row["iscrowd"])}
    (folder / "truth.json").write_text(
        json.dumps(
            {
                "images": [{"id": 7 + i, "width": 300, "height": 300} for i in range(len(truths))],
                "categories": [{"id": 3 + c, "name": str(c)} for c in range(classes)],
                "annotations": annotations,
            }
        )
    )
    (folder / "found.json").write_text(json.dumps(rows(detections, "score", "scores")))
    gold = coco.COCO(str(folder / "truth.json"))
    evaluation = cocoeval.COCOeval(gold, gold.loadRes(str(folder / "found.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(("AP", "AP50", "AP75"), evaluation.stats, strict=False))


@pytest.mark.parametrize("seed", range(3))
def test_coco_is_what_pycocotools_computes_from_files(seed, tmp_path):
    expected = by_coco_files(*scenes(seed), tmp_path)
    computed = average_precision(*scenes(seed))
    assert computed == pytest.approx(expected, abs=1e-12)
    assert 0.1 < computed["AP"] < computed["AP50"] < 0.95


def test_coco_prints_nothing(capfd):
    pytest.importorskip("pycocotools")
    average_precision(*scenes(0, images=2))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("wrong", "precision"), [(99, 1 / 100), (100, 0)])
def test_coco_counts_the_100_best_detections_of_a_class_in_an_image(wrong, precision):
    pytest.importorskip("pycocotools")
    detections = found(
        [A] + [FAR] * wrong + [B] * 50, [0.5] + [0.9] * (wrong + 50), [0] * (1 + wrong) + [1] * 50
    )
    computed = average_precision([truth([A, B], [0, 1])], [detections], 2)["AP"]
    assert computed == pytest.approx((precision + 1) / 2)


def by_voc_loops(truths, detections, label, threshold, points):
    """One class by the steps of VOCevaldet.m, of the development kit, without its + 1."""
    order = [(-s, i, j) for i, d in enumerate(detections) for j, s in enumerate(d.scores.tolist())]
    order = [(i, j) for _, i, j in sorted(order) if detections[i].labels[j] == label]
    taken, hits = set(), []
    for i, j in order:
        best, largest = None, -1.0
        for k, box in enumerate(truths[i].boxes.astype(float)):
            if truths[i].labels[k] == label:
                bb = detections[i].boxes[j].astype(float)
                iw, ih = min(bb[2], box[2]) - max(bb[0], box[0]), min(bb[3], box[3]) - max(bb[1], box[1])
                if iw > 0 and ih > 0:
                    ua = (bb[2] - bb[0]) * (bb[3] - bb[1]) + (box[2] - box[0]) * (box[3] - box[1]) - iw * ih
                    if iw * ih / ua > largest:
                        best, largest = k, iw * ih / ua
        if largest < threshold:
            hits.append(0)
        elif not truths[i].ignored[best]:
            hits.append(0 if (i, best) in taken else 1)
            taken.add((i, best))
    positives = sum(int(((t.labels == label) & ~t.ignored).sum()) for t in truths)
    curve = [(sum(hits[: n + 1]) / positives, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    if points:
        return sum(max((p for r, p in curve if r >= t / 10), default=0) for t in range(11)) / 11
    recalls = sorted({0.0} | {r for r, _ in curve})
    steps = zip(recalls, recalls[1:], strict=False)
    return sum((high - low) * max(p for r, p in curve if r >= high) for low, high in steps)


@pytest.mark.parametrize("points", [None, 11])
def test_voc_is_what_the_steps_of_its_development_kit_give(points):
    truths, detections, classes = scenes(5)

    def mean(threshold):
        return np.mean([by_voc_loops(truths, detections, c, threshold, points) for c in range(classes - 1)])

    computed = voc_average_precision(truths, detections, classes, points)
    assert computed["AP50"] == pytest.approx(mean(0.5), abs=1e-12)
    assert computed["AP75"] == pytest.approx(mean(0.75), abs=1e-12)
    assert computed["AP"] == pytest.approx(np.mean([mean(t / 100) for t in range(50, 100, 5)]), abs=1e-12)
    assert voc_ap50(truths, detections, classes, points) == computed["AP50"]
    assert 0.1 < computed["AP"] < computed["AP50"] < 0.95


def test_perfect_detections_give_1(metric):
    truths = [truth([A, B], [0, 1]), truth([]), truth([FAR], [1])]
    detections = [found([B, A], [0.2, 0.9], [1, 0]), found([], []), found([FAR], [0.1], [1])]
    assert metric(truths, detections, 2) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


def test_no_detections_give_0(metric):
    assert metric([truth([A])], [found([], [])], 1) == {"AP": 0, "AP50": 0, "AP75": 0}


def test_a_wrong_detection_above_the_right_one_halves_the_precision(metric):
    assert metric([truth([A])], [found([A, FAR], [0.8, 0.9])], 1)["AP"] == pytest.approx(0.5)
    assert metric([truth([A])], [found([A, FAR], [0.9, 0.8])], 1)["AP"] == pytest.approx(1)


def test_a_second_detection_of_a_truth_is_wrong(metric):
    """Precision 1 up to recall 1/2, 2/3 up to recall 1: by area, by 11 and by 101 points."""
    computed = metric([truth([A, B])], [found([A, A, B], [0.9, 0.8, 0.7])], 1)["AP50"]
    by_hand = {"voc": 5 / 6, "voc2007": (6 + 5 * 2 / 3) / 11, "coco": (51 + 50 * 2 / 3) / 101}
    (name,) = (name for name, function in METRICS.items() if function is metric)
    assert computed == pytest.approx(by_hand[name])


def test_ignored_boxes_are_neither_found_nor_missed(metric):
    truths = [truth([A, B], ignored=[False, True])]
    assert metric(truths, [found([A], [0.8])], 1)["AP"] == pytest.approx(1)
    assert metric(truths, [found([B, B, A], [0.9, 0.85, 0.8])], 1)["AP"] == pytest.approx(1)


def test_a_detection_inside_an_ignored_box_is_left_out_by_coco_alone(metric):
    truths = [truth([A, [20, 20, 120, 120]], ignored=[False, True])]
    computed = metric(truths, [found([A, [30, 30, 50, 50]], [0.8, 0.9])], 1)["AP50"]
    assert computed == pytest.approx(1 if metric is METRICS["coco"] else 0.5)


def test_voc_compares_with_the_nearest_truth_even_where_it_is_taken(metric):
    truths, shifted = [truth([A, [2, 0, 12, 10]])], [0.5, 0, 10.5, 10]  # IoU 0.90 and 0.74
    computed = metric(truths, [found([A, shifted], [0.9, 0.8])], 1)["AP50"]
    by_hand = {"voc": 1 / 2, "voc2007": 6 / 11, "coco": 1}
    (name,) = (name for name, function in METRICS.items() if function is metric)
    assert computed == pytest.approx(by_hand[name])


def test_classes_without_truths_are_left_out_of_the_mean(metric):
    truths = [truth([A, B], [0, 2], ignored=[False, True])]
    detections = [found([A, FAR, FAR], [0.5, 0.9, 0.9], [0, 1, 2])]
    assert metric(truths, detections, 4)["AP"] == pytest.approx(1)
    assert all(map(math.isnan, metric([truth([])], [found([A], [0.5])], 2).values()))
    assert all(map(math.isnan, metric([], [], 2).values()))


def test_ap_is_the_mean_over_ten_thresholds(metric):
    computed = metric([truth([A])], [found([[0, 0, 10, 7.2]], [0.5])], 1)  # IoU 0.72: 0.50 … 0.70 are reached
    assert computed == pytest.approx({"AP": 0.5, "AP50": 1, "AP75": 0})
    assert metric([truth([A])], [found([[0, 0, 10, 5]], [0.5])], 1)["AP50"] == pytest.approx(1)


def test_eleven_points_with_a_recall_on_a_point():
    """Recall 3/10 reaches the point 0.3, which is below 3 · 0.1 in floating point."""
    truths = [truth([[20 * i, 0, 20 * i + 10, 10] for i in range(10)])]
    detections = [found(truths[0].boxes[:3], [0.9, 0.8, 0.7])]
    assert METRICS["voc2007"](truths, detections, 1)["AP50"] == pytest.approx(4 / 11)


def test_iou_of_boxes_that_touch_or_are_empty_is_0():
    boxes = [A, [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 3], [8, 8, 2, 2]]
    assert box_iou(np.array([A]), np.array(boxes)).tolist() == [[1, pytest.approx(1 / 3), 0, 0, 0]]


@pytest.mark.parametrize(
    ("boxes", "scores", "labels"),
    [
        (np.zeros((2, 4)), np.zeros(1), np.zeros(1, int)),
        (np.zeros((1, 4)), np.zeros(1), np.zeros(2, int)),
        (np.zeros((1, 5)), np.zeros(1), np.zeros(1, int)),
        (np.full((1, 4), np.inf), np.zeros(1), np.zeros(1, int)),
        (np.zeros((1, 4)), np.full(1, np.nan), np.zeros(1, int)),
    ],
)
def test_detections_that_do_not_fit_together_are_refused(boxes, scores, labels):
    with pytest.raises(ValueError, match=r"Detections: boxes"):
        Detections(boxes, scores, labels)


def test_labels_and_images_that_do_not_fit_together_are_refused(metric):
    with pytest.raises(ValueError, match=r"same images\. Received: 1 and 2"):
        metric([truth([])], [found([], [])] * 2, 1)
    with pytest.raises(ValueError, match=r"Image 1: the label of a truth must be in 0 … 1\. Received: 2"):
        metric([truth([]), truth([A], [2])], [found([], [])] * 2, 2)
    with pytest.raises(ValueError, match=r"Image 0: the label of a detection .* Received: -1"):
        metric([truth([A])], [found([A], [0.5], [-1])], 2)


def test_a_metric_is_checked_before_any_work(monkeypatch):
    with pytest.raises(UserError, match=r"^metric=voc07: no such value\. Did you mean voc2007\?$"):
        check_metric("voc07")
    for library in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):
        monkeypatch.setitem(sys.modules, library, None)  # importing it fails
    check_metric("voc")
    with pytest.raises(UserError) as refused:
        check_metric("coco")
    line = "--metric=coco: needs pycocotools: pip install 'simsiam-tf[coco]'. Or pass --metric=voc."
    assert as_flags(str(refused.value), ["metric"]) == line
    with pytest.raises(UserError):
        average_precision([truth([A])], [found([A], [0.5])], 1)


def test_metrics_and_drawing_load_no_tensorflow():
    code = "import sys\nfrom simsiam_tf.dense_tasks import detection_metrics, drawing, segmentation_metrics\n"
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
