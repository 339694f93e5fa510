"""A folder of photos to embeddings and neighbours, by the command lines."""

import csv
import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest
from helpers import small_backbones
from PIL import Image

from simsiam_tf import embed, knn_eval, neighbours
from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.features import changed_files, embedding_file, extract, image_embeddings, query
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError

AUGMENTATION = dataclasses.replace(AUGMENTATIONS["cifar"], size=16)
SLOW = pytest.mark.slow
FORMATS = ((".npz", "float32"), (".parquet", "float16"), ("/", "float32"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six images, a copy of one in a subfolder, and a file that is not an image."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(root / f"{i}.png")
    (root / "again").mkdir()
    (root / "again" / "é 3.png").write_bytes((root / "3.png").read_bytes())
    (root / "broken.jpg").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory, photos):
    return str(
        small_backbones.exported(
            tmp_path_factory.mktemp("run"), AUGMENTATION, channels=3, data=f"folder:{photos}"
        )
    )


@pytest.mark.parametrize(
    ("suffix", "dtype"), [FORMATS[0], *(pytest.param(*row, marks=SLOW) for row in FORMATS[1:])]
)
def test_photos_to_embeddings_to_neighbours(photos, weights, tmp_path, capsys, suffix, dtype):
    out = f"{tmp_path}/photos{suffix}"
    argv = [f"--weights={weights}", f"--out={out}", f"--dtype={dtype}"]
    assert embed.main(argv) == 0
    assert embed.main(argv) == 2 and "exists. Choose another" in capsys.readouterr().err
    assert embed.main([*argv, "--overwrite"]) == 0
    assert len(list(tmp_path.iterdir())) == 2
    bad = json.loads((tmp_path / "photos.unreadable.json").read_text())["unreadable"]
    assert list(bad) == ["broken.jpg"]
    embeddings = embedding_file.read_embeddings(out)
    assert embeddings.names.tolist() == [*(f"{i}.png" for i in range(6)), "again/é 3.png"]
    assert embeddings.features.dtype == dtype
    backbone = open_pretrained(weights)
    source = open_source(f"folder:{photos}", on_bad_image="skip")
    expected = extract(backbone.backbone, source, backbone.views)
    np.testing.assert_allclose(embeddings.features, expected, rtol=1e-3 if dtype == "float16" else 1e-6)
    capsys.readouterr()
    for asked in (photos / "3.png", "again/é 3.png"):
        assert neighbours.main([f"--embeddings={out}", f"--query={asked}", "--k=3"]) == 0
        first, second, third = capsys.readouterr().out.splitlines()[1:]
        assert first.split(maxsplit=1)[1] in ("3.png", "again/é 3.png") and first.split()[0] == "1.000"
        assert second.split(maxsplit=1)[1] in ("3.png", "again/é 3.png") and float(third.split()[0]) < 1


@pytest.mark.slow
def test_many_files_are_queries_as_each_alone(photos, weights, tmp_path, capsys, monkeypatch):
    """In a folder, and in a list together with names; what cannot be decoded is left out."""
    monkeypatch.setattr(query, "BATCH", 3)
    monkeypatch.chdir(tmp_path)
    assert run(embed, f"weights={weights}", f"data=folder:{photos}", "out=a.npz") == 0
    for i in range(6):
        (tmp_path / "new").mkdir(exist_ok=True)
        Image.open(photos / f"{i}.png").rotate(180).save(tmp_path / "new" / f"{i}.png")
    (tmp_path / "new" / "x.jpg").write_text("no picture")
    (tmp_path / "list.csv").write_text("path\nnew/4.png\n3.png\nnew/x.jpg\nnew/0.png\n")
    alone = {}
    for i in range(6):
        capsys.readouterr()
        assert run(neighbours, "embeddings=a.npz", f"query=new/{i}.png", "k=2") == 0
        printed = capsys.readouterr().out.splitlines()[1:]
        alone[f"{i}.png"] = [line.split(maxsplit=1)[::-1] for line in printed]
    six, listed = [f"{i}.png" for i in range(6)], ["new/4.png", "3.png", "new/0.png"]
    for asked, names in (("new", six), ("folder:new", six), ("list:list.csv", listed)):
        assert run(neighbours, "embeddings=a.npz", f"query={asked}", "k=2", "out=t.csv", "overwrite") == 0
        assert "1 of " in (err := capsys.readouterr().err) and "x.jpg: a text, not an image" in err
        with open("t.csv", encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        assert [row["query"] for row in table] == [name for name in names for _ in range(2)]
        for row in table:
            if asked.startswith("list:") and row["query"] == "3.png":  # not its own neighbour; its copy is
                assert row["rank"] == "2" or row["name"] == "again/é 3.png"
                continue
            name, cosine = alone[row["query"].removeprefix("new/")][int(row["rank"]) - 1]
            copy = "again/é "  # of 3.png, whose features differ from it by rounding
            assert (
                row["name"].removeprefix(copy) == name.removeprefix(copy)
                and abs(float(row["cosine"]) - float(cosine)) < 6e-4
            )
    for bad in (tmp_path / "new").glob("*.png"):
        bad.write_text("nothing")
    assert run(neighbours, "embeddings=a.npz", "query=new") == 2
    assert "--query: none of its 7 images can be decoded" in capsys.readouterr().err


def test_an_existing_file_is_not_overwritten(weights, tmp_path, capsys):
    out = tmp_path / "photos.npz"
    out.write_text("mine")
    assert embed.main([f"--weights={weights}", f"--out={out}"]) == 2
    assert "--overwrite" in capsys.readouterr().err and out.read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out=x.npz"], "--weights: missing"),
        (["--weights=W", "--out=x.csv"], "as in --out=photos.npz or .parquet"),
        (["--weights=W"], "must name a file"),
        (["--weights=W", "--out=photos"], "or a folder without a suffix, as in --out=photos/"),
        (["--weights=W", "--out=a.photos/"], "or a folder without a suffix, as in --out=photos/"),
        (["--weights=W", "--out=x.npz", "--data=folder:/nowhere"], "no such folder"),
        (["--weights=W", "--out=/proc/x.npz"], "--out=/proc/x.npz: cannot be written"),
        (["--weights=W", "--out=" + 300 * "x" + ".npz"], "cannot be written .File name too long"),
        (["--weights=W", "--out=/dev/null/x.npz"], "--out=/dev/null/x.npz: cannot be written"),
    ],
)
def test_bad_input_is_one_line(argv, message, weights, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [a.replace("=W", f"={weights}") for a in argv]
    assert embed.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err
    assert list(tmp_path.iterdir()) == []


def test_another_backbone_and_foreign_files_are_refused(photos, weights, tmp_path):
    embeddings = image_embeddings.embed(
        open_pretrained(weights), open_source(f"folder:{photos}", on_bad_image="skip"), tmp_path / "f"
    )
    embedding_file.write_embeddings(embeddings, tmp_path / "a.npz")
    other = small_backbones.exported(tmp_path / "other", AUGMENTATION, channels=3, seed=1)
    argv = [f"--embeddings={tmp_path / 'a.npz'}", f"--query={photos / '1.png'}"]
    assert neighbours.main([*argv, f"--weights={other}"]) == 2
    assert neighbours.main([*argv[:1], "--query=nowhere.jpg"]) == 2
    assert neighbours.main([*argv[:1], f"--query={photos / 'broken.jpg'}"]) == 2
    narrow = small_backbones.exported(tmp_path / "narrow", AUGMENTATION, channels=3, width=0.0625)
    assert neighbours.main([*argv, f"--weights={narrow}"]) == 2
    np.savez(tmp_path / "b.npz", names=np.array([{}], object), features=np.ones([1, 2]), about="{}")
    with pytest.raises(UserError, match="no embeddings can be read"):
        embedding_file.read_embeddings(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-50])
    with pytest.raises(UserError, match="no embeddings can be read"):
        embedding_file.read_embeddings(tmp_path / "c.npz")


def run(command, *argv):
    """Runs a command with flags given as "name=value"; returns its exit status."""
    return command.main([f"--{name}" for name in argv])


def nearest_names(out):
    return [line.split(maxsplit=1)[1] for line in out.splitlines()[1:]]


@pytest.mark.parametrize(
    ("augmentation", "other", "size"), [("imagenet", "cifar", 24), ("cifar", "imagenet", 16)]
)
@pytest.mark.slow
def test_a_query_is_preprocessed_as_the_images_were(
    photos, weights, tmp_path, capsys, augmentation, other, size
):
    """Without a model card, too: then only the embeddings record the preprocessing."""
    path = shutil.copy(open_pretrained(weights).path, tmp_path / "cardless.keras")
    argv = (f"weights={path}", f"data=folder:{photos}", f"out={tmp_path / 'a.npz'}")
    assert run(embed, *argv, f"augmentation={augmentation}", f"image_size={size}") == 0
    embeddings = embedding_file.read_embeddings(tmp_path / "a.npz")
    backbone = query.open_backbone(embeddings)
    for i in range(6):
        vector = query.embed_file(backbone, photos / f"{i}.png")
        np.testing.assert_allclose(
            vector, embeddings.features[i], rtol=1e-5, atol=1e-5 * np.abs(vector).max()
        )
    capsys.readouterr()
    asked = f"query={photos / '1.png'}"
    assert run(neighbours, f"embeddings={tmp_path / 'a.npz'}", asked, "k=1") == 0
    assert capsys.readouterr().out.splitlines()[1] == "   1.000  1.png"
    for wrong, message in (
        ({"image_size": 17}, "image_size=17: the emb"),
        ({"augmentation": other}, "augmentation="),
    ):
        with pytest.raises(UserError, match=message):
            query.open_backbone(embeddings, **wrong)


def test_a_name_among_the_embeddings_has_precedence_over_a_file(
    photos, weights, tmp_path, capsys, monkeypatch
):
    assert run(embed, f"weights={weights}", f"data=folder:{photos}", f"out={tmp_path / 'a.npz'}") == 0
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos / "5.png", tmp_path / "2.png")
    for asked, expected in (("2.png", "2.png"), ("./2.png", "5.png")):
        capsys.readouterr()
        assert run(neighbours, "embeddings=a.npz", f"query={asked}", "k=1") == 0
        output = capsys.readouterr()
        assert nearest_names(output.out) == [expected]
        assert ("pass --query=./2.png" in output.err) == (asked == "2.png")


@pytest.mark.parametrize("suffix", [".npz", pytest.param(".parquet", marks=SLOW)])
def test_names_that_are_not_utf8_are_shown_with_escapes(photos, weights, tmp_path, capsys, suffix):
    root = tmp_path / os.fsdecode(b"im\xe9")
    root.mkdir()
    for i, name in enumerate((b"caf\xe9.png", b"\x1b[2J.png", "é.png".encode())):
        shutil.copy(photos / f"{i}.png", root / os.fsdecode(name))
    out = tmp_path / f"a{suffix}"
    assert run(embed, f"weights={weights}", f"data=folder:{root}", f"out={out}") == 0
    out_text = capsys.readouterr().out
    assert r"3 images of folder:" in out_text and out_text.strip().isprintable()
    for asked in (r"caf\xe9.png", root / os.fsdecode(b"caf\xe9.png"), r"\x1b[2J.png"):
        assert run(neighbours, f"embeddings={out}", f"query={asked}", "k=3") == 0
        printed = capsys.readouterr().out.encode("utf-8", "strict").decode()
        first = r"\x1b[2J.png" if str(asked).startswith(r"\x1b") else r"caf\xe9.png"
        assert nearest_names(printed)[0] == first
        assert sorted(nearest_names(printed)) == [r"\x1b[2J.png", r"caf\xe9.png", "é.png"]


@pytest.mark.parametrize("on_bad_image", ["skip", pytest.param("error", marks=SLOW)])
def test_images_that_change_while_they_are_embedded(
    photos, weights, tmp_path, capsys, monkeypatch, on_bad_image
):
    root, out, watch = (
        shutil.copytree(photos, tmp_path / "images"),
        tmp_path / "a.npz",
        changed_files.verified_source,
    )
    (root / "broken.jpg").unlink()

    def changing(source, changed):
        (root / "1.png").unlink()
        shutil.copy(root / "2.png", root / "4.png")
        return watch(source, changed)

    argv = (f"weights={weights}", f"data=folder:{root}", f"out={out}", f"features_dir={tmp_path / 'f'}")
    with monkeypatch.context() as patch:
        patch.setattr(changed_files, "verified_source", changing)
        status = run(embed, *argv, f"on_bad_image={on_bad_image}")
    line = capsys.readouterr().err.splitlines()[-1]
    if on_bad_image == "error":
        assert status == 2 and not out.exists()
        assert (
            "2 of 7 images changed or disappeared while their features were made, such as 1.png. Rerun"
            in line
        )
    else:
        assert status == 0 and embedding_file.read_embeddings(out).names.tolist() == names_without(1, 4)
        assert "2 of 7 images left out" in line and "made: 1.png, 4.png; named in" in line
        report = json.loads((tmp_path / "a.unreadable.json").read_text())
        assert list(report["unreadable"]) == ["1.png", "4.png"]
    assert run(embed, *argv, "overwrite") == 0
    assert embedding_file.read_embeddings(out).names.tolist() == names_without(1)


def names_without(*gone):
    return [*(f"{i}.png" for i in range(6) if i not in gone), "again/é 3.png"]


def test_knn_eval_agrees_with_scikit_learn_at_k_1(tmp_path, capsys):
    from sklearn.neighbors import KNeighborsClassifier

    grey = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)
    folder = small_backbones.exported(tmp_path / "run", grey, channels=1)
    assert knn_eval.main([f"--weights={folder}", "--k=1,20"]) == 0
    result = json.loads((folder / "knn.json").read_text())
    train, test = (open_source(f"digits:{s}") for s in ("train", "test"))
    reference = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
    reference.fit(train.images.reshape(len(train.images), -1), train.labels)
    expected = reference.score(test.images.reshape(len(test.images), -1), test.labels)
    assert abs(result["accuracy"]["raw pixels"]["k = 1"] - expected) < 0.003  # cosines that nearly tie
    printed = capsys.readouterr().out
    assert "this backbone" in result["accuracy"] and "k = 20" in printed
    chosen = result["chosen"]["raw pixels"]
    neighbours_of = KNeighborsClassifier(2, metric="cosine", algorithm="brute")
    pixels = train.images.reshape(len(train.images), -1)
    nearest = neighbours_of.fit(pixels, train.labels).kneighbors(pixels, return_distance=False)
    second = np.where(nearest[:, 0] == np.arange(len(pixels)), nearest[:, 1], nearest[:, 0])
    leave_one_out = np.mean(train.labels[second] == train.labels)
    assert abs(chosen["training images"]["1"] - leave_one_out) < 0.003
    assert chosen["test"] == result["accuracy"]["raw pixels"][f"k = {chosen['k']}"]
    assert f"{chosen['k']} for raw pixels" in printed
