"""scripts/bench/draw_answers.py: whose neighbours are drawn, and which."""

import draw_answers
import numpy as np
import pytest
from PIL import Image

from scripts.sets.set_file import Picture, write_set

ROWS = [Picture(f"{d}{o}.png", object=o, domain=d) for d in "ab" for o in ("sun", "moon", "star")]
ROWS += [Picture("b5.png", object="tree", domain="b"), Picture("b6.png", domain="b")]


def test_queries_have_an_answer_in_another_domain():
    for seed in range(8):
        chosen = draw_answers.choose_queries(ROWS, 3, seed)
        assert sorted(ROWS[i].object for i in chosen) == ["moon", "star", "sun"]
    with pytest.raises(ValueError, match="only 3 objects"):
        draw_answers.choose_queries(ROWS, 4, 0)


def test_neighbours_are_those_of_other_domains_by_cosine():
    features = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8], [0.8, 0.6], [0, 1], [1, 0], [-1, 0]])
    found = draw_answers.nearest_elsewhere(features, ROWS, 0, 3)
    assert found == [(6, 1.0), (4, 0.8), (3, 0.6)]


def test_each_query_is_drawn_before_and_after(tmp_path):
    rng = np.random.default_rng(0)
    for row in ROWS:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / row.path)
    write_set(tmp_path, ROWS)
    names = np.array([row.path for row in ROWS])
    np.savez(tmp_path / "e.npz", names=names, features=np.eye(8, dtype=np.float32), about="{}")
    out = tmp_path / "answers.png"
    argv = [str(tmp_path), f"--embeddings={tmp_path / 'e.npz'}", "--queries=2", "--neighbours=3"]
    assert draw_answers.main([*argv, f"--out={out}"]) == 0
    from scripts.draw_neighbours import GAP, SIDE, TEXT

    with Image.open(out) as picture:
        assert picture.size == (4 * (SIDE + GAP) + 3 * GAP, 4 * (SIDE + TEXT + 2 * GAP))
