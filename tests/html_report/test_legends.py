"""The report's charts: class names of every kind, legends, marks."""

import base64
import dataclasses
import html
import html.parser
import re

import numpy as np
import pytest
import tensorflow as tf
from helpers.report_runs import write_finished_run, write_records

from simsiam_tf.data import from_arrays
from simsiam_tf.html_report import charts, gallery, history, page, tensorboard_projector
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_finished_run(tmp_path_factory.mktemp("run"))


STRANGE = (
    r"$\frac{$", "$a$ and $b$", "_hidden", "_", "caf\udce9", "caf\udce8", "猫の写真", "Привет", "کتاب‌ها",
    "a\tb\x1b[31mred", "\u202eevil", " ", "x" * 200, "\\alpha^{", "<b>&amp;</b>",
)  # fmt: skip


def shown_names(text):
    """The names in the page's legend, as a browser has them."""
    (listed,) = re.findall(r'<ul class="legend">(.*?)</ul>', text, re.S)
    return [html.unescape(name) for name in re.findall(r"<li>.*?</span>(.*?)</li>", listed, re.S)]


@pytest.mark.slow
def test_class_names_in_any_script_are_in_the_legend(workdir, tmp_path, recwarn, monkeypatch):
    monkeypatch.setattr(gallery, "tsne", lambda features, seed: features[:, :2])
    rng = np.random.default_rng(0)
    count = len(STRANGE)
    images, labels = rng.integers(0, 255, (3 * count, 16, 16, 1), np.uint8), np.arange(3 * count) % count
    source = from_arrays("$x$ caf\udce9", images, labels, STRANGE)
    known = gallery.draw_sample(open_pretrained(str(workdir)), source, 3 * count)
    sections = [gallery.projection_section(known, 0), gallery.neighbours_section(known, 3, 0)]
    told = history.read_history(write_records(tmp_path / "run", data="folder:/photos/caf\udce9"))
    text = page.render_page(
        told, [history.outcome_section(told), *sections, history.configuration_section(told)]
    )
    shown = shown_names(text)
    assert len(shown) == len(set(shown)) == count
    for name in STRANGE[:4] + STRANGE[6:9] + STRANGE[11:]:
        assert name in shown
    assert {r"caf\xe9", r"caf\xe8", r"a b\x1b[31mred", r"\u202eevil"} <= set(shown)
    assert r"folder:/photos/caf\xe9" in text and text.encode("utf-8")  # no half of a character is left
    assert not [w for w in recwarn if "Glyph" in str(w.message) or "matplotlib" in w.filename]
    tensorboard_projector.write_projector(known, tmp_path / "tb")
    names = (tmp_path / "tb" / "projector" / "names.tsv").read_text(encoding="utf-8").split("\n")
    assert len(names) == 2 + 3 * count and all(line.count("\t") == 1 for line in names[:-1])


def test_more_groups_than_can_be_told_apart_are_counted_and_so_many_are_named(workdir, monkeypatch):
    monkeypatch.setattr(gallery, "tsne", lambda features, seed: features[:, :2])
    monkeypatch.setattr(charts, "_picture", lambda *_: None)
    rng = np.random.default_rng(0)
    known = gallery.draw_sample(open_pretrained(str(workdir)), page.open_source("digits", "train"), 8)
    for count in (charts.MAX_GROUPS, charts.MAX_GROUPS + 1):
        groups = np.arange(2 * count) % count
        many = dataclasses.replace(
            known, ids=groups, groups=groups, names=tuple(map(str, groups)),
            features=rng.normal(size=(2 * count, 8)),
        )  # fmt: skip
        section = gallery.projection_section(many, 0)
        if count == charts.MAX_GROUPS:
            assert [name for name, _, _ in section.legend] == [*map(str, range(count))]
            assert len({(colour, mark) for _, colour, mark in section.legend}) == count
        else:
            assert not section.legend and section.text[-1].startswith(f"{count} classes are too many")


def test_a_legend_has_the_colours_and_marks_of_its_chart():
    """The pixels of a chart of one group that is neither the first nor the eleventh."""
    for group, mark_of_group in ((2, "◆"), (19, "●")):
        picture = charts.scatter_chart(np.zeros([1, 2]), np.array([group]), "one", "one")
        png = base64.b64decode(picture.src.partition(",")[2])
        image = tf.io.decode_png(png, channels=3).numpy().astype(int)
        ((_, colour, mark),) = charts.legend(np.array([group]), ["?"] * 20)
        assert mark == mark_of_group
        colour = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        near = np.abs(image - (0.65 * colour + 0.35 * 255)).max(axis=2) < 12
        assert near.sum() > 20  # so many pixels of that colour, blended with white


def test_up_to_ten_groups_differ_in_colour_and_in_mark():
    for first in range(0, charts.MAX_GROUPS, 10):
        names, colours, marks = zip(*charts.legend(np.arange(first, first + 10), range(100)), strict=True)
        assert len(set(names)) == len(set(colours)) == len(set(marks)) == 10


def test_withheld_labels_are_not_classes(workdir):
    images = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 1), np.uint8)
    source = from_arrays("withheld", images, np.full(24, -1), ("cat", "dog"))
    known = gallery.draw_sample(open_pretrained(str(workdir)), source, 24)
    assert not known.labelled and known.names[0] == "group 1"


def drawn(monkeypatch, *args, **kwargs):
    """Places of marks in a chart of `charts.line_chart`, a curve after the other."""
    figures = []
    monkeypatch.setattr(charts, "_picture", lambda figure, *_: figures.append(figure))
    charts.line_chart(*args, levels={}, **kwargs)
    return [line.get_markevery() for line in figures[0].axes[0].get_lines() if len(line.get_xdata()) != 2]


def test_a_point_to_which_no_line_leads_has_a_mark(monkeypatch):
    nan = float("nan")
    assert drawn(monkeypatch, [5], {"loss": [-0.1]}, "one") == [[0]]
    assert drawn(monkeypatch, [1, 2, 3], {"loss": [-0.1, -0.2, -0.3]}, "three") == [[]]
    some = {"a": [1, nan, 2, nan, nan], "b": [1, 2, 3, nan, 3]}
    assert drawn(monkeypatch, [1, 2, 3, 4, 5], some, "some") == [[0, 2], [4]]
    assert drawn(monkeypatch, [1, 2, 3], {"kNN": [1, 2, 3]}, "marked", marked=True) == [[0, 1, 2]]
