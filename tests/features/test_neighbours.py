"""Many queries at once: by name, by list or all; tables, a page, and no TensorFlow."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from simsiam_tf import neighbours
from simsiam_tf.config import places
from simsiam_tf.features import columns, query_list
from simsiam_tf.features.embedding_file import Embeddings, read_embeddings, write_embeddings

NAMES = ["a.png", "b, c.png", "d/<i>&.png", "é.png", "twin.png", "gone.png"]
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (250, 0, 0), (9, 9, 9)]


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """Features of pictures of one colour each, of which one is missing; a.png and twin.png are equal."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "images" / "d").mkdir(parents=True)
    for name, colour in zip(NAMES[:-1], COLOURS, strict=False):
        Image.new("RGB", (300, 200), colour).save(folder / "images" / name)
    features = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
    features[4] = features[0]
    about = {"data": f"folder:{folder / 'images'}"}
    path = folder / "photos.npz"
    write_embeddings(Embeddings(np.array(NAMES, object), features, about), path)
    return path


def run(embeddings, *flags):
    return neighbours.main([f"--embeddings={embeddings}", *flags])


def others_by_hand(embeddings, k):
    """(query, rank, name, cosine) of the k others nearest to each image, by float64 and a stable sort."""
    known = read_embeddings(embeddings)
    unit = np.float64(known.features)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    table = []
    for i, name in enumerate(NAMES):
        order = [j for j in np.argsort(-(unit @ unit[i]), kind="stable") if j != i][:k]
        table += [(name, rank, NAMES[j], unit[j] @ unit[i]) for rank, j in enumerate(order, 1)]
    return table


def read_table(path):
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return [tuple(row.values()) for row in parquet.read_table(path).to_pylist()]
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["query", "rank", "name", "cosine"]
    return [(query, int(rank), name, float(cosine)) for query, rank, name, cosine in rows]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("k", [2, 5, 9])
def test_all_images_have_their_nearest_others_in_a_table(
    embeddings, tmp_path, capsys, monkeypatch, suffix, k
):
    monkeypatch.setattr(columns, "BLOCK", 64 * 9)  # a query or two at a time
    out = tmp_path / f"t{suffix}"
    assert run(embeddings, "--query=all", f"--k={k}", f"--out={out}") == 0
    expected = others_by_hand(embeddings, k)
    found = read_table(out)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    np.testing.assert_allclose([row[3] for row in found], [row[3] for row in expected], atol=1e-6)
    assert capsys.readouterr().out == f"{out}: {len(expected)} neighbours of 6 images\n"
    assert run(embeddings, "--query=all", f"--out={out}") == 2
    assert "exists. Choose another, or pass --overwrite" in capsys.readouterr().err


def test_queries_of_zeros_have_no_neighbours(tmp_path, capsys):
    features = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    features[2] = 0
    write_embeddings(Embeddings(np.array(NAMES, object), features, {}), tmp_path / "e.npz")
    assert run(tmp_path / "e.npz", "--query=all", "--k=2", f"--out={tmp_path / 't.csv'}") == 0
    assert {row[0] for row in read_table(tmp_path / "t.csv")} == {*NAMES} - {NAMES[2]}
    assert f"no neighbours of 1 query whose features are all 0, such as {NAMES[2]}" in (
        capsys.readouterr().err
    )


def test_a_list_of_names_is_looked_up(embeddings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(query_list, "FEW_NAMES", 1)  # so that two names are looked up together
    (tmp_path / "some.txt").write_text("# two\né.png\n\na.png\n", encoding="utf-8")
    assert run(embeddings, f"--query=list:{tmp_path / 'some.txt'}", "--k=2") == 0
    lines = capsys.readouterr().out.splitlines()
    table = [row for name in ("é.png", "a.png") for row in others_by_hand(embeddings, 2) if row[0] == name]
    assert lines[0] == "nearest to é.png of 6 images" and lines[3] == "nearest to a.png of 6 images"
    assert [line.split(maxsplit=1)[1] for line in lines[1:3] + lines[4:]] == [row[2] for row in table]
    assert run(embeddings, "--query=a.png", "--k=1") == 0  # alone, a query is among its neighbours
    assert capsys.readouterr().out.splitlines()[1] == "   1.000  a.png"
    (tmp_path / "some.txt").write_text("a.png\nnowhere.png\nno.png\n")
    assert run(embeddings, f"--query=list:{tmp_path / 'some.txt'}") == 2
    assert "2 of 3 are neither names among the embeddings nor files, such as nowhere.png" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a.png\r\n# b\n\n c.png", ["a.png", " c.png"]),
        ('path,label\nx,1\n,2\n"y, z",\n', ["x", "y, z"]),
        ("path\na\n", ["a"]),
        ("label\na\n", ["label", "a"]),
        ("", []),
    ],
)
def test_lists_are_lines_or_a_column(text, paths):
    assert [row["path"] for row in places.list_rows(text)] == paths


def test_images_of_the_set_are_found_without_tensorflow(embeddings, tmp_path):
    pytest.importorskip("pyarrow")
    write_embeddings(read_embeddings(embeddings), tmp_path / "photos")
    (tmp_path / "list.txt").write_text("a.png\n")
    calls = [
        ["--query=a.png"],
        ["--query=all", f"--out={tmp_path / 'a.csv'}"],
        [f"--query=list:{tmp_path / 'list.txt'}", f"--out={tmp_path / 'a.parquet'}"],
    ]
    code = f"""
import sys
from simsiam_tf import neighbours
for place in {[str(embeddings), str(tmp_path / "photos")]}:
    for flags in {calls}:
        if neighbours.main(["--embeddings=" + place, "--overwrite", *flags]): sys.exit(1)
sys.exit(3 if "tensorflow" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nearest to a.png of 6 images") == 2


def test_a_page_shows_queries_and_neighbours(embeddings, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(embeddings, "--query=all", "--k=2", f"--page={page}") == 0
    output = capsys.readouterr()
    assert f"{page}: 6 queries, 5 pictures" in output.out
    assert "1 of 6 pictures cannot be read and are shown as names, such as gone.png" in output.err
    text = page.read_text(encoding="utf-8")
    pictures = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.S)[1])
    assert not re.search(r'(src|href)="(?!#)', text) and len(pictures) == 5
    sections = re.findall(r"<section.*?</section>", text, re.S)
    table = others_by_hand(embeddings, 2)
    for i, section in enumerate(sections):
        names = [NAMES[i], *(row[2] for row in table if row[0] == NAMES[i])]
        figures = re.findall(r"<figure.*?</figure>", section, re.S)
        assert len(figures) == 3
        for name, figure in zip(names, figures, strict=True):
            assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in figure
            number = re.search(r'data-p="(\d+)"', figure)
            if name == "gone.png":
                assert number is None and "no picture" in figure
                continue
            data = pictures[int(number[1])].partition("base64,")[2]
            picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
            assert picture.size == (160, 107)
            np.testing.assert_allclose(picture.getpixel((80, 50)), COLOURS[NAMES.index(name)], atol=6)
        links = [re.search(r'href="#q(\d+)"', figure) for figure in figures[1:]]
        assert [NAMES[int(link[1])] for link in links] == names[1:]
    assert len(sections) == 6
    assert run(embeddings, "--query=a.png", "--k=5", f"--page={page}", "--overwrite") == 0
    columns = 'style="--of-10: 6; --of-5: 3; --of-4: 3"'  # no row of a single picture
    assert columns in page.read_text(encoding="utf-8")


def test_pictures_that_moved_are_read_from_images(embeddings, tmp_path, capsys):
    moved = tmp_path / "moved.npz"
    known = read_embeddings(embeddings)
    write_embeddings(Embeddings(known.names, known.features, {"data": "folder:/nowhere"}), moved)
    page, folder = tmp_path / "page.html", embeddings.parent / "images"
    for images, count in ((), 0), ((f"--images={folder}",), 3), ((f"--images=folder:{folder}",), 3):
        argv = ["--query=a.png", "--k=3", f"--page={page}", "--overwrite", *images]
        assert run(moved, *argv) == 0
        assert f"1 query, {count} pictures" in capsys.readouterr().out
    for images, said in (("folder:/none", "no such folder"), ("tar:/none.tar", "no such file")):
        assert run(moved, "--query=all", f"--page={page}", "--overwrite", f"--images={images}") == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_shows_a_page_and_obeys_the_keyboard(embeddings, tmp_path, capsys):
    """Every picture is drawn, nothing is wider than the window, and n, p, / and links lead to queries."""
    page, around = tmp_path / "page.html", tmp_path / "around.html"
    assert run(embeddings, "--query=all", "--k=2", f"--page={page}") == 0
    script = """
const found = {drawn: [...document.images].every(i => i.naturalWidth), shown: document.images.length};
const key = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const place = () => document.activeElement.textContent;
found.wide = document.documentElement.scrollWidth - innerWidth;
found.cut = Math.max(...[...document.images].map(i => i.getBoundingClientRect().right)) - innerWidth;
key("n"); key("n"); key("n"); found.third = place();
key("p"); found.second = place();
key("/"); found.filter = document.activeElement.id;
input.value = "TWIN"; input.dispatchEvent(new Event("input"));
found.left = sections.filter(s => s.offsetHeight).map(s => s.querySelector("h2").textContent);
const link = document.querySelector("section:not([hidden]) a"); link.click();
setTimeout(() => { found.linked = [link.querySelector("img").alt, place()];
  parent.postMessage(JSON.stringify(found), "*"); }, 100);"""
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"<script>onload=()=>{{{script}}}</script></body>"), "utf-8")
    for width in (390, 1400):
        around.write_text(
            "<title></title><script>addEventListener('message',e=>{document.title=e.data})</script>"
            f"<iframe src=page.html width={width} height=900 frameborder=0></iframe>"
        )
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,1000",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
             around.as_uri()],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
        assert found["drawn"] and found["shown"] > 12 and found["wide"] <= 0 and found["cut"] <= 0
        assert found["third"] == NAMES[2] and found["second"] == NAMES[1] and found["filter"] == "filter"
        assert found["left"] == ["twin.png"] and found["linked"] == ["a.png", "a.png"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--query=nowhere.png"], "--query=nowhere.png: neither a file nor a name among the embeddings"),
        (["--query=list:/none"], "--query=list:/none: cannot be read .No such file"),
        (["--query=folder:/none"], "no such folder"),
        (["--query=all", "--out=x.txt"], "--out=x.txt: must end in .csv or .parquet"),
        (["--query=all", "--page=x.csv"], "--page=x.csv: must end in .html"),
        (["--query=all", "--out=/proc/x.csv"], "--out=/proc/x.csv: cannot be written"),
        (["--query=all", "--page=/proc/x.html"], "--page=/proc/x.html: cannot be written"),
        (["--query=all", "--image_size=64"], "--image_size=64 has no effect with --query=all"),
        (["--query=all", "--weights=/x"], "--weights=/x has no effect with --query=all"),
        (["--query=all", "--images=/x"], "--images=/x: has no effect without a page"),
        (["--query=all", "--names_column=x"], "--names_column=x: .* has no such column. Choose from names, "),
        (["--query=all", "--names=/none"], "--names=/none: cannot be read"),
    ],
)
def test_bad_input_is_one_line(embeddings, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    assert run(embeddings, *flags) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and re.search(said, err), err
    assert list(tmp_path.iterdir()) == []
