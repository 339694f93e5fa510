"""The option finish: what a run exports, and who reads the backbone with and without its whitening."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers.runs import StopAt, state, tiny

from simsiam_tf import convert, embed, finetune, knn_eval, linear_eval
from simsiam_tf.config import PretrainConfig, differences
from simsiam_tf.data import open_source
from simsiam_tf.evaluate.finishing import PIXEL_SHRINKAGE, SHRINKAGE, fit_whitening
from simsiam_tf.evaluate.knn_monitor import monitor_of
from simsiam_tf.features import knn_accuracy
from simsiam_tf.features.embedding_file import read_embeddings
from simsiam_tf.features.extraction import extract, raw_pixels
from simsiam_tf.nets.whitening import read_quarters, whitening_layer, without_whitening
from simsiam_tf.pretrained import backbone_file, torch_weights
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.training import build_run, pretraining, run_summary


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """finish → (outcome, work folder) of the same run."""
    folders = {finish: tmp_path_factory.mktemp(finish) for finish in ("whiten", "none")}
    return {
        finish: (pretraining.pretrain(tiny(folder, f"--finish={finish}")), folder)
        for finish, folder in folders.items()
    }


def equal(a, b):
    return all((x == y).all() for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.slow
def test_the_export_is_the_trained_backbone_and_a_whitening(runs):
    whitened, plain = (open_pretrained(runs[finish][1]) for finish in ("whiten", "none"))
    assert whitening_layer(plain.backbone) is None and "finishing" not in plain.card
    assert equal(without_whitening(whitened.backbone), plain.backbone)
    finishing = whitened.card["finishing"]
    shrinkage = 384 / 1437  # 384 features of 1,437 images
    assert finishing == {"layer": "whitening", "images": 1437, "shrinkage": shrinkage, "size": 16}
    assert (plain.augmentation.size, whitened.augmentation.size) == (8, 16)
    source = open_source("digits")
    read = extract(read_quarters(plain.backbone, 16), source, whitened.views)
    expected = fit_whitening(read)(read)
    found = extract(whitened.backbone, source, whitened.views)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_the_table_has_whitened_features_beside_whitened_pixels(runs):
    outcome, folder = runs["whiten"]
    text = run_summary.pretraining_summary(tiny(folder), outcome)
    assert "k = 20 k = 200 whitened" in " ".join(text.split())
    assert "whitened" not in run_summary.pretraining_summary(tiny(folder), runs["none"][0])
    columns = {"knn20", "knn200", "whitened_knn20", "whitened_knn200", "recall1", "mrr", "rankme"}
    more = {"backbone": {"knn_queries", "recall1_queries", "inference_std"}}
    assert all(set(a) == columns | more.get(name, set()) for name, a in outcome.accuracy.items())
    test = open_source("digits", "test")
    assert outcome.accuracy["backbone"]["knn_queries"] == test.size
    assert outcome.accuracy["backbone"]["recall1_queries"] == 1437
    assert "_queries" not in text
    plain = {name: {k: v for k, v in a.items() if "white" not in k} for name, a in outcome.accuracy.items()}
    assert plain == runs["none"][0].accuracy
    views = open_pretrained(folder).views
    train, test = (open_source("digits", split) for split in ("train", "test"))
    beneath = open_pretrained(folder, finished=False).backbone
    cases = {"raw pixels": [raw_pixels(source, views, side=8) for source in (train, test)]}
    network = read_quarters(beneath, 16)
    cases["backbone"] = [extract(network, source, views) for source in (train, test)]
    for name, (bank, queries) in cases.items():
        whiten = fit_whitening(bank, PIXEL_SHRINKAGE if name == "raw pixels" else SHRINKAGE)
        expected = knn_accuracy(whiten(bank), train.labels, whiten(queries), test.labels)
        assert outcome.accuracy[name]["whitened_knn20"] == pytest.approx(expected[20], abs=0.006)


@pytest.mark.slow
def test_a_killed_run_exports_the_same_file(runs, tmp_path):
    for stop in (7, 99):
        pretraining.pretrain(tiny(tmp_path, "--finish=whiten"), callbacks=[StopAt(stop)])
    files = [folder / "export" / "backbone.keras" for folder in (runs["whiten"][1], tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_may_continue_with_another_finish(tmp_path):
    before, after = (dataclasses.asdict(tiny(tmp_path, f"--finish={f}")) for f in ("none", "whiten"))
    assert differences(before, after, PretrainConfig) == []
    del before["finish"]  # of a run begun before there was the option
    assert differences(before, after, PretrainConfig) == []


@pytest.mark.slow
def test_a_finished_run_is_whitened_later(runs, tmp_path):
    folder = shutil.copytree(runs["none"][1], tmp_path / "run")
    before = state(folder)
    shutil.rmtree(folder / "export")
    outcome = pretraining.pretrain(tiny(folder, "--finish=whiten"))
    assert outcome.status == pretraining.DONE and state(folder)[:2] == before[:2]
    exported = [f / "export" / "backbone.keras" for f in (folder, runs["whiten"][1])]
    assert exported[0].read_bytes() == exported[1].read_bytes()


@pytest.mark.slow
def test_training_goes_on_beneath_the_whitening(runs, tmp_path):
    folder = runs["whiten"][1]
    beneath = open_pretrained(folder, finished=False).backbone
    config = tiny(tmp_path, f"--weights={folder}")
    model = build_run.build_model(config, 1, 8)
    assert equal(model.backbone, beneath)
    for command in (linear_eval, finetune):
        out = tmp_path / command.__name__
        flags = [f"--weights={folder}", f"--workdir={out}", "--epochs=0.1", "--batch_size=64"]
        assert command.main([*flags, "--precision=float32", "--save_minutes=0"]) == 0
        classifier = backbone_file.load_backbone(out / "export" / "classifier.keras")
        assert [layer.name for layer in classifier.layers][-2:] == ["pool", classifier.layers[-1].name]
    for mine, theirs in zip(beneath.weights, classifier.weights, strict=False):
        assert mine.shape == theirs.shape
    tuned = open_pretrained(tmp_path / finetune.__name__)
    assert whitening_layer(tuned.backbone) is None and "finishing" not in tuned.card


@pytest.mark.slow
def test_pytorch_gets_the_backbone_beneath(runs, tmp_path, capsys):
    whitened, plain = runs["whiten"][1], runs["none"][1]
    assert convert.main([f"--weights={whitened}", f"--out={tmp_path / 'a.safetensors'}"]) == 0
    assert "left out   the whitening" in capsys.readouterr().out
    assert convert.main([f"--weights={plain}", f"--out={tmp_path / 'b.safetensors'}"]) == 0
    assert "whitening" not in capsys.readouterr().out
    a, b = (torch_weights.open_checkpoint(tmp_path / f"{name}.safetensors").state for name in "ab")
    assert a.keys() == b.keys() and all((np.asarray(a[k]) == np.asarray(b[k])).all() for k in a)


@pytest.mark.slow
def test_embed_and_knn_eval_take_finished_features_and_pixels(runs, tmp_path, capsys):
    results = {}
    for finish, (_, folder) in runs.items():
        out = tmp_path / f"{finish}.json"
        assert knn_eval.main([f"--weights={folder}", "--k=20", f"--out={out}"]) == 0
        results[finish] = json.loads(out.read_text())
        assert ("all features are whitened" in capsys.readouterr().out) == (finish == "whiten")
    accuracy = runs["whiten"][0].accuracy
    for finish, column in (("whiten", "whitened_knn20"), ("none", "knn20")):
        assert results[finish]["whitened"] == (finish == "whiten")
        for name, key in (("this backbone", "backbone"), ("raw pixels", "raw pixels")):
            expected = accuracy[key][column]
            assert results[finish]["accuracy"][name]["k = 20"] == pytest.approx(expected, abs=0.006)
    out = tmp_path / "digits.npz"
    assert embed.main([f"--weights={runs['whiten'][1]}", "--data=digits", f"--out={out}"]) == 0
    finished = open_pretrained(runs["whiten"][1])
    expected = extract(finished.backbone, open_source("digits"), finished.views)
    np.testing.assert_allclose(read_embeddings(out).features, expected, atol=1e-4)


@pytest.mark.slow
def test_pixels_of_larger_images_are_averaged_before_they_are_whitened(runs, monkeypatch):
    backbone = open_pretrained(runs["none"][1]).backbone
    sides = []

    def measured(source, views, ids, side):
        sides.append(side)
        return raw_pixels(source, views, ids, side)

    monkeypatch.setattr("simsiam_tf.evaluate.knn_monitor.extraction.raw_pixels", measured)
    monkeypatch.setattr("simsiam_tf.evaluate.finishing.WHITENED_PIXEL_VALUES", 100)
    large = monitor_of("digits", size=16)
    accuracies = large.baselines(backbone, images=300, read_size=16)
    assert sides == [None, None, 10, 10]  # None: large ones are shrunk to small pictures
    assert set(accuracies["raw pixels"]) == {"knn20", "knn200", "whitened_knn20", "whitened_knn200"}


@pytest.mark.slow
def test_whitening_that_the_export_left_out_is_in_no_table(tmp_path, monkeypatch):
    """Constant features are not whitened, neither are those of the baselines that they are compared with."""
    monkeypatch.setattr("simsiam_tf.evaluate.finishing.fit_whitening", lambda *args: None)
    outcome = pretraining.pretrain(tiny(tmp_path, "--epochs=0.2", "--knn_images=300", "--final_images=300"))
    assert "finishing" not in backbone_file.read_card(tmp_path)
    assert not any("whitened" in name for measures in outcome.accuracy.values() for name in measures)
    text = run_summary.pretraining_summary(tiny(tmp_path), outcome)
    assert "whitened" not in text and "k = 20" in text
