"""epochs=0: published weights are exported as they are, but for the whitening of their features."""

import json

import keras
import numpy as np
import pytest
from helpers.small_backbones import exported

from simsiam_tf import pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import Augmentation, open_source
from simsiam_tf.evaluate.finishing import fit_whitening
from simsiam_tf.features import extract
from simsiam_tf.html_report import write_report
from simsiam_tf.model_export.card_text import method_summary, training_sections
from simsiam_tf.model_export.hub_card import card_header
from simsiam_tf.nets import describe_backbone
from simsiam_tf.nets.whitening import read_quarters, without_whitening
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.recipes import rules
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training.run_data import open_data


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


def test_the_command_typed_again_repeats_only_what_changed(tmp_path, monkeypatch, capsys):
    """With a relative path of the network, from one folder."""
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "net", Augmentation(size=16, mean=(0.3,), std=(0.4,)), 1)
    card = json.loads((tmp_path / "net" / "export" / "backbone.json").read_text())
    (tmp_path / "net" / "export" / "backbone.json").write_text(
        backbone_file.card_text({**card, "license": "mit"})
    )
    argv = [
        "--backbone=file:net+weights", "--recipe=auto", "--data=digits:train[:40]", "--image_size=16",
        "--precision=float32", "--strategy=one_device", "--monitor=none", "--workdir=run",
    ]  # fmt: skip
    assert pretrain.main(argv) == 0
    first = capsys.readouterr()
    assert "Not compared with raw pixels (--monitor=none)" in first.out and "whitening" in first.err
    assert pretrain.main(argv) == 0
    again = capsys.readouterr()
    assert again.out == first.out and "whitening" not in again.err and "checkpoint" not in again.err
    assert pretrain.main([*argv, "--finish=none"]) == 0
    capsys.readouterr()
    plain = open_pretrained("run")
    assert "finishing" not in plain.card and plain.card["license"] == "mit"
    assert method_summary(plain.card)[0] == "image features" and "steps" not in training_sections(plain.card)
    assert card_header(plain.card, "keras", "net").tags == ["image-features"]
    page = write_report("run", tensorboard=False).read_text()
    assert "nothing trained" in page and "Neighbours" in page and "learns" not in page
    assert pretrain.main([*argv[:-1], "--workdir=net"]) == 2
    assert "--workdir=net: is the folder of --backbone=file:net+weights" in capsys.readouterr().err
    network = keras.saving.load_model("net/export/backbone.keras")
    network.set_weights([np.full_like(w, np.nan) for w in network.get_weights()])
    network.save("nan.keras")
    argv[0] = "--backbone=file:nan.keras+weights"
    assert pretrain.main([*argv[:-1], "--workdir=other"]) == 2
    assert "Pass --pixels=torch" in capsys.readouterr().err
    assert pretrain.main([*argv[:-1], "--workdir=other", "--pixels=unit"]) == 2
    assert "no finite numbers" in capsys.readouterr().err


def test_weights_of_a_run_take_images_as_in_that_run(tmp_path):
    views = Augmentation(size=24, mean=(0.2,), std=(0.7,))
    folder = str(exported(tmp_path / "run", views, 1))
    network = {"backbone": "resnet10", "stem": "small", "width": 0.125}
    for options in ({"weights": folder, **network}, {"backbone": f"file:{folder}+weights"}):
        config = PretrainConfig(data="digits", epochs=0.0, **options).validate()
        _, found = open_data(config)
        taken = found.augmentation
        assert (taken.size, taken.mean, taken.std) == (24, (0.2,), (0.7,))
    card = backbone_file.read_card(folder)
    assert not describe_backbone(f"file:{folder}+weights").keeps_size, "not known to be trained by a run"
    card |= {"configuration": {"epochs": 3.0}, "finishing": {"size": 48}}
    (tmp_path / "run" / "export" / "backbone.json").write_text(backbone_file.card_text(card))
    known = describe_backbone(f"file:{folder}+weights")
    config = PretrainConfig(backbone=f"file:{folder}+weights", recipe="auto")
    chosen, _ = rules.choose(config, rules.Facts(100, 500, 1, False, network=known))
    assert (chosen.epochs, chosen.image_size) == (0, 48)
