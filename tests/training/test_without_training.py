"""epochs=0: published weights are exported as they are, but for the whitening of their features."""

import numpy as np
import pytest
from helpers.small_backbones import exported

from simsiam_tf import pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import Augmentation, open_source
from simsiam_tf.evaluate.finishing import fit_whitening
from simsiam_tf.features import extract
from simsiam_tf.nets.whitening import read_quarters, without_whitening
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of a network for colour images, with weights; digits become gray images of colours."""
    views = Augmentation(size=16, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    return exported(tmp_path_factory.mktemp("published"), views, 3)


@pytest.mark.parametrize(
    "option",
    ["--recipe=auto", pytest.param("--epochs=0", marks=pytest.mark.slow)],  # the first chooses the second
)
def test_weights_are_read_as_they_are(published, option, tmp_path, capsys):
    argv = [
        f"--backbone=file:{published}+weights", option, "--data=digits", "--image_size=32",
        "--precision=float32", "--strategy=one_device", "--knn_images=300", "--final_images=600",
        f"--workdir={tmp_path / 'run'}", "--batch_size=2000",  # more than there are images
    ]  # fmt: skip
    assert pretrain.main(argv) == 0
    output = capsys.readouterr()
    assert "read as it is, nothing trained" in output.out and "momentum" not in output.err
    assert "diagnosis" not in output.out and "untrained" not in output.out + output.err
    verdict = output.out.split("Next:")[1]
    assert "raw pixels" in verdict and "began with" not in verdict
    before, after = open_pretrained(published), open_pretrained(tmp_path / "run")
    for mine, theirs in zip(without_whitening(after.backbone).weights, before.backbone.weights, strict=True):
        assert (np.asarray(mine) == np.asarray(theirs)).all()
    digits = open_source("digits", channels=3)
    read = extract(read_quarters(before.backbone, 32), digits, after.views)
    fitted = fit_whitening(read)
    assert fitted is not None
    expected = fitted(read)
    found = extract(after.backbone, digits, after.views)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    written = (tmp_path / "run" / "export" / "backbone.keras").read_bytes()
    assert pretrain.main(argv) == 0 and "nothing trained" in capsys.readouterr().out, "typed again"
    assert (tmp_path / "run" / "export" / "backbone.keras").read_bytes() == written


def test_random_weights_are_not_read(tmp_path):
    argv = ["--data=digits", "--epochs=0", f"--workdir={tmp_path}"]
    with pytest.raises(
        UserError, match=r"epochs=0: trains nothing.*weights=RUN or backbone=NETWORK\+weights"
    ):
        cli.parse(PretrainConfig, argv)
    with pytest.raises(UserError, match="start_epoch=5: nothing is left of epochs=0"):
        cli.parse(PretrainConfig, [*argv, "--weights=run", "--start_epoch=5"])
    with pytest.raises(UserError, match="has no effect with `minutes`"):
        cli.parse(PretrainConfig, [*argv, "--minutes=3", "--weights=run"])
