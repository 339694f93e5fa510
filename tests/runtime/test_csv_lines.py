"""CSV files give back what was written, in lines that end in \\n."""

import csv
import io

import numpy as np

from simsiam_tf.config.places import list_rows
from simsiam_tf.curation import answer_files
from simsiam_tf.features import neighbour_table
from simsiam_tf.runtime.csv_lines import csv_writer

NAMES = ["a\rb.png", 'c\r\n"d", e.png', "plain.png", "f\ng.png"]


def test_values_with_any_line_end_are_quoted():
    text = io.StringIO(newline="")
    csv_writer(text).writerows([["path"], *([name] for name in NAMES)])
    assert [row["path"] for row in list_rows(text.getvalue())] == NAMES
    assert text.getvalue().startswith("path\n") and "plain.png\n" in text.getvalue()


def test_lists_and_tables_keep_names_of_several_lines(tmp_path):
    answer_files.write_table(tmp_path, "x", {"path": np.array(NAMES, object)})
    assert [row["path"] for row in list_rows((tmp_path / "x.csv").read_bytes().decode())] == NAMES
    rows = np.arange(4)[:, None]
    neighbour_table.write_table(tmp_path / "n.csv", NAMES, np.array(NAMES, object), rows * 0.1, rows)
    with open(tmp_path / "n.csv", newline="") as file:
        assert [(row["query"], row["name"]) for row in csv.DictReader(file)] == [
            *zip(NAMES, NAMES, strict=True)
        ]
