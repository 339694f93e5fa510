"""A query by a network that another program saved, without a card."""

import keras
import numpy as np
import pytest

from simsiam_tf.data import from_arrays
from simsiam_tf.features import image_embeddings, query
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained


@pytest.mark.parametrize("pixels", ["caffe", "tf"])
def test_a_query_is_prepared_as_the_embeddings_were(tmp_path, pixels):
    """Pooled, of the file's size, and with its channels reversed where they were."""
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    keras.Model(images, keras.layers.Conv2D(6, 5, 3)(images)).save(tmp_path / "net.keras")
    pretrained = open_pretrained(tmp_path / "net.keras", pixels=pixels)
    pictures = np.random.default_rng(0).integers(0, 256, [5, 32, 32, 3], np.uint8)
    embeddings = image_embeddings.embed(pretrained, from_arrays("set", pictures), tmp_path / "features")
    keras.utils.save_img(tmp_path / "3.png", pictures[3], scale=False)
    features = query.embed_file(query.open_backbone(embeddings), tmp_path / "3.png")
    np.testing.assert_allclose(features, embeddings.features[3], rtol=1e-5)
