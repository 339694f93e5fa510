"""The page in Chromium: zoom, hover, lasso, list, neighbours by mouse and keys; 1400 and 390 pixels wide."""

import os

import numpy as np
import pytest
from helpers.chromium import CHROMIUM, Chromium
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
from simsiam_tf.data.sources.lists import list_members

pytest.importorskip("plotly")
pytestmark = [
    pytest.mark.slow,  # half a minute
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
COUNT = 300
HOSTILE = [
    b"<img src=x onerror=alert(1)>.png", b"\"two\" 'quotes', comma.png", b"new\nline.png", b"caf\xe9.png",
    "\u05e9\u05dc\u05d5\u05dd.png".encode(), b"#hash.png", b" space .png", "\U0001f408.png".encode(),
]  # fmt: skip


POLYGON = np.array([[-6, -3], [1, -4], [5, -1], [0, 0.5], [2, 4], [-5, 3]])  # a lasso, not convex


def edge_distances(points, polygon):
    """Distance of each point [N, 2] from the nearest edge of a polygon [P, 2]."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    along = ((points[:, None] - polygon) * edges).sum(axis=2) / (edges**2).sum(axis=1)
    nearest = polygon + np.clip(along, 0, 1)[..., None] * edges
    return np.linalg.norm(points[:, None] - nearest, axis=2).min(axis=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """(folder of COUNT pictures and a page of them, its content)."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = [*map(os.fsdecode, HOSTILE), *(f"sub/{i:03d}.png" for i in range(COUNT - len(HOSTILE)))]
    (folder / "sub").mkdir()
    colours = rng.integers(0, 255, (COUNT, 3), np.uint8)
    for name, colour in zip(names, colours, strict=True):
        Image.new("RGB", (24, 16), tuple(colour.tolist())).save(folder / name)
    points = rng.uniform(-1, 1, (2 * COUNT, 2)) * [8, 5]
    points = points[edge_distances(points, POLYGON) > 0.1][:COUNT]  # a lasso is drawn in whole pixels
    z = np.concatenate([points, np.ones((COUNT, 1))], axis=1)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosines = z @ z.T
    np.fill_diagonal(cosines, -2)
    near = np.argsort(-cosines, axis=1)[:, :6]

    def thumbnail(row):
        return None if row == 20 else encode_thumbnail(np.asarray(Image.open(folder / names[row])))

    labels = Categories("Label", np.arange(COUNT) % 3, ["a", "<b>", "c"])
    content = CurationContent(
        names, points, thumbnail, [labels, Numbers("Brightness", colours.mean(axis=1))],
        near, np.take_along_axis(cosines, near, axis=1),
        [Gallery("Duplicates", "Pairs.", [PictureGroup([20, 0], "a pair", [0], ["", "cosine 1.000"])] * 40,
                 list_file="duplicates.txt")],
        "Curation", projection="chance", list_names=[str(folder / name) for name in names],
    )  # fmt: skip
    write_page(content, folder / "curation.html")
    return folder, content


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def browser(pictures, chromium, tmp_path):
    """Chromium with the page, drawn. Downloads go to tmp_path."""
    chromium("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    chromium.resize(1400, 1000)
    chromium.open(pictures[0] / "curation.html")
    chromium.wait_for("Boolean(document.querySelector('#map canvas') && map._fullLayout?.xaxis.range)")
    yield chromium
    assert chromium.problems() == []


AXES = """(() => {
  const {xaxis: x, yaxis: y} = map._fullLayout, at = map.getBoundingClientRect();
  return [...x.range, at.left + x._offset, x._length, ...y.range, at.top + y._offset, y._length];
})()"""


def places(browser, points):
    """Pixels [n, 2] of points on the map."""
    x0, x1, left, width, y0, y1, top, height = browser.run(AXES)
    share = (points - [x0, y0]) / [x1 - x0, y1 - y0]
    return share * [width, -height] + [left, top + height]


def inside(points, polygon):
    """Whether points [N, 2] are inside a polygon [P, 2]: an odd number of edges to the right of each."""
    odd = np.zeros(len(points), bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (ay > points[:, 1]) != (by > points[:, 1])
        odd ^= crosses & (points[:, 0] < ax + (points[:, 1] - ay) / (by - ay) * (bx - ax))
    return odd


def loaded(browser, box):
    return browser.wait_for(f"document.querySelector('{box} img')?.naturalWidth")


def press_button(browser, selector):
    """Clicks the middle of an element, in view."""
    spot = f"""(() => {{
      const element = document.querySelector(`{selector}`);
      element.scrollIntoView({{behavior: "instant", block: "nearest"}});
      const r = element.getBoundingClientRect();
      return [r.x + r.width / 2, r.y + r.height / 2];
    }})()"""
    browser.click(*browser.run(spot))


def title(browser):
    return browser.run("panel.hidden ? null : document.querySelector('#panel-title').innerText")


def test_zoom_hover_lasso_and_list(pictures, browser, tmp_path):
    folder, content = pictures
    names = np.array(content.lists, object)

    before = browser.run(AXES)
    middle = [before[2] + before[3] / 2, before[6] + before[7] / 2]
    browser.mouse("mouseMoved", *middle)
    browser.mouse("mouseWheel", *middle, deltaX=0, deltaY=-200)
    browser.wait_for(f"({AXES})[1] - ({AXES})[0] < 0.95 * {before[1] - before[0]}")
    press_button(browser, "#zoom-all")
    browser.wait_for(f"Math.abs(({AXES})[1] - {before[1]}) < 1e-6")

    gaps = np.linalg.norm(content.points[:, None] - content.points, axis=2) + 1e9 * np.eye(COUNT)
    lonely = int(gaps.min(axis=1).argmax())  # no other point is as near as to be taken for it
    browser.mouse("mouseMoved", *places(browser, content.points)[lonely])
    browser.wait_for("!document.querySelector('#tip').hidden")
    assert content.names[lonely] in browser.run("document.querySelector('#tip').innerText")
    assert loaded(browser, "#tip") == 24

    press_button(browser, "[data-mode=lasso]")
    corners = places(browser, POLYGON)
    steps = np.linspace(0, 1, 5)[:, None]
    closed = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    browser.drag(np.concatenate([a + steps * (b - a) for a, b in closed]).tolist())
    expected = set(names[inside(content.points, POLYGON)])
    assert 60 < len(expected) < 200
    said = "document.querySelector('#selection-title').innerText"
    browser.wait_for(f"{said} == '{len(expected)} pictures selected'")
    press_button(browser, "#download-list")
    read, _ = read_download(browser, tmp_path)
    assert set(read) == expected and len(read) == len(expected)
    hostile = {str(folder / os.fsdecode(name)) for name in HOSTILE}
    assert len(expected & hostile) >= 2 and len(hostile - expected) >= 2

    # All names, and then plain ones alone, which are written one a line.
    press_button(browser, "#select-view")
    assert browser.run("map.data[0].selectedpoints.length") == COUNT
    press_button(browser, "#download-list")
    assert read_download(browser, tmp_path)[0] == list(names)
    browser.run("document.querySelector('#find input').value = 'SUB/01'")
    browser.run("document.querySelector('#find').requestSubmit()")
    press_button(browser, "#download-list")
    plain = [name for name in names if "/sub/01" in name]
    assert read_download(browser, tmp_path) == (plain, "".join(f"{name}\n" for name in plain))


def read_download(browser, folder):
    """(names of the downloaded list, as --data=list: reads them; its text). The file is removed."""
    path = folder / "selection.txt"
    for _ in range(400):
        browser.run("new Promise((done) => setTimeout(done, 50))")
        if path.exists():
            names = list_members(str(path), "train").names
            text = path.read_text(errors="surrogateescape")
            path.unlink()
            return names, text
    raise AssertionError(f"{path} was not downloaded")


def test_neighbours_by_click_and_by_keys(pictures, browser):
    _, content = pictures
    shown = [name.replace("\n", " ").replace("\udce9", "\\xe9") for name in content.names]
    gaps = np.linalg.norm(content.points[:, None] - content.points, axis=2) + 1e9 * np.eye(COUNT)
    lonely = int(gaps.min(axis=1).argmax())
    browser.click(*places(browser, content.points)[lonely])
    browser.wait_for("!document.querySelector('#panel').hidden")
    assert title(browser) == shown[lonely]
    tiles = "[...document.querySelectorAll('#panel .tile')]"
    rows = browser.run(f"{tiles}.map((t) => Number(t.dataset.picture))")
    assert rows == content.neighbours[lonely].tolist()
    press_button(browser, "#panel .tile:nth-child(2)")
    second = int(content.neighbours[lonely][1])
    assert title(browser) == shown[second]
    browser.press("Escape")
    assert title(browser) is None and browser.run("document.activeElement.id") == "map"

    # By keys alone, from where the panel was at last.
    browser.run("document.querySelector('#find input').focus()")
    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "map"
    browser.press("ArrowRight")
    offset = content.points - content.points[second]
    ahead, aside = offset[:, 0], np.abs(offset[:, 1])
    right = np.where((ahead > 0) & (aside <= ahead), ahead + aside, np.inf)
    expected = int(right.argmin())
    assert shown[expected] in browser.run("document.querySelector('#announcer').textContent")
    browser.press(" ")
    assert browser.run("document.querySelector('#selection-title').innerText") == "1 picture selected"
    browser.press("Enter")
    assert title(browser) == shown[expected]
    for _ in range(20):
        browser.press("Tab")
        if browser.run("document.activeElement.matches('#panel .tile')"):
            break
    browser.press("Enter")
    assert title(browser) == shown[content.neighbours[expected][0]]
    browser.press("Escape")
    assert title(browser) is None and browser.run("document.activeElement.id") == "map"


@pytest.mark.parametrize("width", [390, 900, 1200, 1280, 1400])
def test_no_picture_of_a_dozen_is_alone_in_its_row(chromium, tmp_path, width):
    points = np.random.default_rng(0).uniform(size=(14, 2))
    groups = [PictureGroup(range(count)) for count in (12, 14)]
    content = CurationContent(
        [*"abcdefghijklmn"], points, lambda row: None, galleries=[Gallery("A", "", groups)]
    )
    chromium.resize(width, 844, mobile=width < 500)
    chromium.open(write_page(content, tmp_path / "page.html"))
    chromium.run("document.querySelector('.gallery').scrollIntoView()")
    chromium.wait_for("document.querySelectorAll('.gallery .tile').length == 26")
    tops = "[...tiles.children].map((tile) => Math.round(tile.getBoundingClientRect().top))"
    for tiles in chromium.run(f"[...document.querySelectorAll('.gallery .tiles')].map((tiles) => {tops})"):
        assert np.unique(tiles, return_counts=True)[1].min() > 1
    assert chromium.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [390, 1400])
def test_no_width_scrolls_sideways_and_names_stay_text(pictures, browser, width):
    browser.resize(width, 844, mobile=width < 500)
    browser.run("document.querySelector('.gallery').scrollIntoView()")
    browser.wait_for("document.querySelectorAll('.gallery .tile').length == 48")
    assert "No picture: sub/012.png" in browser.run("document.querySelector('.gallery').innerText")
    press_button(browser, ".gallery .more")
    browser.wait_for("document.querySelectorAll('.gallery .tile').length == 80")
    press_button(browser, ".gallery .tile.marked")
    assert title(browser) == os.fsdecode(HOSTILE[0])
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("document.querySelector('#panel').getBoundingClientRect().right <= innerWidth")
    named = "e.innerText || e.ariaLabel || e.labels?.length || e.alt != null"
    assert browser.run(f"[...document.querySelectorAll('button, input, select, img')].every((e) => {named})")
