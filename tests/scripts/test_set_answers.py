"""scripts/bench/set_answers.py: answers equal those worked out by hand."""

import json
import math

import numpy as np
import pytest
import set_answers
from PIL import Image

from scripts.sets.set_file import Picture, write_set
from simsiam_tf.features.embedding_file import Embeddings, write_embeddings
from simsiam_tf.runtime.errors import UserError


def at(*degrees):
    """Features of length 1 in these directions."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows(*columns, **options):
    """Rows of a set from strings of one letter a row; "." is empty."""
    values = [[letter.replace(".", "") for letter in column] for column in columns]
    split = options.get("split", "." * len(columns[0]))
    splits = ["test" if letter == "t" else "train" for letter in split]
    return [
        Picture(f"{i}.png", *row, split=s) for i, (*row, s) in enumerate(zip(*values, splits, strict=True))
    ]


def test_pictures_of_a_group_do_not_vote_for_each_other():
    features = at(0, 9, 20, 90, 100)
    labels, none = "aabba", "....."
    # 0→1 a right, 1→0 a right, 2→1 wrong, 3→4 wrong, 4→3 wrong
    alone = set_answers.category_answers(features, rows(labels, none, none, none), k=1)
    assert alone["category"] == pytest.approx(2 / 5)
    # With 0 and 1 of one group: 0→2 b wrong, 1→2 b wrong
    grouped = set_answers.category_answers(features, rows(labels, "gg...", none, none), k=1)
    assert grouped == {"category": 0.0, "category_chance": 3 / 5, "category_questions": 5}


def test_votes_are_weighted_by_the_cosine():
    features = at(0, 5, 30, 31)
    weights = [math.exp(math.cos(math.radians(d)) / 0.1) for d in (5, 30, 31)]
    assert (
        weights[0] > weights[1] + weights[2]
    )  # so the one near neighbour of row 0 outvotes two of another label
    asked = rows("abcc", "....", "....", "....", split="t...")
    asked[0] = Picture("0.png", "b", split="test")
    assert set_answers.category_answers(features, asked, k=3)["category"] == 1.0
    assert set_answers.category_answers(at(0, 25, 30, 31), asked, k=3)["category"] == 0.0


def test_test_rows_are_asked_and_train_rows_answer():
    features = at(0, 1, 40, 42)
    split = rows("aabb", "....", "....", "....", split="t.t.")
    assert set_answers.category_answers(features, split, k=1)["category_questions"] == 2
    # Row 2 is nearest to row 0, a test row, which does not answer; the nearest train row is 3.
    features = at(38, 90, 40, 50)
    assert set_answers.category_answers(features, split, k=1)["category"] == pytest.approx(1 / 2)


def test_pairs_are_sought_in_each_other_domain():
    features = at(0, 3, 4, 20, 1)
    asked = rows(".....", ".....", "xyxyx", "aabbc")
    # Into b (4° x, 20° y): 0 x right; 3 y→x wrong; 1 (c) x right.
    # Into a (0° x, 3° y): 4 x→y wrong; 20 y→y right; 1 x→x right.
    # Into c (x alone): 0 right, 4 right; y has no counterpart and is not asked.
    result = set_answers.pair_answers(features, asked)
    assert result["pair_questions"] == 8 and result["pair"] == pytest.approx(6 / 8)
    assert result["pair_chance"] == pytest.approx((6 * 1 / 2 + 2 * 1) / 8)


def test_rows_without_an_object_are_neither_asked_nor_answers():
    asked = rows("...", "...", "x.x", "abb")
    result = set_answers.pair_answers(at(0, 1, 50), asked)  # row 1 is nearer than row 2, the object
    assert result == {"pair": 1.0, "pair_chance": 1.0, "pair_questions": 2}


def test_without_domains_a_picture_is_sought_among_all_others():
    result = set_answers.pair_answers(at(0, 10, 19, 50), rows("....", "....", "xxyy", "...."))
    # 0→10 right; 10→19 wrong; 19→10 wrong; 50→19 right
    assert result == {"pair": 1 / 2, "pair_chance": pytest.approx(1 / 3), "pair_questions": 4}


def test_pairs_of_held_out_domains_are_among_each_other():
    asked = rows("....", "....", "xxxy", "abcc", split=".ttt")
    # Test rows: 0° b x, 20° c x, 5° c y; the train row at 1° is left out.
    result = set_answers.pair_answers(at(1, 0, 20, 5), asked)
    # Into b (x): 20 right. Into c: 0 → 5 y wrong.
    assert result["pair_questions"] == 2 and result["pair"] == 1 / 2


def test_whitening_is_the_formula_with_shrinkage():
    x = np.array([[3.0, 1], [-3, 1], [3, -1], [-3, -1]]) + [50, 7]  # variances 9 and 1, mean 5
    added = 0.5 * 5  # two features of four pictures: a shrinkage of 0.5
    expected = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1]]) / np.sqrt([9 + added, 1 + added])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    whitened = set_answers.prepare(x, whiten=True)
    assert np.allclose(whitened @ whitened.T, expected @ expected.T, atol=1e-6)
    plain = set_answers.prepare(x)
    assert np.allclose(plain, np.array([[3, 1], [-3, 1], [3, -1], [-3, -1]]) / math.sqrt(10), atol=1e-6)


def test_raw_pixels_are_on_white(tmp_path):
    clear = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 20, 20))
    clear.save(tmp_path / "0.png")
    pixels = set_answers.raw_pixels(tmp_path, [Picture("0.png")]).reshape(16, 16, 3)
    assert pixels[8, 2].tolist() == [1, 0, 0] and pixels[8, 13].tolist() == [1, 1, 1]


def test_embeddings_are_matched_by_name(tmp_path):
    names = np.array(["2.png", "0.png", "1.png", "extra.png"], object)
    features = np.arange(8, dtype=np.float32).reshape(4, 2)
    write_embeddings(Embeddings(names, features, {}), tmp_path / "e.npz")
    asked = rows("aaa", "...", "...", "...")
    assert set_answers.embedded(tmp_path / "e.npz", asked).tolist() == [[2, 3], [4, 5], [0, 1]]
    with pytest.raises(UserError, match=r"no features of 1 of 4 pictures, such as 3.png"):
        set_answers.embedded(tmp_path / "e.npz", rows("aaaa", "....", "....", "...."))


def test_the_command_prints_and_writes_both_questions(tmp_path, capsys):
    folder = tmp_path / "tiny"
    folder.mkdir()
    shades = (0, 10, 200, 210)
    for i, shade in enumerate(shades):
        Image.new("RGB", (4, 4), (shade, 30 * (i % 2), 0)).save(folder / f"{i}.png")
    write_set(folder, rows("aabb", "....", "xxyy", "mnmn"))
    out = tmp_path / "out.json"
    assert set_answers.main([str(folder), "--raw_pixels", f"--json={out}"]) == 0
    result = json.loads(out.read_text())
    assert result["set"] == "tiny" and result["pair"] == 1.0 and result["category_questions"] == 4
    printed = capsys.readouterr().out
    assert "category, kNN-20" in printed and "pair, nearest     100.00 %" in printed
    assert set_answers.main([str(tmp_path), "--raw_pixels"]) == 2
