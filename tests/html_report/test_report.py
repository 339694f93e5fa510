"""The report of a run is complete, needs no network, and opens in a real browser without errors."""

import dataclasses
import html
import html.parser
import json
import re
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from helpers.report_runs import write_finished_run, write_records
from tensorboard.plugins import projector as plugin

from simsiam_tf import html_report
from simsiam_tf import report as command
from simsiam_tf.data import from_arrays
from simsiam_tf.html_report import gallery, history, page, tensorboard_projector
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_finished_run(tmp_path_factory.mktemp("run"))


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_is_complete_and_self_contained(workdir):
    text = (workdir / "report.html").read_text()
    tags = Tags(text).found
    links = [a.get(k, "") for _, a in tags for k in ("src", "href") if k in a]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"url\(|@import|<script|<link", text)
    images = [a for tag, a in tags if tag == "img"]
    assert len(images) > 40 and all(len(a["alt"]) > 5 for a in images)
    assert ("html", {"lang": "en"}) in tags and any(a.get("name") == "viewport" for _, a in tags)
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Outcome", "Training", "Views", "Embeddings on a plane", "Neighbours", "Spectrum", "Saliency",
        "Results", "Configuration",
    ]  # fmt: skip
    anchors = {a["id"] for tag, a in tags if tag == "section"}
    assert all(link[1:] in anchors for link in links if link.startswith("#"))
    for said in ("healthy", "raw pixels", "50.0%", "top-1 90.0%", "--data", "loss from -0.1 to -0.6"):
        assert said in text


@pytest.mark.slow
def test_the_same_seed_makes_the_same_page(workdir, tmp_path):
    again = html_report.write_report(
        workdir, tmp_path / "again.html", images=60, neighbours=5, tensorboard=False
    )
    assert again.read_text() == (workdir / "report.html").read_text()


def test_an_unfinished_run_gets_its_curves(tmp_path):
    text = html_report.write_report(write_records(tmp_path / "run")).read_text()
    assert "has not ended: these are its metrics at step 60" in text and "No backbone was exported" in text
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Outcome", "Training", "Configuration"]


def test_images_that_are_gone_are_left_out_and_named(workdir, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(workdir, moved)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "data": "folder:/nowhere/at/all"}))
    assert "images could not be opened" in html_report.write_report(moved).read_text()
    with pytest.raises(UserError, match="nowhere"):
        html_report.write_report(moved, data="folder:/nowhere/else")


def test_names_are_escaped(workdir, tmp_path):
    """A class and a flag that are HTML."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (20, 16, 16, 1), np.uint8), np.arange(20) % 2
    source = from_arrays("<b>", images, labels, ("<script>alert(1)</script>", 'x" onerror="'))
    known = gallery.draw_sample(open_pretrained(str(workdir)), source, 20)
    told = history.read_history(write_records(tmp_path / "run", data_dir="<img src=x>"))
    sections = [
        history.outcome_section(told),
        gallery.neighbours_section(known, 3, 0),
        history.configuration_section(told),
    ]
    text = page.render_page(told, sections)
    assert "<script" not in text and "&lt;script&gt;" in text and "<img src=x>" not in text
    assert not any("onerror" in attrs for _, attrs in Tags(text).found)


def test_unwritable_outputs_are_refused_before_the_work(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "draw_sample", lambda *_: pytest.fail("works before it looks"))
    moved = tmp_path / "run"
    shutil.copytree(workdir, moved)
    with pytest.raises(UserError, match="out=.*/run: cannot be written .*not a regular file"):
        html_report.write_report(moved, moved)
    with pytest.raises(UserError, match="out=/nowhere/r.html: cannot be written .*Choose another place"):
        html_report.write_report(moved, "/nowhere/r.html")
    shutil.rmtree(moved / "tb")
    (moved / "tb").write_text("in the way")
    with pytest.raises(UserError, match="tb/projector: cannot be written .*tensorboard=false"):
        html_report.write_report(moved, tmp_path / "r.html")


def test_without_labels_images_are_clustered(workdir):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 16, 16, 1), np.uint8)
    known = gallery.draw_sample(open_pretrained(str(workdir)), from_arrays("plain", images), 24)
    assert not known.labelled and known.names[0] == "group 1" and known.groups.max() < 6
    section = gallery.neighbours_section(known, 3, 0)
    assert len(section.strips[0]) == 4 and section.strips[0][1].caption.strip().replace(".", "").isdigit()


def test_neighbours_are_the_nearest_by_hand(workdir):
    known = gallery.draw_sample(open_pretrained(str(workdir)), page.open_source("digits", "train"), 50)
    known = dataclasses.replace(known, features=np.random.default_rng(1).normal(size=(50, 9)))
    z = known.features / np.linalg.norm(known.features, axis=1, keepdims=True)
    asked = np.random.default_rng(0).permutation(50)[0]
    cosines = z @ z[asked]
    expected = [i for i in np.argsort(-cosines) if i != asked][:3]
    strip = gallery.neighbours_section(known, 3, 0).strips[0]
    for picture, row in zip(strip[1:], expected, strict=True):
        assert picture.alt.startswith(f"image {known.ids[row]}, ")
        assert f"cosine {cosines[row]:.3f}" in picture.alt


def test_projector_files_hold_the_sample(workdir):
    tb = workdir / "tb"
    config = plugin.ProjectorConfig()
    text_format.Parse((tb / "projector_config.pbtxt").read_text(), config)
    (shown,) = config.embeddings
    features = np.loadtxt(tb / shown.tensor_path, delimiter="\t")
    names = (tb / shown.metadata_path).read_text().splitlines()
    size = shown.sprite.single_image_dim[0]
    sheet = matplotlib.image.imread(tb / shown.sprite.image_path)
    assert features.shape == (60, 64) and len(names) == 61 and names[0] == "name\tclass"
    assert sheet.shape[:2] == (8 * size, 8 * size)
    known = gallery.draw_sample(open_pretrained(str(workdir)), page.open_source("digits", "train"), 60)
    np.testing.assert_allclose(features, known.features, rtol=1e-4, atol=1e-6)
    tenth = sheet[size : 2 * size, size : 2 * size]  # the second of the second row
    np.testing.assert_allclose(tenth, known.pictures([9])[0, ..., 0] / 255, atol=0.005)


def test_a_sheet_stays_within_what_a_browser_takes(monkeypatch):
    monkeypatch.setattr(tensorboard_projector, "MAX_SHEET", 40)
    sheet, size = tensorboard_projector._picture_sheet(np.zeros((30, 16, 16, 3), np.uint8))
    assert size == 6 and sheet.shape == (36, 36, 3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--workdir: missing"),
        (["--workdir=nowhere"], "--workdir=nowhere: no such folder"),
        (["--workdir={}"], "has no config.json and metrics.jsonl"),
        (["--workdir={}", "--images=1"], "--images=1: must be from 4"),
    ],
)
def test_bad_input_gets_one_line(flags, said, tmp_path, capsys):
    assert command.main([flag.format(tmp_path) for flag in flags]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_missing_library_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert command.main([f"--workdir={tmp_path}"]) == 2
    assert "pip install 'simsiam-tf[viz]'" in capsys.readouterr().err


def browse(path, tmp_path, script, width):
    """What `script` gives in Chromium, in a frame of that width (a window has 500 pixels at least)."""
    watch = "<script>window.bad=[];window.onerror=m=>bad.push(m);console.error=m=>bad.push(m);"
    watch += "document.addEventListener('error',e=>bad.push(e.target.tagName),true)</script>"
    tell = f"<script>addEventListener('load',()=>parent.postMessage(JSON.stringify({script}),'*'))</script>"
    text = path.read_text().replace("<head>", f"<head>{watch}").replace("</body>", f"{tell}</body>")
    (tmp_path / "opened.html").write_text(text)
    around = tmp_path / "around.html"
    around.write_text(
        "<title></title><script>addEventListener('message',e=>{document.title=e.data})</script>"
        f"<iframe src=opened.html width={width} height=900 frameborder=0></iframe>"
    )
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--window-size=1400,1000", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=5000", "--dump-dom", around.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&quot;", '"'))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_an_error_and_without_scrolling_sideways(workdir, tmp_path, width):
    script = (
        "{bad, width: innerWidth, wide: document.documentElement.scrollWidth - innerWidth, "
        "empty: [...document.images].filter(i => !i.naturalWidth).length, shown: document.images.length}"
    )
    found = browse(workdir / "report.html", tmp_path, script, width)
    assert found["width"] == width
    assert found["bad"] == [] and found["empty"] == 0 and found["shown"] > 40 and found["wide"] <= 0


def test_damaged_weights_are_not_opened(workdir, tmp_path):
    damaged = tmp_path / "run"
    shutil.copytree(workdir, damaged)
    file = damaged / backbone_file.EXPORTED
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    text = html_report.write_report(damaged).read_text()
    assert "No backbone was exported" in text
    assert tf.io.gfile.exists(str(damaged / "report.html"))
