"""Embeddings made to harm: nothing is expanded, and a file that is not whole is not searched."""

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from simsiam_tf.features import embedding_file
from simsiam_tf.runtime.errors import UserError


def refused(path, said):
    """Checks that a file is refused in a printable line, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=said) as caught:
            embedding_file.read_embeddings(path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value) and str(caught.value).isprintable()


def written(path, count=100, width=64):
    features = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    embedding_file.write_embeddings(
        embedding_file.Embeddings(np.array([f"{i}.jpg" for i in range(count)]), features, {}), path
    )
    return path


def npy(shape, dtype="<f4", data=b""):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue() + data


def test_compressed_arrays_are_not_expanded(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, names=np.zeros(2**20, "U8"), features=np.zeros([2**20, 64], np.float32))
    assert path.stat().st_size < 2**20  # of 300 MiB
    refused(path, r"features.npy is compressed. Save it with np.savez")


@pytest.mark.parametrize(
    "array",
    [
        npy((2**40, 64)), npy((2**62, 2**62)), npy((2, 2), data=bytes(15)), npy((2, 2), data=bytes(17)),
        npy((2**50,), "|V0"), npy((2, 2), "|O", pickle := b"\x80\x04K\x01."), pickle, b"", npy((2, 2))[:20],
        npy((-2, -2), data=bytes(16)), npy((2, 2), "<U0"),
    ],
    ids=lambda array: repr(array[-60:-20]),
)  # fmt: skip
def test_an_array_is_no_longer_than_the_file(tmp_path, array):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("names.npy", npy((2,), "<U1", "ab".encode("utf-32-le")))
        file.writestr("features.npy", array)
    refused(path, "no embeddings can be read")


def test_a_long_table_of_contents_is_not_read(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(20_000):
            file.writestr(f"{i:0200}", b"")
    refused(path, "table of contents is longer")
    whole = written(path).read_bytes()
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 3, 3, 2**40, 0)
    for at, said in ((len(whole) - 22, "longer"), (0, "not at its end")):
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
        path.write_bytes(whole[:-22] + record + locator + whole[-22:])
        refused(path, said)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_whatever_changes_in_a_file_is_noticed(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = written(tmp_path / f"a{suffix}")
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    first = embedding_file.read_embeddings(path)
    found = 0
    for at in rng.integers(0, len(whole), 80):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            known = embedding_file.read_embeddings(path)
        except UserError:
            found += 1
            continue
        # What no reader looks at, such as the time at which an archive was made.
        np.testing.assert_array_equal(known.features, first.features)
        assert known.names.tolist() == first.names.tolist() and known.about == first.about
    assert found > 60


def test_an_npz_of_more_than_two_gibibytes_is_read(tmp_path, monkeypatch):
    """Its table of contents has another form, which a lower limit brings about here."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    path = written(tmp_path / "a.npz")
    assert b"PK\6\7" in path.read_bytes()
    monkeypatch.undo()
    assert embedding_file.read_embeddings(path).features.shape == (100, 64)


def test_columns_are_not_expanded(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, count = tmp_path / "a.parquet", 2**17
    flat = pa.array(np.zeros(count * 256, np.float32))
    names = pa.array(["x"] * count)
    table = pa.table({"name": names, "features": pa.FixedSizeListArray.from_arrays(flat, 256)})
    parquet.write_table(table, path)
    del table, flat
    assert path.stat().st_size < 2**20  # of 128 MiB
    before = pa.default_memory_pool().bytes_allocated()
    refused(path, "it would take 1.* bytes, too many for embeddings in a file of its length")
    assert pa.default_memory_pool().bytes_allocated() - before < 2**20
    long = pa.array(["x" * 2**20] * 500).dictionary_encode()
    parquet.write_table(pa.table({"name": long, "features": [[1.0]] * 500}), path)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    names = embedding_file.read_embeddings(path).names
    assert len(names[0]) == 2**20 and tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_a_link_in_the_place_of_the_output_is_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a.npz").symlink_to(victim)
    written(tmp_path / "a.npz")
    assert victim.read_text() == "mine" and not (tmp_path / "a.npz").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "victim"]


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    path = written(tmp_path / "a.npz")
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="a.npz: cannot be written .No space left"):
        written(path, count=7)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
