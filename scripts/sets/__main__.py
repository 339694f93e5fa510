"""bash scripts/sets.sh NAME FOLDER: makes a set; without arguments: lists the sets."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

from simsiam_tf.runtime.errors import UserError, nearest

from .packages import Packages
from .set_file import FILE, Picture, write_set

ABOUT = "ABOUT.txt"


@dataclasses.dataclass(frozen=True)
class SetRow:
    """A row of `SETS`; its module has make(packages, folder) → rows of set.csv.

    licence: what ABOUT.txt says beside the licences of the packages.
    """

    images: int
    needs: str
    title: str
    licence: str = ""


SETS = {
    "emoji": SetRow(
        15_000, "npm", "emoji as four vendors draw them: category, and the same emoji of another vendor",
        "The drawings belong to Apple, Google, Twitter and Facebook, and each vendor has its own terms; the "
        "packages' licence is that of their code.",
    ),
    "icons": SetRow(
        5_000, "apt-get", "icons of five themes: context of use, and the icon of that name in another theme"
    ),
    "glyphs": SetRow(
        7_500, "apt-get", "characters in 80 fonts, a quarter of them held out: character, across families"
    ),
    "fashion_mnist": SetRow(70_000, "apt-get", "Fashion-MNIST as files: class of the test images"),
    "stamps": SetRow(
        800, "apt-get", "photographs and drawings of things, of Tux Paint: kind, among other things"
    ),
    "photographs": SetRow(600, "apt-get", "two crops of each photograph, far apart: the other crop"),
    "digits": SetRow(
        1_797, "nothing", "scikit-learn's digits as files: class of the test images",
        "The digits come with scikit-learn (BSD-3-Clause).",
    ),
}  # fmt: skip


def listing() -> str:
    """The sets, one a line."""
    lines = [f"  {'NAME':<14}{'pictures':>9}  {'needs':<8}", *(
        f"  {name:<14}{row.images:>9,}  {row.needs:<8}{row.title}" for name, row in SETS.items()
    )]  # fmt: skip
    return "\n".join(["bash scripts/sets.sh NAME FOLDER [--downloads=FOLDER]", "", *lines])


def make_set(name: str, folder: Path, downloads: Path | None = None) -> list[Picture] | None:
    """Makes a set in a temporary folder beside `folder`, which then takes its name; None: it was made before.

    Raises:
        UserError: an unknown name, a folder that holds something else, a package that cannot be brought.
    """
    if name not in SETS:
        raise UserError(f"{name}: no such set.{nearest(name, SETS)}")
    if (folder / FILE).is_file():
        if (folder / ABOUT).read_text(encoding="utf-8").partition(":")[0] != name:
            raise UserError(f"{folder}: holds another set. Choose another folder.")
        return None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and holds no set. Choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-unfinished-", dir=folder.parent))
    try:
        packages = Packages(work / "packages", downloads or work / "downloads")
        whole = work / "set"
        whole.mkdir()
        pictures = importlib.import_module(f".{name}", __package__).make(packages, whole)
        (whole / ABOUT).write_text(about(name, pictures, packages), encoding="utf-8")
        if (packages.unpacked / "licences").is_dir():
            shutil.copytree(packages.unpacked / "licences", whole / "licences")
        write_set(whole, pictures)
        whole.replace(folder)
    finally:
        shutil.rmtree(work)
    return pictures


def about(name: str, pictures: list[Picture], packages: Packages) -> str:
    """The text of ABOUT.txt: packages, versions, licences."""
    row = SETS[name]
    lines = [
        f"{name}: {row.title}",
        "",
        f"{len(pictures):,} pictures, made by: bash scripts/sets.sh {name} FOLDER",
    ]
    lines += ["docs/sets.md says what set.csv holds.", "", "Packages, versions, licences:"]
    lines += [f"  {p.name} {p.version}: {p.licence}" for p in packages.used.values()]
    return "\n".join([*lines, *(["", row.licence] if row.licence else []), ""])


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"-h", "--help"} & set(argv):
        print(listing())
        return 0
    parser = argparse.ArgumentParser(
        prog="sets.sh", usage="bash scripts/sets.sh NAME FOLDER [--downloads=FOLDER]"
    )
    parser.add_argument("name", help="a name that bash scripts/sets.sh lists")
    parser.add_argument("folder", type=Path, help="the set's folder; it must not exist, or be empty")
    parser.add_argument("--downloads", type=Path, help="keeps the packages' archives, and takes those in it")
    args = parser.parse_args(argv)
    try:
        pictures = make_set(args.name, args.folder.absolute(), args.downloads and args.downloads.absolute())
    except (UserError, OSError) as error:
        print(f"sets.sh: {error}", file=sys.stderr)
        return 2
    print(f"{args.folder}: {f'{len(pictures):,} pictures' if pictures else 'made already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
