"""The page's state, thumbnails and projection against NumPy and by hand; names are text wherever they go."""

import base64
import dataclasses
import gzip
import html.parser
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.curation_page import (
    Categories,
    CurationContent,
    Gallery,
    Numbers,
    PictureGroup,
    encode_thumbnail,
    write_page,
)
from simsiam_tf.curation_page import page as pages
from simsiam_tf.curation_page.state import choose_rows, list_texts, packed_text, page_state, script_json
from simsiam_tf.runtime.errors import UserError

HOSTILE = ["</script><img src=x onerror=alert(1)>", "\"quoted\" & 'so'", "a\nb\r\nc", "caf\udce9.png",
           "\u202egnp.exe", "\u05e9\u05dc\u05d5\u05dd.png", "<!--", "\u2028"]  # fmt: skip


def red(_):
    return encode_thumbnail(np.full((8, 8, 3), [255, 0, 0], np.uint8))


def content(count=12, **options):
    points = np.random.default_rng(0).normal(size=(count, 2))
    return CurationContent([f"{i}.png" for i in range(count)], points, red, **options)


class Tags(html.parser.HTMLParser):
    """Tags outside of scripts, and the text of the state."""

    def __init__(self, text):
        super().__init__()
        self.found, self.state, self._in_state = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._in_state = dict(attrs).get("id") == "state"

    def handle_data(self, data):
        if self._in_state:
            self.state += gzip.decompress(base64.b64decode(data)).decode("ascii")
            self._in_state = False


def test_hostile_names_are_text_in_the_state_and_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "plotly_script", lambda: "var Plotly")
    count = len(HOSTILE)
    shown = CurationContent(
        HOSTILE, np.zeros((count, 2)), red, [Categories(HOSTILE[0], np.zeros(count, int), [HOSTILE[0]])],
        galleries=[Gallery(HOSTILE[0], HOSTILE[1], [PictureGroup([0], HOSTILE[0], [], [HOSTILE[4]])],
                           list_file='"><b>.txt')],
        title=HOSTILE[0], subtitle=HOSTILE[1],
    )  # fmt: skip
    text = write_page(shown, tmp_path / "curation.html").read_text()
    tags = Tags(text)
    assert not any(tag in ("img", "b") or "onerror" in attrs for tag, attrs in tags.found)
    assert sum(tag == "script" for tag, _ in tags.found) == 3
    state = json.loads(tags.state)
    assert state["names"] == HOSTILE  # lone surrogates included
    assert state["printable"] == {"2": "a b  c", "3": "caf\\xe9.png", "4": "\\u202egnp.exe", "7": " "}
    assert state["columns"][0]["names"] == [HOSTILE[0]]
    assert state["galleries"][0]["groups"][0]["notes"] == ["\\u202egnp.exe"]


def test_the_state_has_no_character_that_ends_a_script():
    text = script_json({"a": HOSTILE})
    assert text.isascii() and json.loads(text) == {"a": HOSTILE}
    assert re.fullmatch("[A-Za-z0-9+/=]+", packed_text(text))
    assert gzip.decompress(base64.b64decode(packed_text("π" * 10**6))).decode() == "π" * 10**6
    assert len(packed_text("π" * 10**6)) < 10**4
    with pytest.raises(ValueError):
        script_json({"a": float("nan")})


def test_state_holds_columns_neighbours_and_galleries_by_hand():
    near, cosines = np.array([[1, 2], [0, -1], [0, 1]]), np.array([[0.9, 0.8], [0.9, np.nan], [0.8, 0.12344]])
    shown = CurationContent(
        ["a", "b", "c"], np.array([[0, 0], [10, 0], [1 / 3, 2]]), red,
        [Categories("Label", np.array([1, -1, 0]), ["x", "y"]),
         Numbers("Width", np.array([1234567, np.nan, 2 / 3]))],
        near, cosines, [Gallery("Twins", "", [PictureGroup([2, 0], "two", [2], ["n", "m"])])],
        list_names=["/p/a", "/p/b", "/p/c"],
    )  # fmt: skip
    state = page_state(shown, choose_rows(shown))
    assert state["x"] == [0, 10, 0.3333] and state["y"] == [0, 0, 2] and state["mapped"] == [0, 1, 2]
    assert state["columns"][0]["codes"] == [1, -1, 0]
    assert state["columns"][1]["values"] == [1234567, None, 0.66667]  # whole numbers keep their digits
    assert state["columns"][1]["extremes"] == [0.66667, 1234567]
    assert state["neighbours"] == [[1, 2], [0], [0, 1]]
    assert state["cosines"] == [[0.9, 0.8], [0.9], [0.8, 0.1234]]
    (group,) = state["galleries"][0]["groups"]
    assert group == {"rows": [2, 0], "caption": "two", "marks": [2], "notes": ["n", "m"]}
    assert state["lists"] == {"prefix": "/p/", "texts": None}
    assert list_texts(["a", "b"], ["/p/a", "/q/b"]) == {"prefix": "", "texts": ["/p/a", "/q/b"]}


def test_of_many_pictures_the_page_holds_a_sample_whole_galleries_and_neighbours():
    count = 1000
    near = np.stack([(np.arange(count) + 1) % count, (np.arange(count) + 2) % count], axis=1)
    gallery = Gallery("All", "", [PictureGroup(np.arange(300, 400))])
    shown = content(count, neighbours=near, galleries=[gallery])
    rows = choose_rows(shown, max_points=50, max_pictures=160)
    mapped, known = rows.rows[rows.mapped], rows.rows[rows.known]
    assert len(mapped) == 50 and set(range(300, 400)) <= set(known) and set(mapped) <= set(known)
    assert set(known) == set(mapped) | set(range(300, 400))
    assert len(rows.rows) == 160 and set(known) | {400, 401} <= set(rows.rows)
    assert set(rows.rows) <= set(known) | {400, 401} | set(near[mapped, 0])
    assert set(choose_rows(shown, 50).rows) == set(known) | set(near[known].ravel())
    assert set(choose_rows(shown, 50, 0).rows) == set(known)
    state = page_state(shown, rows)
    assert state["count"] == count and len(state["galleries"][0]["groups"][0]["rows"]) == 100
    place = int(np.flatnonzero(rows.rows == 399)[0])
    assert [state["names"][p] for p in state["neighbours"][place]] == ["400.png", "401.png"]
    first = int(np.flatnonzero(rows.known & rows.mapped)[0])
    on_page = [f"{n}.png" for n in near[rows.rows[first]] if n in rows.rows]
    assert [state["names"][p] for p in state["neighbours"][first]] == on_page and state["k"] == 2
    assert [near is None for near in state["neighbours"]] == (~rows.known).tolist()


def test_a_sample_is_said_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "plotly_script", lambda: "")
    text = write_page(content(30), tmp_path / "curation.html", max_points=10).read_text()
    assert "The map shows a sample: 10 of 30 pictures" in text
    assert "a sample" not in write_page(content(30), tmp_path / "curation.html").read_text()


def test_thumbnails_are_in_the_page_or_in_a_folder_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "plotly_script", lambda: "")
    out, folder = tmp_path / "curation.html", tmp_path / "curation_thumbnails"
    colours = {i: encode_thumbnail(np.full((8, 8, 3), 60 * i, np.uint8)) for i in range(4)}
    shown = dataclasses.replace(content(4), thumbnail=lambda i: {2: None, 3: colours[0]}.get(i, colours[i]))
    made = json.loads(Tags(write_page(shown, out).read_text()).state)["thumbnails"]
    assert made["types"] == ["png", "png", ""] and made["places"] == [0, 1, 2, 0] and not folder.exists()
    assert [base64.b64decode(data) for data in made["data"]] == [colours[0], colours[1], b""]
    (folder / "0123456789abcdef").mkdir(parents=True)  # of an earlier page
    (folder / "mine").mkdir()
    first = write_page(shown, out, inline=2).read_text()
    thumbnails = json.loads(Tags(first).state)["thumbnails"]
    files = sorted(p.name for p in (tmp_path / thumbnails["folder"] / "0").iterdir())
    assert files == ["0.png", "1.png"] and thumbnails["data"] is None
    assert thumbnails["places"] == [0, 1, 2, 0] and thumbnails["types"] == made["types"]
    assert len(list(folder.iterdir())) == 2 and (folder / "mine").exists()
    assert write_page(shown, out, inline=2).read_text() == first  # the same content makes the same page


def test_a_page_that_fails_leaves_the_old_one_and_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "plotly_script", lambda: "")
    out = tmp_path / "curation.html"
    out.write_text("old")

    def broken(row):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_page(dataclasses.replace(content(4), thumbnail=broken), out, inline=0)
    assert out.read_text() == "old" and not list((tmp_path / "curation_thumbnails").iterdir())
    with pytest.raises(UserError, match="cannot be written"):
        write_page(content(4), tmp_path / "missing" / "curation.html")
    (tmp_path / "linked_thumbnails").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        write_page(content(4), tmp_path / "linked.html")


def test_a_thumbnail_takes_few_bytes_and_looks_like_its_picture():
    """A drawing of 48 pixels with soft edges: a third of its PNG, and hardly another colour."""
    y, x = np.mgrid[:48, :48]
    pixels = np.stack(
        [np.clip(255 * np.hypot(x - 24, y - 24) / 24 + 9 * k, 0, 255) for k in (0, 1, 2)], axis=-1
    )
    pixels = (pixels + np.random.default_rng(0).normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", optimize=True)
    made = encode_thumbnail(pixels)
    assert len(made) < len(png.getvalue()) / 3
    shown = np.asarray(Image.open(io.BytesIO(made)).convert("RGB"), float)
    assert np.abs(shown - pixels).mean() < 2.8


def test_thumbnails_keep_shape_and_small_pixels():
    wide = encode_thumbnail(np.zeros((100, 400, 1), np.uint8))
    opened = Image.open(io.BytesIO(wide))
    assert opened.format == "WEBP" and opened.size == (128, 32)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 4), np.uint8)
    small = Image.open(io.BytesIO(encode_thumbnail(pixels)))
    np.testing.assert_array_equal(np.asarray(small), pixels[..., :3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"points": np.zeros((3, 2))}, r"\[12, 2\]"),
        ({"neighbours": np.full((12, 2), 12)}, "rows"),
        ({"neighbours": np.zeros((12, 2), int), "cosines": np.zeros((12, 3))}, r"\(12, 2\)"),
        ({"columns": [Numbers("Score", np.zeros(3))]}, "Score must have 12 rows"),
        ({"columns": [Numbers("A", np.zeros(12)), Numbers("A", np.zeros(12))]}, "differ"),
        ({"galleries": [Gallery("G", "", [PictureGroup([12])])]}, "G: rows"),
        ({"galleries": [Gallery("G", "", [PictureGroup([1], notes=["a", "b"])])]}, "2 notes for 1"),
    ],
)
def test_contents_that_do_not_fit_are_refused(options, said):
    pytest.raises(ValueError, Categories, "Label", np.array([1]), ["a"]).match("from -1 to 0")
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(content(), **options)


def test_the_page_needs_no_tensorflow_and_names_its_extra(monkeypatch):
    code = "import sys, simsiam_tf.curation_page\n"
    code += "sys.exit(bool({'tensorflow', 'jinja2', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"plotly: pip install 'simsiam-tf\[viz\]'"):
        pages.plotly_script()


def test_scripts_end_no_tag_and_ask_for_nothing():
    text = "".join((pages.HERE / name).read_text() for name in (*pages.SCRIPTS, "page.css"))
    outside = r"https?://(?!www\.w3\.org/2000/svg)|@import|fetch\("
    assert not re.search(rf"</script|innerHTML|insertAdjacent|{outside}", text)
