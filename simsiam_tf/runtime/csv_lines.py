"""Rows of CSV files."""

from __future__ import annotations

import csv
from typing import Any, TextIO


def csv_writer(file: TextIO) -> Any:
    r"""A csv.writer of lines that end in \n, which quotes values with \r or \n."""
    # NOTE: before Python 3.13, csv.writer quotes a value for the characters of its own line end alone.
    return csv.writer(_Lines(file), lineterminator="\r\n")


class _Lines:
    r"""Writes each line with \n in the place of its \r\n."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")
