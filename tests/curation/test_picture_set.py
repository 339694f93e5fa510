"""Where the pictures of embeddings are read from, and what they are called."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from simsiam_tf.curation.picture_set import open_recorded
from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.features import image_embeddings


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
    about = image_embeddings.record(backbone, open_source("folder:photos"))
    assert image_embeddings.record(backbone, open_source("digits"))["data"] == "digits:train"
    monkeypatch.chdir(tmp_path / "there")
    assert open_recorded(about).decode(0).numpy().max() == 9
