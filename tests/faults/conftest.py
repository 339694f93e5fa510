"""Data that needs no download: a folder of photos, and a TFDS set that was prepared before."""

import numpy as np
import pytest


def photos(count, seed=0):
    """uint8 pictures of many sizes: smooth shapes and noise."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        height, width = rng.integers(28, 60, 2)
        y, x = np.mgrid[:height, :width] / 20
        waves = [np.sin(y * rng.normal() * 3 + x * rng.normal() * 3 + rng.normal()) for _ in range(3)]
        noise = rng.normal(size=(height, width, 3)) * 12
        yield np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(photos(96)):
        Image.fromarray(picture).save(root / f"{i:03d}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def tfds_set(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path_factory.mktemp("tfds")

    class TinyPictures(tfds.core.GeneratorBasedBuilder):
        """Pictures of many sizes."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = root

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, picture in enumerate(photos(96)):
                yield i, {"image": picture}

    TinyPictures(data_dir=root, file_format="array_record").download_and_prepare()
    return root
