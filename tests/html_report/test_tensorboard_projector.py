"""Files for TensorBoard's projector are readable, and never written through a link."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins import projector as plugin

from simsiam_tf.html_report import tensorboard_projector
from simsiam_tf.runtime.errors import UserError


class Sample:
    """Three images with features and groups."""

    ids, features, groups = np.arange(3), np.eye(3), np.array([0, 1, 0])
    names, labelled = ("cat", "dog"), True

    def name(self, row):
        return f"{row}.jpg"

    def pictures(self, rows):
        return np.full((len(rows), 8, 8, 3), 9, np.uint8)


def test_tensorboard_finds_embeddings_names_and_pictures(tmp_path):
    folder = tensorboard_projector.write_projector(Sample(), tmp_path / "tb")
    known = text_format.Parse(
        (tmp_path / "tb" / "projector_config.pbtxt").read_text(), plugin.ProjectorConfig()
    )
    assert known.embeddings[0].tensor_path == "projector/features.tsv"
    np.testing.assert_array_equal(np.loadtxt(folder / "features.tsv"), np.eye(3))
    assert (folder / "names.tsv").read_text() == "name\tclass\n0.jpg\tcat\n1.jpg\tdog\n2.jpg\tcat\n"
    assert (folder / "pictures.png").read_bytes()[:4] == b"\x89PNG"


def test_links_are_replaced_or_refused(tmp_path):
    victim, elsewhere = tmp_path / "victim", tmp_path / "elsewhere"
    victim.write_text("mine")
    elsewhere.mkdir()
    (tmp_path / "tb" / "projector").mkdir(parents=True)
    for name in (
        "projector/features.tsv",
        "projector/names.tsv",
        "projector/pictures.png",
        "projector_config.pbtxt",
    ):
        (tmp_path / "tb" / name).symlink_to(victim)
    tensorboard_projector.write_projector(Sample(), tmp_path / "tb")
    assert victim.read_text() == "mine"
    for name in ("a/tb", "b/tb/projector"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(elsewhere)
        with pytest.raises(UserError, match=f"{name}: is a link"):
            tensorboard_projector.write_projector(Sample(), tmp_path / name[0] / "tb")
    assert not list(elsewhere.iterdir())


def test_a_folder_that_cannot_be_written_can_be_left_out(tmp_path):
    with pytest.raises(UserError, match="cannot be written.*tensorboard=false"):
        tensorboard_projector.write_projector(Sample(), tmp_path.__class__("/proc/tb"))
