"""A folder of photos to embeddings and neighbours, by the command lines."""

import dataclasses
import json
import re

import backbones
import numpy as np
import pytest
from PIL import Image

from simsiam_tf import embed, knn_eval, neighbours
from simsiam_tf.data import RECIPES, open_source
from simsiam_tf.errors import UserError
from simsiam_tf.evaluate import embedding, extract
from simsiam_tf.pretrained import open_pretrained

RECIPE = dataclasses.replace(RECIPES["cifar"], size=16)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six pictures, one of them again in a folder of its own, and a file that is none."""
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
        backbones.exported(tmp_path_factory.mktemp("run"), RECIPE, channels=3, data=f"folder:{photos}")
    )


@pytest.mark.parametrize(("suffix", "dtype"), [(".npz", "float32"), (".parquet", "float16")])
def test_photos_to_embeddings_to_neighbours(photos, weights, tmp_path, capsys, suffix, dtype):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"photos{suffix}"
    assert embed.main([f"--weights={weights}", f"--out={out}", f"--dtype={dtype}"]) == 0
    bad = json.loads((tmp_path / "photos.unreadable.json").read_text())["unreadable"]
    assert list(bad) == ["broken.jpg"]
    known = embedding.read(out)
    assert known.names.tolist() == [*(f"{i}.png" for i in range(6)), "again/é 3.png"]
    assert known.features.dtype == dtype
    backbone = open_pretrained(weights)
    source = open_source(f"folder:{photos}", on_bad_image="skip")
    expected = extract(backbone.backbone, source, backbone.views)
    np.testing.assert_allclose(known.features, expected, rtol=1e-3 if dtype == "float16" else 1e-6)
    capsys.readouterr()
    for query in (photos / "3.png", "again/é 3.png"):
        assert neighbours.main([f"--embeddings={out}", f"--query={query}", "--k=3"]) == 0
        first, second, third = capsys.readouterr().out.splitlines()[1:]
        assert first.split(maxsplit=1)[1] in ("3.png", "again/é 3.png") and first.split()[0] == "1.000"
        assert second.split(maxsplit=1)[1] in ("3.png", "again/é 3.png") and float(third.split()[0]) < 1


def test_what_is_there_is_not_overwritten(weights, tmp_path, capsys):
    out = tmp_path / "photos.npz"
    out.write_text("mine")
    assert embed.main([f"--weights={weights}", f"--out={out}"]) == 2
    assert "--overwrite" in capsys.readouterr().err and out.read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--out=x.npz"], "--weights: missing"),
        (["--weights=W", "--out=x.csv"], "as in --out=photos.npz or .parquet"),
        (["--weights=W"], "must name a file"),
        (["--weights=W", "--out=x.npz", "--data=digits"], "has 1 channels, the backbone of .* takes 3"),
        (["--weights=W", "--out=x.npz", "--data=folder:/nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(argv, said, weights, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [a.replace("=W", f"={weights}") for a in argv]
    assert embed.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(said, err), err
    assert list(tmp_path.iterdir()) == []


def test_another_backbone_and_foreign_files_are_refused(photos, weights, tmp_path):
    known = embedding.embed(
        open_pretrained(weights), open_source(f"folder:{photos}", on_bad_image="skip"), tmp_path / "f"
    )
    embedding.write(known, tmp_path / "a.npz")
    other = backbones.exported(tmp_path / "other", RECIPE, channels=3, seed=1)
    argv = [f"--embeddings={tmp_path / 'a.npz'}", f"--query={photos / '1.png'}"]
    assert neighbours.main([*argv, f"--weights={other}"]) == 2
    assert neighbours.main([*argv[:1], "--query=nowhere.jpg"]) == 2
    assert neighbours.main([*argv[:1], f"--query={photos / 'broken.jpg'}"]) == 2
    np.savez(tmp_path / "b.npz", names=np.array([{}], object), features=np.ones([1, 2]), about="{}")
    with pytest.raises(UserError, match="no embeddings can be read"):
        embedding.read(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-50])
    with pytest.raises(UserError, match="no embeddings can be read"):
        embedding.read(tmp_path / "c.npz")


def test_knn_eval_agrees_with_scikit_learn_at_k_1(tmp_path, capsys):
    from sklearn.neighbors import KNeighborsClassifier

    grey = dataclasses.replace(RECIPES["grayscale"], size=8)
    folder = backbones.exported(tmp_path / "run", grey, channels=1)
    assert knn_eval.main([f"--weights={folder}", "--k=1,20"]) == 0
    result = json.loads((folder / "knn.json").read_text())
    train, test = (open_source(f"digits:{s}") for s in ("train", "test"))
    reference = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
    reference.fit(train.images.reshape(len(train.images), -1), train.labels)
    expected = reference.score(test.images.reshape(len(test.images), -1), test.labels)
    assert abs(result["accuracy"]["raw pixels"]["k = 1"] - expected) < 0.003  # cosines that nearly tie
    said = capsys.readouterr().out
    assert "this backbone" in result["accuracy"] and "k = 20" in said
    chosen = result["chosen"]["raw pixels"]
    neighbours_of = KNeighborsClassifier(2, metric="cosine", algorithm="brute")
    pixels = train.images.reshape(len(train.images), -1)
    nearest = neighbours_of.fit(pixels, train.labels).kneighbors(pixels, return_distance=False)
    second = np.where(nearest[:, 0] == np.arange(len(pixels)), nearest[:, 1], nearest[:, 0])
    alone = np.mean(train.labels[second] == train.labels)
    assert abs(chosen["training images"]["1"] - alone) < 0.003
    assert chosen["test"] == result["accuracy"]["raw pixels"][f"k = {chosen['k']}"]
    assert f"{chosen['k']} for raw pixels" in said
