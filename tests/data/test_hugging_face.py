"""Sets of Hugging Face's `datasets`: folders of images, tables, and what `save_to_disk` writes."""

import sys

import numpy as np
import pytest

datasets = pytest.importorskip("datasets")

from helpers import places
from helpers.places import COUNT, check_same_images, name, picture, png

from simsiam_tf import knn_eval, pretrain
from simsiam_tf.data import open_source
from simsiam_tf.data.sources import checked_source
from simsiam_tf.evaluate.label_splits import open_splits, open_test_split
from simsiam_tf.runtime.errors import UserError

TEST = range(0, COUNT, 3)  # the images of the test split
LABELS = [int(i >= COUNT // 2) for i in range(COUNT)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same set in the three forms that the library reads: train has all images, test a third of them."""
    root = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        places.write_folder(root / "images" / "train")
        for i in TEST:
            (root / "images" / "test" / name(i)).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / "test" / name(i)).write_bytes(png(i))
        table = datasets.load_dataset(str(root / "images"))
        table.save_to_disk(root / "saved")
        (root / "parquet").mkdir()
        for split in ("train", "test"):
            table[split].to_parquet(root / "parquet" / f"{split}-00000-of-00001.parquet")
        table["train"].save_to_disk(root / "one split")
        datasets.Dataset.from_dict({"text": ["a", "b"], "number": [1, 2]}).save_to_disk(root / "text")
        yield root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))


FORMS = pytest.mark.parametrize("form", ["images", "parquet", "saved"])


@FORMS
def test_splits_and_labels(folders, form):
    whole = open_source(f"hf:{folders}/{form}")
    check_same_images(whole, [picture(i) for i in range(COUNT)])
    assert whole.class_names == ("cats", "dogs") and np.asarray(whole.labels).tolist() == LABELS
    for test in (open_source(f"hf:{folders}/{form}:test"), open_source(f"hf:{folders}/{form}", "test")):
        check_same_images(test, [picture(i) for i in TEST])
        assert np.asarray(test.labels).tolist() == [LABELS[i] for i in TEST]
    assert open_source(f"hf:{folders}/{form}:train[:5]").size == 5


@FORMS
def test_the_test_split_is_what_monitors_and_evaluations_test_on(folders, form):
    for spec in (f"hf:{folders}/{form}", f"hf:{folders}/{form}:train"):
        assert open_test_split(spec, open_source(spec)).size == len(TEST)
        splits = open_splits(spec)
        assert (splits.train.size, splits.test.size, splits.class_names) == (
            COUNT,
            len(TEST),
            ("cats", "dogs"),
        )


@pytest.mark.parametrize("split", ["test", "test[:50%]", "train[:2]+test"])
def test_training_images_are_never_the_test(folders, split, capsys):
    splits = open_splits(f"hf:{folders}/images:{split}")
    count = {"test": 8, "test[:50%]": 4, "train[:2]+test": 10}[split]
    assert (splits.train.size, splits.test.size) == (count - 1, 1)
    assert "has images of the split 'test', which would be the test" in capsys.readouterr().err


def test_a_saved_split_by_itself(folders):
    source = open_source(f"hf:{folders}/one split")
    check_same_images(source, [picture(i) for i in range(COUNT)])
    assert open_test_split(f"hf:{folders}/one split", source) is None
    with pytest.raises(UserError, match=r"one split:test: no such split. Choose from train\.$"):
        open_source(f"hf:{folders}/one split:test")


@FORMS
def test_splits_are_checked_once_each(folders, form, monkeypatch, capsys):
    checked, decode_checked = [], checked_source.decode_checked
    monkeypatch.setattr(
        checked_source, "decode_checked", lambda *a, **k: checked.append(1) or decode_checked(*a, **k)
    )
    for _ in range(2):
        for split in ("train", "test"):
            open_source(f"hf:{folders}/{form}", split)
    assert len(checked) == COUNT + len(TEST)
    assert "since they were last checked" not in capsys.readouterr().err


def test_a_folder_whose_images_change_is_read_anew(tmp_path, folders):
    places.write_folder(tmp_path / "set" / "train")
    open_source(f"hf:{tmp_path}/set")
    (tmp_path / "set" / "train" / name(0)).write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 24 images cannot be decoded, such as 00000000"):
        open_source(f"hf:{tmp_path}/set")


def test_rows_without_an_image_or_a_label(tmp_path, folders):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {
        "image": [{"bytes": png(0), "path": None}, None, {"bytes": png(2), "path": None}],
        "label": [0, 1, None],
    }
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "set")
    with pytest.raises(
        UserError, match="1 of 3 images cannot be decoded, such as 00000001 .no image in this"
    ):
        open_source(f"hf:{tmp_path}/set")
    source = open_source(f"hf:{tmp_path}/set", on_bad_image="skip")
    assert source.size == 2 and source.labels is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:ROOT/text", r"has no column of images, but text \(Value\), number \(Value\)\.$"),
        (
            "hf:ROOT/images:tset",
            r"cannot be loaded \(Unknown split \"tset\". Should be one of .'train', 'test'",
        ),
        ("hf:ROOT/nowhere", r"cannot be loaded \(Couldn't find any data file at ROOT/nowhere"),
        ("hf:", r"^hf:: cannot be loaded \(.+\)\.$"),
    ],
)
def test_sets_that_cannot_be_loaded(folders, spec, message):
    with pytest.raises(UserError, match=message.replace("ROOT", str(folders))) as raised:
        open_source(spec.replace("ROOT", str(folders)))
    assert str(raised.value).startswith(f"{spec.replace('ROOT', str(folders))}: ")
    assert "\n" not in str(raised.value)


def test_without_the_library(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert pretrain.main(["--data=hf:beans", f"--workdir={tmp_path}/run"]) == 2
    line = "simsiam_tf.pretrain: hf:beans: needs datasets: pip install 'simsiam-tf[hf]'.\n"
    assert capsys.readouterr().err == line


@pytest.mark.slow
def test_a_run_and_its_evaluation(folders, tmp_path, capsys):
    data = f"--data=hf:{folders}/parquet"
    flags = [
        "--backbone=resnet10", "--stem=cifar", "--width=0.125", "--d=64", "--predictor_hidden=32",
        "--image_size=16", "--batch_size=8", "--epochs=2", "--precision=float32", "--strategy=one_device",
    ]  # fmt: skip
    assert pretrain.main([data, f"--workdir={tmp_path}/run", *flags]) == 0
    assert "knn20" in (tmp_path / "run" / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert knn_eval.main([data, f"--weights={tmp_path}/run"]) == 0
    compared = f"{len(TEST)} images of hf:{folders}/parquet:test, by {COUNT} of hf:{folders}/parquet:train"
    assert compared in capsys.readouterr().out
