"""Arrays and texts in a file; texts that are joined, split and compared in pieces."""

import os

import numpy as np
import pytest

from simsiam_tf.data.sources import array_file, base
from simsiam_tf.data.sources.array_file import (
    are_joined,
    joined_pieces,
    read_arrays,
    split_texts,
    write_arrays,
)

TEXTS = ["a", "", "bb", os.fsdecode(b"\xff"), os.fsdecode(b"\xc3"), "é", "\n", "日本", "z"]


@pytest.fixture(params=[1, 2, 4, 9, 100], autouse=True)
def piece(request, monkeypatch):
    monkeypatch.setattr(array_file, "PIECE", request.param)
    monkeypatch.setattr(base, "PIECE", request.param)


def joined(texts):
    return np.frombuffer(b"".join(os.fsencode(text) + b"\0" for text in texts), np.uint8)


@pytest.mark.parametrize("count", range(len(TEXTS) + 1))
def test_texts_are_joined_and_split(count):
    texts = TEXTS[:count]
    assert b"".join(joined_pieces(texts)) == joined(texts).tobytes()
    assert list(split_texts(joined(texts))) == texts
    assert are_joined(joined(texts), texts)


@pytest.mark.parametrize(
    "others", [TEXTS[:-1], [*TEXTS, ""], [*TEXTS[:-1], "y"], ["b", *TEXTS[1:]], [*TEXTS[:-2], "日本z"], []]
)
def test_other_texts_are_told(others):
    assert not are_joined(joined(TEXTS), others) and not are_joined(joined(others), TEXTS)


def test_a_file_gives_back_what_was_written(tmp_path):
    written = {"names": np.array(TEXTS, object), "none": np.array([], object), "rows": np.arange(5)}
    write_arrays(tmp_path / "file.npz", written)
    arrays = read_arrays(tmp_path / "file.npz")
    assert arrays is not None and arrays.keys() == written.keys()
    for key, array in arrays.items():
        assert array.dtype == written[key].dtype and array.tolist() == written[key].tolist()
    assert os.listdir(tmp_path) == ["file.npz"]


@pytest.mark.parametrize("texts", [np.zeros(3), np.zeros((2, 2), np.uint8)])
def test_a_file_whose_texts_are_none_is_not_read(tmp_path, texts):
    with open(tmp_path / "file.npz", "wb") as file:
        np.savez(file, **{f"names{array_file.TEXTS}": texts})
    assert read_arrays(tmp_path / "file.npz") is None
    assert array_file.read_joined(tmp_path / "file.npz") is None


def test_names_and_digests_are_hashed_as_a_whole():
    names = tuple(TEXTS)
    digests = np.array([b"%d" % i for i in range(len(names))])
    source = base.EncodedSource(
        "set", len(names), 3, None, (), "print", lambda i: i, names=names, digests=digests
    )
    whole = os.fsencode("\n".join(names)) + b"\n" + b" ".join(digests.tolist()) + repr(source.rule).encode()
    assert source.contents() == base.short_digest(whole)
    assert base.digest_of_pieces(base.lines(names)) == base.short_digest(os.fsencode("\n".join(names)))
