"""The page shows a bounded part of large answers, and says so."""

import numpy as np

from simsiam_tf.curation import page_content, run_curation, statistics_table
from simsiam_tf.curation.answers import Question, answer
from simsiam_tf.curation.picture_scan import Scan
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


def test_labels_that_follow_nothing_are_last_and_said_to_be_so(tmp_path):
    rng = np.random.default_rng(0)
    group = np.arange(90) % 3
    x = np.eye(8)[group] + 0.1 * rng.standard_normal((90, 8))
    years, right_but_one = rng.integers(2023, 2025, 90).astype(str), group.astype(str)
    right_but_one[0] = "1"
    scan = Scan(statistics_table(np.arange(90, dtype=np.uint8)[:, None, None]), np.arange(90))
    for labels, doubted in (years, True), (right_but_one, False):
        pictures = PictureSet(np.arange(90).astype(str), x, labels=labels)
        answers = answer(pictures, Question(clusters=3))
        galleries = page_content.galleries(pictures, answers, scan, None)
        titles = [gallery.title for gallery in galleries[-2:]]
        assert titles == (["Oddest", "Suspects"] if doubted else ["Suspects", "Oddest"])
        text = run_curation.summary(tmp_path, pictures, answers, None, None)
        for shown in (text, " ".join(gallery.about for gallery in galleries)):
            assert ("labels, such as folders by year, seem not to follow" in shown) == doubted


def test_statistics_that_are_alike_have_no_oddest_pictures():
    pictures = [np.full((8, 8), value, np.uint8) for value in (10, 10, 10, 90)]
    groups = page_content._oddest(Scan(statistics_table(pictures), np.arange(4))).groups
    assert [group.caption.partition(";")[0] for group in groups] == ["brightness"]
    assert [(list(group.rows), group.notes) for group in groups] == [([3], ["0.3529"])]


def test_a_number_of_clusters_that_was_chosen_is_called_rough():
    x = np.random.default_rng(0).standard_normal((60, 8))
    for options, rough in ({}, True), ({"clusters": 3}, False):
        (about,) = (g.about for g in content_of(x, **options).galleries if g.title == "Clusters")
        assert ("rough choice" in about) == rough


def test_many_neighbours_are_in_the_table_and_the_nearest_on_the_page(monkeypatch):
    monkeypatch.setattr(state, "MAX_NEIGHBOURS", 3)
    content = content_of(np.random.default_rng(0).standard_normal((60, 8)), neighbours=20, clusters=2)
    made = state.page_state(content, state.choose_rows(content))
    assert content.neighbours.shape == (60, 20) and (made["k"], made["shown"]) == (20, 3)
    assert made["neighbours"] == content.neighbours[:, :3].tolist()
    few = state.choose_rows(content, max_points=1, seed=1)
    assert len(few.rows) <= few.known.sum() * 4
