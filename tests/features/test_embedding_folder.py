"""Embeddings as a folder: whole or not at all, memory-mapped, in bounded memory."""

import json
import os
import pathlib
import tracemalloc

import numpy as np
import pytest

from simsiam_tf.features import columns, embedding_file, parquet
from simsiam_tf.features.embedding_file import Embeddings, read_embeddings, write_embeddings
from simsiam_tf.features.names import ArrowNames
from simsiam_tf.runtime.errors import UserError

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
NAMES = ["a.png", "b/é.png", os.fsdecode(b"\xff.png")]


def embeddings(count=3, width=4, seed=0):
    features = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    names = [*NAMES, *(f"{i}.jpg" for i in range(3, count))]
    return Embeddings(np.array(names, object), features, {"data": "folder:/x", "size": 8})


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_folder_holds_what_was_written(tmp_path, dtype):
    made = embeddings()
    write_embeddings(made, tmp_path / "photos", dtype)
    found = read_embeddings(tmp_path / "photos")
    assert isinstance(found.features, np.memmap) and isinstance(found.names, ArrowNames)
    np.testing.assert_array_equal(found.features, made.features.astype(dtype))
    assert list(found.names) == ["a.png", "b/é.png", r"\xff.png"] and found.about == made.about
    assert [found.row(name) for name in (*found.names, "c.png")] == [0, 1, 2, None]
    np.testing.assert_array_equal(np.load(tmp_path / "photos" / "features.npy"), found.features)
    assert json.loads((tmp_path / "photos" / "about.json").read_text()) == made.about


def test_a_full_disk_leaves_the_folder_that_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    write_embeddings(embeddings(), folder)
    before = content(folder)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="photos: cannot be written .No space left"):
            write_embeddings(embeddings(seed=1), folder)
    assert content(folder) == before and list(tmp_path.iterdir()) == [folder]

    def rename(source, target, rename=pathlib.Path.rename):
        if target == folder and (source / "about.json").read_bytes() == before["about.json"]:
            raise_once.pop()()
        return rename(source, target)

    raise_once = [lambda: None, full]  # the second rename, which puts the old folder back, succeeds
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", rename)
        with pytest.raises(UserError, match="photos: cannot be written .No space left"):
            write_embeddings(embeddings(seed=1), folder)
    assert content(folder) == before and list(tmp_path.iterdir()) == [folder]
    write_embeddings(embeddings(seed=1), folder)
    assert content(folder) != before and list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_other_files_is_not_replaced(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "mine.jpg").write_text("mine")
    for act in (embedding_file.check_output, lambda path: write_embeddings(embeddings(), path)):
        with pytest.raises(UserError, match="photos: is a folder of other files, such as mine.jpg"):
            act(folder)
    assert content(folder) == {"mine.jpg": b"mine"} and list(tmp_path.iterdir()) == [folder]
    with pytest.raises(UserError, match="it is a folder without features.npy"):
        read_embeddings(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="link: is not a folder"):
        embedding_file.check_output(tmp_path / "link")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("features.npy", b"nothing", "no embeddings can be read"),
        ("about.json", b"[1]", "and list as 'about'"),
        ("about.json", b"{", "no embeddings can be read"),
        ("about.json", b" " * 2**21, "about.json is too long"),
        ("names.parquet", b"PAR1", "no embeddings can be read"),
    ],
)
def test_damaged_files_of_a_folder_get_one_line(tmp_path, name, data, said):
    folder = tmp_path / "photos"
    write_embeddings(embeddings(), folder)
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        read_embeddings(folder)
    assert str(caught.value).isprintable()


def test_rows_of_another_number_than_the_names_are_refused(tmp_path):
    write_embeddings(embeddings(3), tmp_path / "a")
    write_embeddings(embeddings(5), tmp_path / "b")
    (tmp_path / "b" / "names.parquet").replace(tmp_path / "a" / "names.parquet")
    with pytest.raises(UserError, match=r"shape \(5,\), features of type float32 and shape \(3, 4\)"):
        read_embeddings(tmp_path / "a")


@pytest.mark.parametrize("name", ["photos", "photos.npz", "photos.parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_writing_takes_bounded_memory(tmp_path, monkeypatch, name, dtype):
    """Features are in a file of 32 MiB, of which a block of 1 MiB is in memory at a time."""
    monkeypatch.setattr(columns, "BLOCK", 2**18)
    count, width = 2**14, 512
    features = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float32, (count, width))
    features[:] = np.random.default_rng(0).normal(size=width)
    names = np.arange(count).astype(str).astype(object)
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    write_embeddings(Embeddings(names, features, {}), tmp_path / name, dtype)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - arrow < 2**20
    found = read_embeddings(tmp_path / name)
    assert found.names[count - 1] == str(count - 1)
    np.testing.assert_array_equal(found.features[[0, -1]], features[[0, -1]].astype(dtype))


def test_names_of_one_long_group_of_rows_take_their_own_length(tmp_path):
    """Arrow's batches of a group share a dictionary, which would be in memory once for each batch."""
    made = [f"a folder/with/a name of some length {i}.jpg" for i in range(2**19)]
    pa.parquet.write_table(pa.table({"name": made}), tmp_path / "a.parquet", use_dictionary=False)
    before = pa.total_allocated_bytes()
    names = parquet.read_name_column(tmp_path / "a.parquet")
    assert pa.total_allocated_bytes() - before < 1.3 * sum(map(len, made)) + 8 * len(made)
    assert names.tolist() == made and names.rows(made[-1]).tolist() == [2**19 - 1]


def test_names_of_arrow_are_indexed_as_an_array_of_strings():
    plain = ["a", "b", "a", "c", "", "b"]
    chunks = [pa.array(plain[:2]), pa.array(plain[2:])]
    numbers = [pa.array([5, 7]), pa.array([5])]
    names = ArrowNames([chunk.dictionary_encode() for chunk in chunks])
    array = np.array(plain, object)
    assert len(names) == 6 and names.tolist() == plain and np.asarray(names).tolist() == plain
    assert [names[i] for i in (0, 5, -1, np.int64(3))] == ["a", "b", "b", "c"]
    for rows in (slice(1, 5), np.array([[4, 0], [2, 2]]), array == "a"):
        np.testing.assert_array_equal(names[rows].ravel(), array[rows].ravel())
    for name in ("a", "b", "", "d", "\udcff"):
        assert names.rows(name).tolist() == [i for i, other in enumerate(plain) if other == name]
    with pytest.raises(IndexError):
        names[6]
    whole = ArrowNames([chunk.dictionary_encode() for chunk in numbers])
    assert whole.tolist() == ["5", "7", "5"] and whole.rows("5").tolist() == [0, 2]
    assert not len(whole.rows("x")) and not len(whole.rows("-1"))
    raw = ArrowNames([pa.array([b"\xff", b"a"]).dictionary_encode()])
    assert raw.tolist() == ["\udcff", "a"] and raw.rows("\udcff").tolist() == [0]
