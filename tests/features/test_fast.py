"""Features of `embed --fast`: nearly the exact ones, and never taken for them."""

import dataclasses

import numpy as np
from helpers import small_backbones
from PIL import Image

from simsiam_tf import embed
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.features import embedding_file

AUGMENTATION = dataclasses.replace(AUGMENTATIONS["cifar"], size=64)


def test_fast_features_are_nearly_the_exact_ones_and_are_kept_apart(tmp_path):
    from sklearn.datasets import load_sample_images

    folder = tmp_path / "photos"
    folder.mkdir()
    for name, photograph in zip("ab", load_sample_images().images, strict=True):
        for i in range(2):
            Image.fromarray(photograph[:, 100 * i :]).save(folder / f"{name}{i}.jpg", quality=90)
    run = small_backbones.exported(tmp_path / "run", AUGMENTATION, 3, f"folder:{folder}")
    weights, kept = f"--weights={run}", tmp_path / "features"
    common = [weights, f"--features_dir={kept}"]
    features = {}
    for name, more in {"exact": [], "fast": ["--fast"], "again": []}.items():
        out = tmp_path / f"{name}.npz"
        assert embed.main([*common, f"--out={out}", *more]) == 0
        features[name] = embedding_file.read_embeddings(str(out)).features
    assert len(list(kept.glob("*.npy"))) == 2
    np.testing.assert_array_equal(features["exact"], features["again"])
    apart = np.linalg.norm(features["fast"] - features["exact"], axis=1)
    share = apart / np.linalg.norm(features["exact"], axis=1)
    assert 0 < share.max() < 0.05
