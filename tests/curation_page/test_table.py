"""The Parquet table has the columns, types and values that embedding-atlas and FiftyOne read."""

import numpy as np
import pytest
from test_page import content

from simsiam_tf.curation_page import Categories, Numbers, table, write_table

parquet = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


def test_columns_types_and_values(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "BLOCK", 2)  # rows of a row group
    near = np.array([[1, 2], [0, -1], [0, 1]])
    cosines = np.array([[0.9, 0.75], [0.5, np.nan], [1, -1]])
    columns = [
        Categories("Label", np.array([1, -1, 0]), ["cat", "dog\udce9"]),
        Numbers("Outlier score", np.array([0.5, np.nan, 2])), Numbers("X", np.arange(3)),
    ]  # fmt: skip
    lists = ["/p/0", "/p/\udcff", "/p/2"]
    shown = content(3, columns=columns, neighbours=near, cosines=cosines, list_names=lists)
    file = parquet.ParquetFile(write_table(shown, tmp_path / "curation.parquet"))
    given = file.read()
    assert file.num_row_groups == 2
    assert {f.name: str(f.type) for f in given.schema} == {
        "name": "string", "filepath": "string", "x": "float", "y": "float",
        "neighbours": "struct<ids: list<element: int64>, distances: list<element: float>>",
        "label": "string", "outlier_score": "double", "x_": "double",
    }  # fmt: skip
    rows = given.to_pydict()
    assert rows["name"] == ["0.png", "1.png", "2.png"] and rows["filepath"] == ["/p/0", "/p/\\xff", "/p/2"]
    np.testing.assert_allclose(np.stack([rows["x"], rows["y"]], axis=1), shown.points, rtol=1e-6)
    assert [row["ids"] for row in rows["neighbours"]] == [[1, 2], [0], [0, 1]]
    distances = [row["distances"] for row in rows["neighbours"]]
    np.testing.assert_allclose(np.concatenate(distances), [0.1, 0.25, 0.5, 0, 2], atol=1e-6)
    assert rows["label"] == ["dog\\xe9", None, "cat"] and rows["outlier_score"] == [0.5, None, 2]


def test_tables_without_neighbours_or_rows(tmp_path):
    given = parquet.read_table(write_table(content(2), tmp_path / "a.parquet"))
    assert given.column_names == ["name", "filepath", "x", "y"]
    assert parquet.read_table(write_table(content(0), tmp_path / "b.parquet")).num_rows == 0
    with pytest.raises(ValueError, match="must differ"):
        columns = [Numbers("a b", np.zeros(2)), Numbers("A-B", np.zeros(2))]
        write_table(content(2, columns=columns), tmp_path / "c")
    assert not (tmp_path / "c").exists()
