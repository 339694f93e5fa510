"""Where the pictures of embeddings are read from, and what they are called."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from simsiam_tf.curation.picture_set import open_recorded, picture_set
from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.features import image_embeddings
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.runtime.display_text import as_text


def pictures(folder, *names, value=9):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(folder / name)
    return folder


def test_embeddings_find_their_pictures_from_another_folder(tmp_path, monkeypatch):
    for place, value in ("here", 9), ("there", 200):
        pictures(tmp_path / place / "photos", "a.png", value=value)
    backbone = SimpleNamespace(augmentation=AUGMENTATIONS["cifar"], place="run", sha256="", exact=True)
    monkeypatch.chdir(tmp_path / "here")
    about = image_embeddings.embedding_metadata(backbone, open_source("folder:photos"))
    assert image_embeddings.embedding_metadata(backbone, open_source("digits"))["data"] == "digits:train"
    monkeypatch.chdir(tmp_path / "there")
    assert open_recorded(about).decode(0).numpy().max() == 9


def test_names_of_undecodable_bytes_that_parquet_escapes_are_found(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    folder = pictures(tmp_path, name, "b.png")
    names = np.array([as_text(name), "b.png"], object)
    made = picture_set(Embeddings(names, np.eye(2), {}), open_source(folder))
    assert made.places.tolist() == [str(folder / name), str(folder / "b.png")]


def test_a_folder_with_a_comma_in_its_name_is_one_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pictures(tmp_path / "a,b", "x.png")
    made = picture_set(Embeddings(np.array(["x.png"], object), np.eye(1), {}), open_source("folder:~/a,b"))
    assert made.places.tolist() == [str(tmp_path / "a,b" / "x.png")]
