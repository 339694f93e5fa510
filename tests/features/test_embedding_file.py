"""Embedding files: those of other tools are read, invalid ones get one line, numbers are preserved."""

import re

import numpy as np
import pytest
from helpers import small_backbones

from simsiam_tf import neighbours
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.features import embedding_file, query
from simsiam_tf.runtime.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATIONS["cifar"], channels=3))


def test_features_that_a_dtype_cannot_hold_are_not_written(tmp_path):
    features = np.ones([3, 4], np.float32)
    for wrong in (1e6, 1e-9):  # which float16 makes infinite, or nothing
        features[1] = wrong
        known = embedding_file.Embeddings(np.array(["a", "b", "c"]), features, {})
        with pytest.raises(UserError, match=re.escape(f"features of b, whose largest is {wrong:.3g}.")):
            embedding_file.write_embeddings(known, tmp_path / "a.npz", "float16")
        assert not list(tmp_path.iterdir())
        embedding_file.write_embeddings(known, tmp_path / "a.npz")
        np.testing.assert_array_equal(embedding_file.read_embeddings(tmp_path / "a.npz").features, features)
        (tmp_path / "a.npz").unlink()


def test_cosines_do_not_depend_on_the_length_of_features():
    directions = np.random.default_rng(0).normal(size=(5, 8))
    lengths = np.array([1e-30, 1e-9, 1, 1e9, 1e30])[:, None]
    expected = directions @ directions[0] / np.linalg.norm(directions, axis=1) / np.linalg.norm(directions[0])
    for dtype in (np.float64, np.float32):
        known = embedding_file.Embeddings(np.array(list("abcde")), (lengths * directions).astype(dtype), {})
        found = dict(known.neighbours(known.features[0], k=5))
        np.testing.assert_allclose([found[name] for name in "abcde"], expected, atol=1e-6)
    for wrong in (np.zeros(8), np.full(8, np.nan), np.ones(7)):
        with pytest.raises(UserError, match="the query's features"):
            known.neighbours(wrong)


def foreign(folder, suffix, **arrays):
    """A file as another tool would write it."""
    path = folder / f"foreign{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {"name": list(arrays["names"]), "features": list(map(list, arrays["features"]))}
        parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("kind", [str, bytes, int])
def test_embeddings_of_other_tools_are_read(weights, tmp_path, capsys, suffix, kind):
    features = np.random.default_rng(0).normal(size=(20, 64))
    made = [str(i) if kind is int else f"{i}.jpg" for i in range(20)]
    raw = np.array([name.encode() if kind is bytes else kind(name) for name in made])
    path = foreign(tmp_path, suffix, names=raw, features=features)
    assert neighbours.main([f"--embeddings={path}", f"--query={made[7]}", "--k=1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"   1.000  {made[7]}"
    known = embedding_file.read_embeddings(path)
    with pytest.raises(UserError, match="`weights`: missing, and the embeddings do not say"):
        query.open_backbone(known)
    assert query.open_backbone(known, weights).features == 64  # as its card says


def test_features_of_an_npz_are_memory_mapped(tmp_path):
    features = np.asfortranarray([[1.0, 2], [3, 4]])
    path = foreign(tmp_path, ".npz", names=np.array(["a", "b"]), features=features)
    known = embedding_file.read_embeddings(str(path))
    assert isinstance(known.features, np.memmap) and isinstance(known.names, np.memmap)
    assert known.features.tolist() == [[1, 2], [3, 4]] and known.names.tolist() == ["a", "b"]


GOOD = {"names": np.array(["a", "b"]), "features": np.ones([2, 3])}
ODD = {  # name → (arrays, what the line says)
    "no features": ({"names": np.array(["a", "b"])}, r"no array \[N, F\] .*, but names \[2\] of text"),
    "whole numbers": ({"a": np.ones([2, 3], int)}, r"but a \[2, 3\] of whole numbers"),
    "two of vectors": ({"a": np.ones([2, 3]), "b": np.ones([2, 4])},
                       r"its features could be any of a, b. Choose one, as in features_column=a\."),
    "two of text": ({"x": np.ones([2, 3]), "a": np.array(["1", "2"]), "b": np.array(["3", "4"])},
                    r"its names could be any of a, b. Choose one, as in names_column=a\."),
    "other counts": ({**GOOD, "names": np.array(["a"])}, r"names of type <U1 and shape \(1,\), features of"),
    "one feature each": ({**GOOD, "features": np.ones(2)}, r"features of type float64 and shape \(2,\)"),
    "no image": ({"names": np.array([], "U3"), "features": np.ones([0, 3])}, "an array of 0 bytes"),
    "no numbers": ({**GOOD, "features": np.ones([2, 0])}, "an array of 0 bytes"),
    "text": ({**GOOD, "features": np.array([["1", "2"], ["3", "4"]])}, "features of type <U1"),
    "complex": ({**GOOD, "features": np.ones([2, 3], complex)}, "not of numbers or text"),
    "NaN": ({**GOOD, "features": np.array([[1, 2], [3, np.nan]])}, "features of b are not all finite"),
    "infinite": ({**GOOD, "features": np.array([[np.inf, 2], [3, 4]])}, "features of a are not all finite"),
    "about a list": ({**GOOD, "about": np.array("[]")}, "no embeddings can be read"),
    "about no JSON": ({**GOOD, "about": np.array("{")}, "no embeddings can be read"),
    "about nested": ({**GOOD, "about": np.array("[" * 100_000)}, "no embeddings can be read"),
    "about a number": ({**GOOD, "about": np.array(3)}, "not a short text"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_invalid_arrays_get_one_line(tmp_path, name):
    arrays, said = ODD[name]
    with pytest.raises(UserError, match=said) as caught:
        embedding_file.read_embeddings(foreign(tmp_path, ".npz", **arrays))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "about",
    [
        {}, {"weights": 3}, {"weights": "x" * 5000}, {"weights": "a\0b"}, {"size": "16"}, {"size": 0},
        {"mean": 3}, {"size": True}, {"mean": [0.5], "std": [0.0]}, {"mean": [0.5, 0.5], "std": [1.0]},
        {"mean": [float("nan")], "std": [1.0]}, {"size": None}, {"mean": [0.5] * 3, "std": [1e400] * 3},
        {"std": ["x"]}, {"sha256": 3},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_preprocessing_gets_one_line(weights, about):
    good = {"weights": weights, "size": 16, "mean": [0.5], "std": [0.25]}
    known = embedding_file.Embeddings(np.array(["a"]), np.ones([1, 64]), {**good, **about})
    if not about:
        augmentation = query.open_backbone(known).augmentation
        assert (augmentation.size, augmentation.mean, augmentation.std) == (16, (0.5,), (0.25,))
        return
    with pytest.raises(UserError) as caught:
        query.open_backbone(known)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1.0, 2.0, 3.0], [4.0]], "not all lists of 2 numbers"),
        ([[1.0, 2.0], None], "rows of 3 numbers|not all lists"),
        ([[1.0, None], [2.0, 3.0]], "not all lists of 2 numbers"),
        ([[1.0, 2.0], [3.0, float("nan")]], "features of b are not all finite"),
        ([["1"], ["2"]], "string>, not lists of numbers"),
        ([[], []], "null>, not lists of numbers"),
    ],
)
def test_invalid_columns_get_one_line(tmp_path, rows, said):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"name": ["a", "b"], "features": rows}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=said):
        embedding_file.read_embeddings(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"name": ["a", None], "features": [[1.0], [2.0]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a name is missing"):
        embedding_file.read_embeddings(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"title": ["a"], "features": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="its features are double, not lists of numbers"):
        embedding_file.read_embeddings(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"title": ["a"], "x": [[1]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column of lists of floating point, but title of string, x of"):
        embedding_file.read_embeddings(tmp_path / "a.parquet")


def test_columns_of_any_name_are_found(tmp_path):
    """The only vectors and the only text; others where they are chosen."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    read = embedding_file.read_embeddings
    np.savez(tmp_path / "a.npz", emb=x, paths=np.array(["a", "b", "c"]), labels=np.arange(3))
    parquet.write_table(
        pa.table({"id": [7, 8, 9], "v": list(x), "path": ["a", "b", "c"]}), tmp_path / "a.parquet"
    )
    for suffix in (".npz", ".parquet"):
        found = read(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(found.features, x)
        assert found.names.tolist() == ["a", "b", "c"] and found.about == {}
    assert read(tmp_path / "a.parquet", names_column="id").names.tolist() == ["7", "8", "9"]
    np.savez(tmp_path / "b.npz", a=x, b=y, c=np.array(["1", "2", "3"]), d=np.array(["4", "5", "6"]))
    parquet.write_table(
        pa.table({"a": list(x), "b": list(y), "c": ["1", "2", "3"], "d": ["4", "5", "6"]}),
        tmp_path / "b.parquet",
    )
    for suffix in (".npz", ".parquet"):
        found = read(tmp_path / f"b{suffix}", "b", "d")
        np.testing.assert_array_equal(found.features, y)
        assert found.names.tolist() == ["4", "5", "6"]
        with pytest.raises(UserError, match="features could be any of a, b.* as in features_column=a"):
            read(tmp_path / f"b{suffix}")
        with pytest.raises(UserError, match="names could be any of c, d.* as in names_column=c"):
            read(tmp_path / f"b{suffix}", "a")
        with pytest.raises(UserError, match="features_column=z: .* has no such column. Choose from a, b"):
            read(tmp_path / f"b{suffix}", "z")


def test_without_names_the_rows_are_numbered(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    x = np.random.default_rng(0).normal(size=(3, 4))
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x)
    parquet.write_table(pa.table({"x": list(x)}), tmp_path / "a.parquet")
    (tmp_path / "names.txt").write_bytes("é.jpg\r\nb c.jpg\nd".encode())
    for suffix in (".npy", ".npz", ".parquet"):
        found = embedding_file.read_embeddings(tmp_path / f"a{suffix}")
        assert found.names.tolist() == ["0", "1", "2"] and found.row("2") == 2
        np.testing.assert_array_equal(found.features, x)
        named = embedding_file.read_embeddings(tmp_path / f"a{suffix}", names=tmp_path / "names.txt")
        assert named.names.tolist() == ["é.jpg", "b c.jpg", "d"] and named.row("b c.jpg") == 1
    assert isinstance(embedding_file.read_embeddings(tmp_path / "a.npy").features, np.memmap)
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="names.txt: has 2 lines, the embeddings 3 rows"):
        embedding_file.read_embeddings(tmp_path / "a.npy", names=tmp_path / "names.txt")
    with pytest.raises(UserError, match="names_column=x: has no effect with embeddings="):
        embedding_file.read_embeddings(tmp_path / "a.npy", names_column="x")
    np.save(tmp_path / "a.npy", x[0])
    with pytest.raises(UserError, match=r"features of type float64 and shape \(4,\)"):
        embedding_file.read_embeddings(tmp_path / "a.npy")
