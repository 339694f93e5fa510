"""The report of transfer: metrics, curves, pictures; and that of a pre-training with transfers."""

import base64
import html
import html.parser
import io
import json
import re

import numpy as np
import pytest
from helpers.report_runs import write_records
from helpers.transfer_runs import two_images, write_transfer_records, write_transfer_run
from PIL import Image

from simsiam_tf import html_report
from simsiam_tf import report as command
from simsiam_tf.dense_tasks import predictions
from simsiam_tf.dense_tasks.predictions import Drawn, ShownImage
from simsiam_tf.html_report import history, page, transfer_sections


class Images(html.parser.HTMLParser):
    """Attributes of the images of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [dict(attrs)] if tag == "img" else []


def report_of(workdir):
    return html_report.write_report(workdir).read_text()


def pixels(src):
    """The pixels of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))))


def shown_predictions(workdir):
    return transfer_sections._predictions_section(history.read_history(workdir))


def test_detection_has_its_metrics_curves_and_pictures(tmp_path):
    text = report_of(write_transfer_run(tmp_path / "run"))
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == ["Outcome", "Training", "Predictions", "Configuration"]
    for said in (
        "Detection on scenes:digits",
        "the detector reaches AP 12.3 %, AP50 34.5 %, AP75 10.0 %",
        "from 16 images",
        "<td>34.5 %</td>",
        "Made with keras 3.15.1",
        "score of 30 % or more",
    ):
        assert said in text  # fmt: skip
    alts = [image["alt"] for image in Images(text).found]
    assert alts[:4] == [
        "Loss, step 10 to 30; loss from 3 to 1.",
        "Accuracy of the classes in training, %, step 10 to 30; accuracy from 20 to 60.",
        "Metrics on test images, %, step 20 to 30; AP from 5 to 12.3; AP50 from 5 to 34.5; "
        "AP75 from 5 to 10.",
        "Learning rate, step 10 to 30; learning rate from 0.1 to 0.1.",
    ]
    assert alts[4:] == [
        "Test image 0 with its true boxes: 2 × bag, boot",
        "Test image 0 with the predicted boxes: bag 87 %",
        "Test image 7 with its true boxes: shirt",
        "Test image 7 with the predicted boxes: no object",
    ]
    assert "Test image 7, prediction: no object</figcaption>" in text


def test_each_picture_is_that_of_its_caption(tmp_path):
    pairs = shown_predictions(write_transfer_run(tmp_path / "run")).pairs
    shown = [pixels(picture.src) for pair in pairs for picture in pair]
    for image, value, height in zip(shown, (40, 80, 120, 200), (100, 100, 90, 90), strict=True):
        assert image.shape == (height, 120, 3) and np.abs(image.astype(int) - value).max() < 3


def test_segmentation_is_described_by_shares_of_pixels(tmp_path):
    text = report_of(write_transfer_run(tmp_path / "run", "segmentation", init="random"))
    assert "the segmenter reaches mIoU 45.6 %, pixel accuracy 90.0 %" in text
    assert "from random weights, to compare with /runs/a" in text
    alts = [image["alt"] for image in Images(text).found]
    assert "Test image 0 with its true mask: 2 × bag, boot of the pixels" in alts
    assert any("accuracy from 20 to 60" in alt for alt in alts)


def test_while_it_runs_there_are_no_pictures(tmp_path):
    text = report_of(write_transfer_records(tmp_path / "run"))
    assert "No pictures yet: the run makes them at its end." in text and "30 steps, not ended" in text
    assert "has not ended: these are its metrics at step 30" in text and "<td>5.0 %</td>" in text
    assert "last evaluated at step 20" in text and len(Images(text).found) == 4


def test_a_detector_that_finds_nothing_is_not_praised(tmp_path):
    run = write_transfer_run(tmp_path / "run", metric="voc")
    text = report_of(run)
    assert '<p class="verdict">' in text and "50 % counts as found, by VOC" in html.unescape(text)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "AP": 0.0, "AP50": 0.0, "AP75": 0.0}))
    assert '<p class="verdict ill">The detector found no object' in report_of(run)


PLACED = '{"place": [0, 0, 9, 9999], "objects": "bag"}'  # beyond the picture
DAMAGED_LISTS = ["{", "[3]", f'[{{"image": 0, "truth": {PLACED}, "prediction": {PLACED}}}]']


@pytest.mark.parametrize("list_text", [None, *DAMAGED_LISTS])
def test_without_the_list_the_picture_is_shown_whole(list_text, tmp_path):
    run = write_transfer_run(tmp_path / "run")
    (run / predictions.OBJECTS).unlink()
    if list_text:
        (run / predictions.OBJECTS).write_text(list_text)
    section = shown_predictions(run)
    (shown,) = section.charts
    assert "on the left with its truth" in shown.alt and not section.pairs
    assert pixels(shown.src).shape == np.asarray(Image.open(run / predictions.PICTURE)).shape


def test_a_damaged_picture_is_left_out(tmp_path):
    run = write_transfer_run(tmp_path / "run")
    (run / predictions.PICTURE).write_bytes(b"no picture")
    assert shown_predictions(run).text == ["No pictures: export/predictions.png cannot be read."]
    (run / predictions.PICTURE).unlink()
    assert shown_predictions(run).text == ["No pictures: export/predictions.png is missing."]


def test_text_is_escaped(tmp_path):
    drawn = Drawn(np.zeros((9, 9, 3), np.uint8), '<script>alert(1)</script>" onerror="x')
    text = report_of(
        write_transfer_run(tmp_path / "run", shown=[ShownImage(0, drawn, drawn)], data_dir="<b>")
    )
    assert "<script" not in text and "&lt;script&gt;" in text and "<b>" not in text
    assert not any("onerror" in image for image in Images(text).found)


def test_a_pretraining_shows_the_transfers_in_its_folder(tmp_path):
    run = write_records(tmp_path / "run")
    write_transfer_run(run / "detection-random-0.1-seed2", init="random", labels=0.1, seed=2)
    write_transfer_run(run / "segmentation", "segmentation", freeze=True)
    told = history.read_history(run)
    section = history.results_section(told)
    assert section.tables[0][1:] == [
        ["detection on scenes:digits, random weights, 10 % of the images, seed 2",
         "AP 12.3 %, AP50 34.5 %, AP75 10.0 %", "detection-random-0.1-seed2/result.json"],
        ["segmentation on scenes:digits, backbone kept as it is", "mIoU 45.6 %, pixel accuracy 90.0 %",
         "segmentation/result.json"],
    ]  # fmt: skip
    text = page.render_page(told, [history.outcome_section(told), section])
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions[:2] == [
        "detection-random-0.1-seed2/result.json: Test image 0, truth: 2 × bag, boot",
        "detection-random-0.1-seed2/result.json: Test image 0, prediction: bag 87 %",
    ]
    assert len(captions) == 4 and not any("image 7" in caption for caption in captions)


def test_the_words_of_a_picture_name_what_is_drawn():
    image, names = np.zeros((10, 10, 3), np.uint8), ("background", "cat", "dog")
    mask = np.zeros((10, 10), np.uint8)
    mask[:2], mask[2, 0], mask[5:] = 2, 1, 255  # of 50 pixels with a truth
    mask[3, :3] = 1
    assert predictions._with_mask(image, mask, names).objects == "dog 40 %, cat 8 %"
    assert predictions._with_mask(image, np.zeros_like(mask), names).objects == ""
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 0] = 1
    assert predictions._with_mask(np.zeros((20, 20, 3), np.uint8), mask, names).objects == "cat < 1 %"
    boxes, labels = np.array([[0, 0, 5, 5]] * 3, np.float32), np.array([2, 1, 2])
    assert predictions._with_boxes(image, boxes, labels, None, names).objects == "2 × dog, cat"
    scores = np.array([0.4, 0.9, 0.514])
    assert (
        predictions._with_boxes(image, boxes, labels, scores, names).objects == "cat 90 %, dog 51 %, dog 40 %"
    )
    many = predictions._with_boxes(image, np.zeros((11, 4)), np.arange(11), None, [str(i) for i in range(11)])
    assert many.objects == "0, 1, 2, 3, 4, 5, 6, 7, 3 more"


def test_what_is_written_is_read(tmp_path):
    predictions.write_shown(tmp_path, two_images())
    sheet = np.asarray(Image.open(tmp_path / predictions.PICTURE))
    for written, read in zip(two_images(), predictions.read_shown(tmp_path, sheet), strict=True):
        assert written.index == read.index
        for a, b in ((written.truth, read.truth), (written.prediction, read.prediction)):
            assert a.objects == b.objects and (a.pixels == b.pixels).all()


def test_a_record_that_is_evaluated_twice_counts_once(tmp_path):
    run = write_transfer_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "images": "all", "AP": 0.5, "AP50": 0.5, "AP75": 0.5}\n')
    assert [r["step"] for r in history.read_history(run).evaluations] == [20, 30]


@pytest.mark.parametrize(
    ("config", "records", "flags", "said"),
    [
        ('{"task": "detection"}', "", [], "has no record of a step yet"),
        ('{"labels": 0.1}', '{"step": 1, "loss": 1.0, "accuracy": 0.5}\n', [],
         "is not the folder of a pre-training or of transfer"),
        ("[1]", '{"step": 1, "loss": 1.0}\n', [], "is not the folder of a pre-training or of transfer"),
        ('{"task": "detection"}', '{"step": 1, "loss": 1.0}\n', ["--data=digits"],
         "--data=digits: has no effect on transfer"),
    ],
)  # fmt: skip
def test_bad_input_of_a_run_gets_one_line(config, records, flags, said, tmp_path, capsys):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "metrics.jsonl").write_text(records)
    assert command.main([f"--workdir={tmp_path}", *flags]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1 and not (tmp_path / "report.html").exists()


def test_only_results_of_transfer_count():
    assert transfer_sections.transfer_metrics({"what": "detection", "AP50": 0.5}) == {"AP50": 0.5}
    for other in ({"what": "linear evaluation", "AP50": 0.5}, {"what": "detection"}, [1], {"AP50": 0.5}):
        assert transfer_sections.transfer_metrics(other) == {}
