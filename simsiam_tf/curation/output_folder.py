"""The folder that `curate` writes into: checks it, and removes the files of an earlier run."""

from __future__ import annotations

import re
from pathlib import Path

from simsiam_tf.curation_page.thumbnails import remove_other_thumbnails
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.errors import UserError

PAGE, PAGE_TABLE = "curation.html", "curation.parquet"
SUMMARY = "summary.txt"  # written last
CACHE = ".curate_cache"  # folder of the scans of pictures; marks a folder that `curate` wrote
TABLES = ("pictures", "duplicates", "outliers", "clusters", "subset", "suspects", "leaks")


def check_output(out: Path, overwrite: bool) -> None:
    """Raises UserError where `out` holds other files or, without `overwrite`, earlier answers."""
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out}: is not a folder. Choose another.")
    if out.is_dir() and any(out.iterdir()):
        if not (out / CACHE).is_dir():
            raise UserError(f"out={out}: holds other files. Choose a new folder.")
        if (out / SUMMARY).exists() and not overwrite:
            raise UserError(
                f"out={out}: has the answers of an earlier run. Pass `overwrite`, or choose another."
            )
    check_writable(out / SUMMARY, folders=True)


def remove_earlier(out: Path) -> None:
    """Removes the files of an earlier run, the summary first."""
    for name in (SUMMARY, PAGE, PAGE_TABLE):
        (out / name).unlink(missing_ok=True)
    remove_other_thumbnails(out / PAGE, "")
    for name in TABLES:
        for suffix in (".csv", ".parquet"):
            (out / f"{name}{suffix}").unlink(missing_ok=True)
    for path in out.glob("lists/*.csv"):
        if is_list_name(path.stem):
            path.unlink()


def is_list_name(name: str) -> bool:
    """Whether `curate` writes a list of this name."""
    return name.removeprefix("without_") in TABLES or re.fullmatch(r"cluster_\d{2,}", name) is not None
