"""The page shows a bounded part of large answers, and says so."""

import numpy as np

from simsiam_tf.curation import page_content
from simsiam_tf.curation.answers import Question, answer
from simsiam_tf.curation.picture_set import PictureSet
from simsiam_tf.curation_page import Projection, state


def content_of(features, **options):
    pictures = PictureSet(np.array([f"{i}.png" for i in range(len(features))], object), features)
    answers = answer(pictures, Question(**options))
    points = Projection(np.zeros((len(features), 2), np.float32), "pca", len(features))
    return page_content.page_content(pictures, answers, None, None, points)


def test_a_large_group_and_many_clusters_are_shown_in_part():
    x = np.random.default_rng(0).standard_normal((260, 8))
    x[:40] = x[0]
    content = content_of(x, cosine=1.0, clusters=215)
    duplicates, clusters = content.galleries[:2]
    (group,) = duplicates.groups
    assert len(group.rows) == len(group.notes) == page_content.SHOWN_COPIES and group.rows[0] == 0
    assert group.caption == "40 pictures, of which 24 are shown; the table has all"
    assert len(clusters.groups) == 200 and "The first 200 of 215 groups; the table has all." in clusters.about


def test_many_neighbours_are_in_the_table_and_the_nearest_on_the_page(monkeypatch):
    monkeypatch.setattr(state, "MAX_NEIGHBOURS", 3)
    content = content_of(np.random.default_rng(0).standard_normal((60, 8)), neighbours=20, clusters=2)
    made = state.page_state(content, state.choose_rows(content))
    assert content.neighbours.shape == (60, 20) and (made["k"], made["shown"]) == (20, 3)
    assert made["neighbours"] == content.neighbours[:, :3].tolist()
    few = state.choose_rows(content, max_points=1, seed=1)
    assert len(few.rows) <= few.known.sum() * 4
