"""The table of a set, FOLDER/set.csv: a row for each picture, with its label, object, domain and split."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

FILE = "set.csv"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of set.csv. `--data=list:FOLDER/set.csv` reads path, label and split.

    path: the picture's file, relative to the folder.
    label: class of the picture. The category question predicts it by kNN.
    group: pictures of one group do not vote for each other in the category question; "": no group.
    object: what the picture shows. The pair question is whether the nearest picture of another domain shows
        the same object; "": not asked of this picture.
    domain: vendor, theme or font. "": the nearest of the other pictures without a domain is taken instead.
    split: "train", or "test" for pictures that are held out from pre-training.
    """

    path: str
    label: str = ""
    group: str = ""
    object: str = ""
    domain: str = ""
    split: str = "train"


COLUMNS = tuple(field.name for field in dataclasses.fields(Picture))


def write_set(folder: Path, pictures: Sequence[Picture]) -> None:
    """Writes FOLDER/set.csv, ordered by path."""
    with open(folder / FILE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(dataclasses.astuple(p) for p in sorted(pictures, key=lambda p: p.path))


def read_set(folder: Path) -> list[Picture]:
    """Reads FOLDER/set.csv. Raises OSError where it is missing, ValueError where a column is."""
    with open(folder / FILE, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{folder / FILE}: has no column {', '.join(sorted(missing))}.")
        return [Picture(**{name: row[name] for name in COLUMNS}) for row in reader]
