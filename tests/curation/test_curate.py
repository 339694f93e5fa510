"""The command curate: tables, lists and page of a folder with planted copies, strangers and wrong labels."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
from helpers import small_backbones
from PIL import Image

from simsiam_tf import curate
from simsiam_tf.curation import k_means_clusters, run_curation
from simsiam_tf.curation.answers import Question, answer
from simsiam_tf.curation.picture_set import PictureSet
from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.features.embedding_file import Embeddings, read_embeddings, write_embeddings

COPY, WRONG, STRANGER = "red/copy.png", "blue/07.png", "red/stranger.png"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of 16 red, 16 green and 16 blue pictures, and the pixels of all as embeddings."""
    folder, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    pictures = {}
    for channel, name in enumerate(("red", "green", "blue")):
        for i in range(16):
            pixels = rng.integers(0, 60, (12, 12, 3), np.uint8)
            pixels[..., channel] += 150
            pictures[f"{name}/{i:02}.png"] = pixels
    pictures[COPY] = pictures["red/03.png"]
    pictures[WRONG] = pictures["red/05.png"][::-1]
    pictures[STRANGER] = np.indices((12, 12)).sum(axis=0)[..., None].repeat(3, 2).astype(np.uint8) % 2 * 255
    for name, pixels in pictures.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / name)
    names = np.array(sorted(pictures), object)
    features = np.array([pictures[name].reshape(-1) for name in names], np.float32)
    about = {"data": f"folder:{folder / 'images'}"}
    write_embeddings(Embeddings(names, features - features.mean(axis=0), about), folder / "e.npz")
    return folder


def run(place, out, *flags):
    argv = [f"--embeddings={place / 'e.npz'}", f"--out={out}", "--clusters=3", "--nopage", *flags]
    return curate.main(argv)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_planted_are_found_and_lists_are_sources(place, tmp_path, capsys):
    out = tmp_path / "curated"
    assert run(place, out, "--subset=6") == 0
    said = capsys.readouterr().out
    assert "  subset      6 to label first: typical ones of different groups, by which few" in said
    assert "labelled already: 0 of 50\n" in said and "  clusters    3, of 1" in said
    assert ": 50 pictures\n" in said and "1 copy of 1 picture " in said and "1 with equal pixels" in said
    copies = rows(out / "duplicates.csv")
    assert [(r["name"], r["keep"], r["exact"]) for r in copies] == [(COPY, "red/03.png", "True")]
    assert rows(out / "outliers.csv")[0]["name"] == STRANGER
    found = {r["name"]: (r["label"], r["looks_like"]) for r in rows(out / "suspects.csv")}
    assert found[WRONG] == ("blue", "red")
    clusters = {r["name"]: r["cluster"] for r in rows(out / "pictures.csv")}
    assert clusters[WRONG] == clusters["red/00.png"] != clusters["blue/00.png"]
    kept = open_source(f"list:{out / 'lists' / 'without_duplicates.csv'}")
    assert kept.size == 49 and kept.class_names == ("blue", "green", "red")
    assert open_source(f"list:{out / 'lists' / 'subset.csv'}").size == 6
    table = rows(out / "pictures.csv")[0]
    assert float(table["width"]) == 12 and 0 <= float(table["brightness"]) <= 1


def test_wrong_labels_are_found_where_some_pictures_have_none(place, tmp_path, capsys):
    folder = shutil.copytree(place / "images", tmp_path / "images")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    unlabelled = {name for name in names if name.endswith("9.png")} | {STRANGER}
    labels = {name: "" if name in unlabelled else name.partition("/")[0] for name in names}
    table = folder / "some.csv"
    table.write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in labels.items()))
    assert run(place, tmp_path / "out", f"--data=list:{table}", f"--subset={len(unlabelled)}") == 0
    captured = capsys.readouterr()
    assert f"1 of {len(names) - len(unlabelled)} labels looks wrong" in captured.out
    assert "no labels" not in captured.err
    assert [r["name"] for r in rows(tmp_path / "out" / "suspects.csv")] == [WRONG]
    assert {r["label"] for r in rows(tmp_path / "out" / "pictures.csv") if r["name"] in unlabelled} == {""}
    assert {r["name"] for r in rows(tmp_path / "out" / "subset.csv")} == unlabelled  # the others have labels


def test_no_cluster_is_an_answer(place, tmp_path, capsys):
    assert curate.main([
        f"--embeddings={place / 'e.npz'}", f"--out={tmp_path / 'out'}", "--hdbscan", "--nopage"
    ]) == 0  # fmt: skip
    assert "  clusters    " in capsys.readouterr().out
    clusters = k_means_clusters(np.eye(4), 2)
    none = dataclasses.replace(clusters, size=np.empty(0, int), share=np.empty(0))
    answers = dataclasses.replace(
        answer(PictureSet(np.array(list("abcd"), object), np.eye(4)), Question(clusters=2)), clusters=none
    )
    text = run_curation.summary(
        tmp_path, PictureSet(np.array(list("abcd"), object), np.eye(4)), answers, None, None
    )
    assert "  clusters    0\n" in text and "lists of names" in text


def test_rows_with_labels_are_not_chosen_again(place, tmp_path):
    have, none = tmp_path / "have.txt", tmp_path / "none.txt"
    have.write_text(f"{STRANGER}\nred/00.png\n")
    none.touch()
    named = tmp_path / "named.csv"
    named.write_text(f"name,label\n{STRANGER},red\nred/00.png,red\n")
    assert run(place, tmp_path / "a", "--subset=48", f"--have={have}") == 0
    assert run(place, tmp_path / "b", "--subset=48", f"--have={named}") == 0
    assert rows(tmp_path / "a" / "subset.csv") == rows(tmp_path / "b" / "subset.csv")
    chosen = {r["name"] for r in rows(tmp_path / "a" / "subset.csv")}
    assert len(chosen) == 48 and not chosen & {STRANGER, "red/00.png"}
    assert run(place, tmp_path / "c", "--subset=50", f"--have={none}") == 0


def test_names_of_no_picture_are_counted_and_every_row_of_a_name_has_its_label(tmp_path, capsys):
    names = np.array(["a\rb", "twice", "c", "twice"], object)
    have = tmp_path / "have.txt"
    have.write_bytes("\ufeffa\rb\nnowhere\ntwice\n".encode())
    found = run_curation._named_rows(str(have), PictureSet(names, np.eye(4)))
    assert found.tolist() == [0, 1, 3]
    assert "1 of its 3 names are of no picture, such as nowhere" in capsys.readouterr().err


def test_features_of_another_backbone_are_no_other_set(place, tmp_path, capsys):
    known = read_embeddings(place / "e.npz")
    for number, (features, about, said) in enumerate((
        (known.features[:, :9], {}, "9 and 432 features a picture"),
        (known.features, {"sha256": "b", "size": 8}, "by their sha256. Embed both by the same backbone"),
    )):  # fmt: skip
        sets = [tmp_path / f"{number}{name}.npz" for name in "ab"]
        write_embeddings(Embeddings(known.names, known.features, {"sha256": "a", "mean": [0]}), sets[0])
        write_embeddings(Embeddings(known.names, features, about), sets[1])
        flags = [f"--embeddings={sets[0]}", f"--against={sets[1]}", f"--out={tmp_path / 'out'}", "--nopage"]
        assert curate.main(flags) == 2 and not (tmp_path / "out").exists()
        assert said in capsys.readouterr().err


def test_the_columns_of_the_other_set_are_those_of_the_first(tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = np.array([f"{i}" for i in range(40)])
    arrays = {"clip": rng.standard_normal((40, 5)), "dino": rng.standard_normal((40, 5)), "names": names}
    np.savez(tmp_path / "both.npz", **arrays)
    flags = [f"--embeddings={tmp_path / 'both.npz'}", f"--out={tmp_path / 'out'}", "--nopage"]
    np.savez(tmp_path / "other.npz", **arrays | {"clip": -arrays["clip"]})
    flags.append(f"--against={tmp_path / 'other.npz'}")
    assert curate.main([*flags, "--features_column=dino", "--duplicate_cosine=1"]) == 0
    assert len(rows(tmp_path / "out" / "leaks.csv")) == 40
    np.savez(tmp_path / "other.npz", names=names)
    assert curate.main([*flags, "--features_column=dino", "--overwrite"]) == 2
    assert "--features_column=dino: --against=" in capsys.readouterr().err


def test_another_set_is_searched_for_the_same_pictures(place, tmp_path):
    assert run(place, tmp_path / "a", f"--against={place / 'e.npz'}") == 0
    leaks = rows(tmp_path / "a" / "leaks.csv")
    assert len(leaks) == 50 and all(r["exact"] == "True" for r in leaks)


def test_links_lead_to_the_pictures(place, tmp_path):
    links = tmp_path / "links"
    assert run(place, tmp_path / "a", f"--link={links}") == 0
    (copy,) = (links / "duplicates").iterdir()
    assert copy.is_symlink() and copy.resolve() == (place / "images" / COPY).resolve()
    assert run(place, tmp_path / "b", f"--link={links}") == 2


def test_earlier_answers_and_other_files_are_kept(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(place, out, "--subset=3") == 0 and run(place, out) == 2
    assert "has the answers of an earlier run. Pass --overwrite, or choose" in capsys.readouterr().err
    for mine in ("mine.csv", "lists/mine.csv"):
        (out / mine).touch()
    thumbnail = out / "curation_thumbnails" / "0123456789abcdef" / "0" / "0.webp"
    thumbnail.parent.mkdir(parents=True)
    thumbnail.touch()
    assert run(place, out, "--overwrite") == 0 and not (out / "subset.csv").exists()
    assert not (out / "curation_thumbnails").exists()
    assert not (out / "lists" / "subset.csv").exists()
    assert (out / "mine.csv").exists() and (out / "lists" / "mine.csv").exists()
    (tmp_path / "mine" / "cache").mkdir(parents=True)
    (tmp_path / "mine" / "a.csv").touch()
    assert run(place, tmp_path / "mine", "--overwrite") == 2
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {"a.csv", "cache"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--weights=runs/x"], "--weights"),
        (["--have=x.txt"], "has no effect without --subset"),
        (["--subset=3", "--have=missing.txt"], "--have=missing.txt: cannot be read"),
        (["--subset_by=typical"], "--subset_by=typical has no effect without --subset"),
        (["--image_size=32"], "--image_size=32 has no effect with embeddings that are computed already"),
        (["--batch_size=8"], "--batch_size=8 has no effect with embeddings that are computed already"),
        (["--features_dir=x"], "--features_dir=x has no effect with embeddings that"),
        (["--on_bad_image=error"], "--on_bad_image=error has no effect with --embeddings alone"),
        (["--subset=51"], "--subset=51: there are only 50 pictures"),
        (["--clusters=51"], "--clusters=51: there are only 50 pictures"),
        (["--map=tsne"], "--map=tsne has no effect with no page"),
        (["--page", "--map=pca", "--map_sample=9"], "--map_sample=9 has no effect with --map=pca"),
        (["--hdbscan"], "--clusters=3 has no effect with --hdbscan"),
        (["--against=folder:/"], "needs the backbone"),
        (["--data=digits"], "lacks 50 of the 50"),
    ],
)
def test_what_does_not_fit_is_one_line(place, tmp_path, capsys, flags, said):
    assert run(place, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and "Traceback" not in error[-1]
    assert not (tmp_path / "out").exists()  # refused before any work


def test_a_backbone_computes_the_features_of_both_sets(place, tmp_path):
    augmentation = dataclasses.replace(AUGMENTATIONS["cifar"], size=12)
    small_backbones.exported(tmp_path / "run", augmentation, channels=3)
    flags = [f"--weights={tmp_path / 'run'}", f"--data=folder:{place / 'images'}", "--nopage"]
    flags += [f"--against=folder:{place / 'images' / 'red'}", f"--out={tmp_path / 'out'}", "--clusters=3"]
    assert curate.main(flags) == 0
    exact = {r["name"]: r["other"] for r in rows(tmp_path / "out" / "leaks.csv") if r["exact"] == "True"}
    assert set(exact) == {f"red/{i:02}.png" for i in range(16)} | {COPY, STRANGER}
    assert exact["red/00.png"] == "00.png"


def test_features_of_another_tool_are_answered_without_pictures(place, tmp_path, capsys):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "clip.npy", rng.standard_normal((40, 5)).astype(np.float32))
    (tmp_path / "names.txt").write_text("".join(f"photo {i}\n" for i in range(40)))
    flags = [f"--embeddings={tmp_path / 'clip.npy'}", f"--names={tmp_path / 'names.txt'}", "--nopage"]
    assert curate.main([*flags, f"--out={tmp_path / 'out'}"]) == 0
    assert "could not be read: no statistics" in capsys.readouterr().out
    listed = rows(tmp_path / "out" / "lists" / "outliers.csv")
    assert set(listed[0]) == {"name"} and len(rows(tmp_path / "out" / "outliers.csv")) == 40
    assert curate.main(["--weights=x", "--names=y", f"--out={tmp_path / 'other'}"]) == 2
    assert "--names=y has no effect without --embeddings" in capsys.readouterr().err
