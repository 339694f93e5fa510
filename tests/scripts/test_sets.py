"""scripts/sets.sh: the rows of each set, from tiny packages, and sets that are never half-made."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from scripts.sets import __main__ as sets
from scripts.sets import emoji, glyphs, icons, packages, photographs, stamps
from scripts.sets.set_file import FILE, Picture, read_set, write_set
from simsiam_tf.data import open_source
from simsiam_tf.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
# Codes: one with a skin tone; one without; a variant of that one, which a single vendor draws.
WAVE, CAT, NEW = "1F44B", "1F408", "1F408-200D-2B1B"


class Unpacked:
    """Packages that lie unpacked in folders named like them."""

    def __init__(self, root):
        self.root = root

    def npm(self, name, wanted=None):
        return self.root / name

    debian = npm


def save(path, colour=(200, 30, 30, 255), size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, colour).save(path)


def npm_archives(folder):
    """Archives as `npm pack` writes them, of the four vendors; NEW is drawn by apple alone."""
    for vendor, shade in zip(emoji.VENDORS, (10, 60, 110, 160), strict=True):
        package = folder / "trees" / vendor / "package"
        rows = []
        for code, category in ((WAVE, "People"), (CAT, "Animals"), (NEW, "Animals")):
            drawn = {f"has_img_{name}": code != NEW or name == "apple" for name in emoji.VENDORS}
            row = {"unified": code, "category": category, "image": f"{code.lower()}.png", **drawn}
            if code == WAVE:
                tone = {"unified": f"{code}-1F3FB", "image": f"{code.lower()}-1f3fb.png", **drawn}
                row["skin_variations"] = {"1F3FB": tone}
                save(package / f"img/{vendor}/64/{tone['image']}", (shade, 9, 9, 255))
            save(package / f"img/{vendor}/64/{row['image']}", (shade, len(rows), 0, 255))
            rows.append(row)
        save(package / f"img/{vendor}/sheets/64.png")
        (package / "emoji.json").write_text(json.dumps(rows))
        (package / "package.json").write_text(json.dumps({"version": "16.0.0", "license": "MIT"}))
        with tarfile.open(folder / f"emoji-datasource-{vendor}-16.0.0.tgz", "w:gz") as tar:
            tar.add(package, "package")
    shutil.rmtree(folder / "trees")


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A folder of npm's archives; npm itself is missing."""
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    (tmp_path / "downloads").mkdir()
    npm_archives(tmp_path / "downloads")
    return tmp_path / "downloads"


def test_emoji_of_four_vendors_are_one_object_and_skin_tones_none(tmp_path, downloads):
    made = sets.make_set("emoji", tmp_path / "emoji", downloads)
    rows = read_set(tmp_path / "emoji")
    assert made is not None and sorted(made, key=lambda row: row.path) == rows
    assert len(rows) == 4 * 3 + 1
    assert [row for row in rows if row.domain == "apple"] == [
        Picture("apple/1f408-200d-2b1b.png", "Animals", CAT, NEW, "apple"),
        Picture("apple/1f408.png", "Animals", CAT, CAT, "apple"),
        Picture("apple/1f44b-1f3fb.png", "People", WAVE, "", "apple"),
        Picture("apple/1f44b.png", "People", WAVE, WAVE, "apple"),
    ]
    with Image.open(tmp_path / "emoji/google/1f408.png") as image:
        assert image.getpixel((0, 0)) == (60, 1, 0, 255)  # google's, not another vendor's
    about = (tmp_path / "emoji" / sets.ABOUT).read_text()
    assert "emoji-datasource-apple 16.0.0: MIT" in about and "belong to Apple" in about


def test_only_files_that_a_set_takes_are_unpacked(tmp_path, downloads):
    packed = packages.Packages(tmp_path / "unpacked", downloads)
    emoji.make(packed, tmp_path / "set")
    assert not list(packed.unpacked.rglob("sheets"))


def test_data_takes_a_set_as_a_list(tmp_path, downloads):
    sets.make_set("emoji", tmp_path / "emoji", downloads)
    source = open_source(f"list:{tmp_path}/emoji/{FILE}")
    assert source.size == 13 and source.class_names == ("Animals", "People")
    assert np.bincount(source.labels).tolist() == [5, 8]


def test_a_finished_set_is_not_made_again_nor_replaced_by_another(tmp_path, downloads):
    sets.make_set("emoji", tmp_path / "emoji", downloads)
    shutil.rmtree(downloads)
    assert sets.make_set("emoji", tmp_path / "emoji", downloads) is None
    with pytest.raises(UserError, match="holds another set"):
        sets.make_set("icons", tmp_path / "emoji", downloads)


def test_a_half_made_set_is_not_taken_as_whole(tmp_path, downloads, monkeypatch, capsys):
    folder = tmp_path / "sets" / "emoji"
    seen = []

    def interrupted(made, where):
        seen.extend(sorted(p.name for p in folder.parent.iterdir()))
        assert emoji_make(made, where) and not folder.exists()
        raise OSError(28, "No space left on device")

    emoji_make = emoji.make
    monkeypatch.setattr(emoji, "make", interrupted)
    assert sets.main(["emoji", str(folder), f"--downloads={downloads}"]) == 2
    assert capsys.readouterr().err == "sets.sh: [Errno 28] No space left on device\n"
    assert len(seen) == 1 and seen[0].startswith(".emoji-unfinished-")
    assert list(folder.parent.iterdir()) == []  # nothing that a rerun, or a reader, could take for the set
    monkeypatch.undo()
    assert sets.main(["emoji", str(folder), f"--downloads={downloads}"]) == 0
    assert len(read_set(folder)) == 13


def test_a_folder_with_other_files_is_left_alone(tmp_path, downloads):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists and holds no set"):
        sets.make_set("emoji", tmp_path / "mine", downloads)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["photo.png"]


def test_a_damaged_archive_is_named_in_one_line(tmp_path, downloads):
    archive = downloads / "emoji-datasource-google-16.0.0.tgz"
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(UserError, match=r"google-16.0.0.tgz: cannot be unpacked .*Remove it and rerun"):
        sets.make_set("emoji", tmp_path / "emoji", downloads)
    assert not (tmp_path / "emoji").exists()


def program(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_download_that_fails_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    script = (
        "echo cut > emoji-datasource-apple-1.tgz; echo npm error code E404 >&2; echo npm notice >&2; exit 1"
    )
    program(tmp_path / "bin" / "npm", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(UserError) as error:
        packages.Packages(tmp_path / "unpacked", tmp_path / "kept").npm("emoji-datasource-apple")
    assert str(error.value) == "`npm pack emoji-datasource-apple` failed: npm error code E404."
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_missing_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="`npm pack x`: needs npm"):
        packages.Packages(tmp_path / "unpacked", tmp_path / "kept").npm("x")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_debian_packages_are_unpacked_with_version_and_licence(tmp_path):
    tree = tmp_path / "tree"
    control = (
        "Package: pics",
        "Version: 2:1.0-3",
        "Architecture: all",
        "Maintainer: a <a@b.c>",
        "Description: x",
    )
    for name, text in {
        "DEBIAN/control": "\n".join([*control, ""]),
        "usr/share/doc/pics/copyright": "CC0",
        "usr/share/pics/one.txt": "1",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tmp_path / "kept").mkdir()
    archive = tmp_path / "kept" / "pics_2%3a1.0-3_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, archive], check=True, capture_output=True)
    packed = packages.Packages(tmp_path / "unpacked", tmp_path / "kept")
    assert (packed.debian("pics") / "usr/share/pics/one.txt").read_text() == "1"
    assert packed.used["pics"].version == "2:1.0-3"
    assert (packed.unpacked / packed.used["pics"].licence).read_text() == "CC0"


def test_icons_of_one_name_are_one_object_and_copies_none(tmp_path):
    def file(theme, context, name):
        package, pattern = icons.THEMES[theme]
        return tmp_path / package / pattern.format(context=context).replace("*", name)

    save(file("oxygen", "places", "home"), (1, 0, 0, 255))
    save(file("oxygen", "actions", "undo"), (2, 0, 0, 255))
    save(file("oxygen", "actions", "copy"), (3, 0, 0, 255))
    save(file("gnome", "places", "user-home"), (4, 0, 0, 255))
    file("gnome", "places", "home").symlink_to("user-home.png")
    save(file("gnome", "actions", "copy"), (3, 0, 0, 255))  # the pixels of oxygen's
    save(file("elementary", "mimes", "text"), (5, 0, 0, 255))
    save(file("elementary", "mimes", "text-symbolic"), (6, 0, 0, 255))
    save(file("paper", "actions", "edit-undo"), (7, 0, 0, 255))
    save(file("paper", "actions", "undo"), (7, 0, 0, 255))  # a copy within the theme: a second name
    rows = icons.make(Unpacked(tmp_path), tmp_path / "set")
    assert sorted(rows, key=lambda row: row.path) == [
        Picture("elementary/mimetypes/text.png", "mimetypes", "text", "", "elementary"),
        Picture("gnome/places/user-home.png", "places", "home", "home", "gnome"),
        Picture("oxygen/actions/copy.png", "actions", "copy", "", "oxygen"),
        Picture("oxygen/actions/undo.png", "actions", "undo", "undo", "oxygen"),
        Picture("oxygen/places/home.png", "places", "home", "home", "oxygen"),
        Picture("paper/actions/edit-undo.png", "actions", "undo", "undo", "paper"),
    ]
    assert all((tmp_path / "set" / row.path).is_file() for row in rows)


def test_stamps_of_one_first_word_are_one_group(tmp_path):
    root = tmp_path / stamps.PACKAGE / stamps.STAMPS
    for name in ("animals/cats/lion", "animals/lion-2", "animals/dog_mirror", "symbols/005nickel"):
        save(root / f"{name}.png")
    (tmp_path / "set").mkdir()
    assert stamps.make(Unpacked(tmp_path), tmp_path / "set") == [
        Picture("animals/cats/lion.png", "animals", "animals/lion"),
        Picture("animals/lion-2.png", "animals", "animals/lion"),
        Picture("symbols/005nickel.png", "symbols", "symbols/005nickel"),
    ]


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (60, 60), (240, 20)])
def test_crops_of_a_photograph_are_a_third_of_it_apart(size):
    width, height = size
    along = np.arange(max(size), dtype=np.uint8)  # each pixel is its place along the longer side
    pixels = np.broadcast_to(along if width >= height else along[:, None], (height, width))
    first, second = map(np.asarray, photographs.opposite_crops(Image.fromarray(pixels.copy())))
    side = min(*size, max(size) // 3)
    assert first.shape == second.shape == (side, side)
    assert (first.min(), second.max()) == (0, max(size) - 1)
    assert int(second.min()) - int(first.max()) - 1 >= max(size) / 3


def test_photographs_have_two_crops_of_one_object(tmp_path):
    land = tmp_path / "endless-sky-data/usr/share/games/endless-sky/images/land"
    images = tmp_path / "plasma-workspace-wallpapers/usr/share/wallpapers/Path/contents/images"
    for file in (land / "sea.png", images / "9x5.png", images / "90x50.png"):
        save(file, size=(9, 5))
    (land / "sea.png").rename(land / "sea.jpg")
    (tmp_path / "set").mkdir()
    rows = photographs.make(Unpacked(tmp_path), tmp_path / "set")
    objects = ("endless-sky-data/sea", "plasma-workspace-wallpapers/Path")
    assert rows == [Picture(f"{name}-{end}.png", object=name) for name in objects for end in photographs.ENDS]
    assert all((tmp_path / "set" / row.path).is_file() for row in rows)


def test_glyphs_stand_on_one_line_and_missing_ones_are_left_out():
    font = ImageFont.load_default(size=glyphs.SIZE)
    x, comma = (np.asarray(glyphs.draw(font, character)) for character in "x,")
    dark_rows = [np.flatnonzero((image < 128).any(axis=1)) for image in (x, comma)]
    assert x.shape == (glyphs.SIDE, glyphs.SIDE)
    assert dark_rows[0].max() + 1 == glyphs.BASELINE < dark_rows[1].max()
    assert glyphs.draw(font, "\ufffe") is None and glyphs.draw(font, " ") is None


def test_families_of_the_test_fonts_are_not_trained_on():
    assert not glyphs.TRAIN.keys() & glyphs.TEST.keys()
    assert not {p for p, _ in glyphs.TRAIN.values()} & {p for p, _ in glyphs.TEST.values()}


def test_digits_keep_their_classes_and_splits(tmp_path):
    sets.make_set("digits", tmp_path / "digits")
    for split, count in (("train", 1437), ("test", 360)):
        files, arrays = (open_source(f, split) for f in (f"list:{tmp_path}/digits/{FILE}", "digits"))
        assert files.size == arrays.size == count
        assert files.labels.tolist() == arrays.labels.tolist()
        assert np.array_equal(files.decode(7).numpy(), arrays.decode(7).numpy())


def test_rows_survive_the_file_with_any_character(tmp_path):
    rows = [Picture(f"u{ord(c):04x}.png", c, c, c, 'a, "b"', "test") for c in ",\"'#;"]
    write_set(tmp_path, rows)
    assert read_set(tmp_path) == sorted(rows, key=lambda row: row.path)


def test_the_script_lists_the_sets():
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "sets.sh"], capture_output=True, text=True, timeout=60, cwd="/",
        env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in sets.SETS)
