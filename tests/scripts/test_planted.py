"""scripts/bench/planted.py: what it plants, and that it counts what is found as by hand."""

import argparse

import numpy as np
import planted
import pytest
from PIL import Image

from scripts.sets.set_file import Picture, read_set, write_set
from simsiam_tf import curation
from simsiam_tf.runtime.errors import UserError

KINDS = len(planted.CHANGES)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The rows that are planted into a set of 60 pictures of 6 labels in two domains, of 16 × 16 pixels."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, domains in (("set", ("a", "a", "b")), ("others", ("",))):
        (folder / name).mkdir()
        pictures = []
        for i in range(60):
            path, label = f"{i:02}.png", "uvwxyz"[i % 6]
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / name / path)
            pictures.append(Picture(path, label, object=f"o{i // 2}", domain=domains[i % len(domains)]))
        write_set(folder / name, pictures)
    (folder / "out").mkdir()
    args = argparse.Namespace(
        folder=folder / "set", strangers=folder / "others", images=100, copies=2, seed=0
    )
    planted.plant(args, folder / "out")
    return folder / "out", sorted(read_set(folder / "out"), key=lambda row: row.path)


def test_pictures_are_of_one_domain_and_of_different_objects(rows):
    folder, planted_rows = rows
    natural = [row for row in planted_rows if row.path[0] == "p"]
    objects = {f"o{i // 2}" for i in range(60) if i % 3 < 2}
    assert len(natural) == len(objects) == 30
    assert sum(row.label != row.group for row in natural) == round(planted.WRONG * 30)
    copies = [row for row in planted_rows if row.path[0] == "c"]
    assert len({row.object for row in copies}) == len(copies) == 2 * KINDS
    assert sum(row.object == "stranger" for row in planted_rows) == planted.STRANGERS


def test_copies_are_changed_as_their_kind_says(rows):
    folder, planted_rows = rows
    by_kind = {int(row.path[-5]): row for row in planted_rows if row.path[0] == "c"}

    def pair(kind):
        row = by_kind[list(planted.CHANGES).index(kind)]
        return (np.asarray(Image.open(folder / path).convert("RGB"), int) for path in (row.path, row.object))

    copy, source = pair("saved again")
    np.testing.assert_array_equal(copy, source)
    copy, source = pair("JPEG, quality 75")
    assert copy.shape == source.shape and 0 < np.abs(copy - source).mean() < 60
    copy, source = pair("three quarters of the size")
    assert copy.shape == (12, 12, 3)
    copy, source = pair("cropped by 5 % a side")
    np.testing.assert_array_equal(copy, source[1:-1, 1:-1])
    copy, source = pair("darker by 20 %")
    np.testing.assert_allclose(copy, 0.8 * source, atol=1)
    copy, source = pair("rotated by 5°")
    assert copy.shape == source.shape and (copy[6:10, 6:10] != source[6:10, 6:10]).any()
    copy, source = pair("rotated by 90°")
    np.testing.assert_array_equal(copy, np.rot90(source))


def test_what_is_found_is_counted():
    rng = np.random.default_rng(0)
    natural = [Picture(f"p{i:03}.png", "xy"[i % 2], group="xy"[i % 2]) for i in range(200)]
    natural[5] = Picture("p005.png", "x", group="y")
    copies = [Picture(f"c{i:03}-{i % KINDS}.png", "x", object=f"p{i:03}.png") for i in range(2 * KINDS)]
    strangers = [Picture(f"s{i}.png", object="stranger") for i in range(2)]
    features = rng.standard_normal((200, 32))
    features[:, 0] += 20 * np.array([1 if row.group == "x" else -1 for row in natural])
    features[150] = features[50]  # duplicates that are no copies
    copied = features[: 2 * KINDS].copy()
    copied[KINDS - 1] = rng.standard_normal(32)  # one of two copies of the last kind is not like its source
    far = 20 * np.eye(32)[[10, 20]]
    found = planted.find(np.vstack([features, copied, far]), natural + copies + strangers)
    assert found.duplicates == pytest.approx((13 / 14, 13 / 14))
    assert found.kinds == [1.0] * (KINDS - 1) + [0.5]
    assert found.suspects == (1.0, 1.0)
    assert found.leaks == pytest.approx((13 / 14, 13 / 14))  # row 150 is found for row 50
    assert found.outliers >= 0.5  # the copy that is like nothing may be before a stranger

    copied[1] += 0.3 * rng.standard_normal(32)  # of the JPEG files, one is like its source, but not equal
    cosine = copied[1] @ features[1] / np.linalg.norm(copied[1]) / np.linalg.norm(features[1])
    found = planted.find(np.vstack([features, copied, far]), natural + copies + strangers)
    least = np.quantile([cosine, 1, 1, 1], 0.05)  # of two copies of two kinds
    assert found.by_copies == pytest.approx((least, 12 / 13, 12 / 14)) and cosine < least < 1


def test_the_other_set_is_half_of_the_pictures_where_copies_come_first(monkeypatch):
    rng, banks = np.random.default_rng(0), []
    natural = [Picture(f"p{i:03}.png", "xy"[i % 2], group="xy"[i % 2]) for i in range(40)]
    copies = [Picture(f"c{i:03}-{i % KINDS}.png", object=f"p{i:03}.png") for i in range(2 * KINDS)]
    search = curation.leaks
    monkeypatch.setattr(
        curation, "leaks", lambda q, bank, **options: banks.append(bank) or search(q, bank, **options)
    )
    features = rng.standard_normal((40, 16))
    planted.find(np.vstack([features[: 2 * KINDS], features]), copies + natural)
    np.testing.assert_array_equal(banks[0], features[:20])


def test_copies_of_copies_are_refused(rows):
    place = rows[0].parent
    args = argparse.Namespace(folder=place / "set", strangers=place / "others", images=100, copies=5, seed=0)
    with pytest.raises(UserError, match=f"copies=5: 30 pictures are too few for {KINDS} kinds"):
        planted.plant(args, rows[0])


def test_nothing_found_is_no_precision():
    assert np.isnan(planted._shares(0, 0, 5)[0]) and planted._shares(0, 0, 5)[1] == 0.0
