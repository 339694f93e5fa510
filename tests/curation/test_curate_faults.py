"""Pictures and places that curate cannot use are named early, and cost no other answer."""

import csv

import numpy as np
import pytest
from PIL import Image

from simsiam_tf import curate
from simsiam_tf.curation import picture_scan, run_curation
from simsiam_tf.features.embedding_file import Embeddings, write_embeddings


@pytest.fixture
def place(tmp_path):
    """A folder of 20 pictures, one of a long name, and their features."""
    rng = np.random.default_rng(0)
    names = np.array([*(f"{i:02}.png" for i in range(19)), "é" * 124 + ".jpeg"], object)
    (tmp_path / "images").mkdir()
    for name in names:
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).save(tmp_path / "images" / name)
    save(tmp_path, names, rng.standard_normal((20, 6)))
    return tmp_path


def save(place, names, features):
    about = {"data": f"folder:{place / 'images'}"}
    write_embeddings(Embeddings(names, features.astype(np.float32), about), place / "e.npz")


def run(place, *flags):
    argv = [f"--embeddings={place / 'e.npz'}", f"--out={place / 'out'}", "--nopage", "--clusters=2", *flags]
    return curate.main(argv)


def test_a_picture_that_vanishes_during_the_scan_is_left_out(place, monkeypatch, capsys):
    watch, have = picture_scan.verified_source, place / "have.txt"
    have.write_text("03.png\n19.png\n05.png\n")

    def vanishing(source, changed):
        (place / "images" / "04.png").unlink(missing_ok=True)
        return watch(source, changed)

    monkeypatch.setattr(picture_scan, "verified_source", vanishing)
    assert run(place, "--subset=18", f"--have={have}") == 0
    assert "1 of 20 images left out, which changed or disappeared" in capsys.readouterr().err
    names = [line.split(",")[0] for line in (place / "out" / "pictures.csv").read_text().splitlines()[1:]]
    assert len(names) == 19 and "04.png" not in names
    subset = {line.split(",")[1] for line in (place / "out" / "subset.csv").read_text().splitlines()[1:]}
    assert subset == set(names) - {"03.png", "05.png"}


def test_a_folder_of_other_files_is_refused_before_tensorflow_is_loaded(place, monkeypatch, capsys):
    monkeypatch.setattr(curate.cli, "heavy_imports", None)
    assert run(place, f"--out={place}") == 2
    assert f"--out={place}: holds other files. Choose a new folder." in capsys.readouterr().err


def test_names_of_folders_are_labels_of_all_pictures_or_of_none(place, capsys):
    """A subset is of loose pictures and those in folders, none of which counts as labelled."""
    pictures = sorted((place / "images").iterdir())
    for folder, some in ("2023", pictures[:8]), ("2024", pictures[8:16]):
        (place / "images" / folder).mkdir()
        for path in some:
            path.rename(path.parent / folder / path.name)
    names = sorted(str(p.relative_to(place / "images")) for p in (place / "images").rglob("*.*"))
    save(place, np.array(names, object), np.random.default_rng(0).standard_normal((20, 6)))
    for flags in [], [f"--data=folder:{place / 'images'}"]:
        assert run(place, "--subset=18", "--overwrite", *flags) == 0
        said = capsys.readouterr()
        assert "labelled already: 0 of 20\n" in said.out and "suspects" not in said.out
        assert "no labels" in said.err
        chosen = [line.split(",")[1] for line in (place / "out" / "subset.csv").read_text().splitlines()[1:]]
        assert len(chosen) == 18 and any("/" in name for name in chosen)


def test_central_pictures_with_commas_in_their_names_are_told_apart(place):
    (place / "images" / "00.png").rename(place / "images" / "a, b.png")
    names = np.array([*(f"{i:02}.png" for i in range(1, 19)), "a, b.png", "é" * 124 + ".jpeg"], object)
    features = np.random.default_rng(0).standard_normal((20, 6))
    features[-2:] = [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0.1]
    features[:-2, 0] = -9
    save(place, names, features)
    assert run(place) == 0
    with open(place / "out" / "clusters.csv", newline="", encoding="utf-8") as file:
        large, small = csv.DictReader(file)
    columns = [f"central_{place}" for place in (1, 2, 3)]
    assert len({large[column] for column in columns} - {""}) == 3
    assert {small[column] for column in columns} == {"a, b.png", names[-1], ""}


def test_on_bad_image_error_ends_with_what_to_type(place, monkeypatch, capsys):
    watch = picture_scan.verified_source
    monkeypatch.setattr(
        picture_scan, "verified_source",
        lambda source, changed: ((place / "images" / "04.png").unlink(), watch(source, changed))[1],
    )  # fmt: skip
    assert run(place, f"--data=folder:{place / 'images'}", "--on_bad_image=error") == 2
    assert "such as 04.png. Pass --on_bad_image=skip" in capsys.readouterr().err


def test_a_picture_without_features_is_named_before_the_scan(place, monkeypatch, capsys):
    features = np.eye(20)
    features[4] = 0
    save(place, np.array([f"{i:02}.png" for i in range(20)], object), features)
    (place / "images" / "19.png").write_bytes((place / "images" / "00.png").read_bytes())
    monkeypatch.setattr(run_curation, "scan_pictures", None)
    assert run(place) == 2
    assert "row 4 (04.png) is all zeros" in capsys.readouterr().err
    other = Embeddings(np.arange(20).astype(str).astype(object), np.eye(20)[::-1] * np.arange(20), {})
    write_embeddings(other, place / "other.npz")
    save(place, np.array([f"{i:02}.png" for i in range(20)], object), np.eye(20))
    assert run(place, f"--against={place / 'other.npz'}") == 2
    assert f"--against={place / 'other.npz'}: `features`: row 19 (19) is all" in capsys.readouterr().err


def test_long_names_are_cut_in_links(place):
    assert run(place, f"--link={place / 'links'}") == 0
    links = [path for path in (place / "links" / "outliers").iterdir() if path.name.endswith("é.jpeg")]
    assert len(links) == 1 and len(links[0].name.encode()) > 240 and links[0].exists()


@pytest.mark.parametrize("link", ["/proc/links", "{place}/images/00.png/links"])
def test_a_place_without_room_for_links_is_refused_first(place, monkeypatch, capsys, link):
    link = link.format(place=place)
    assert run(place, f"--link={link}") == 2 and not (place / "out").exists()
    assert f"--link={link}: cannot be written" in capsys.readouterr().err
