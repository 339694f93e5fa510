"""The header of a README for the Hub is read back as written; no path of the machine is published."""

import dataclasses
import json
import types

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs simsiam-tf[hub]")

from helpers import small_backbones

from simsiam_tf import open_pretrained
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.data.augment.eval_transform import shorter_side
from simsiam_tf.model_export import hub_card, hub_folder

ACCURACY = {
    "raw pixels": {"knn20": 0.3}, "untrained backbone": {"knn20": 0.4},
    "backbone": {"knn20": 0.75, "knn200": 0.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATIONS["cifar"], channels=3)
    return open_pretrained(str(folder))


def header_of(pretrained, card, name=""):
    text = hub_card.hub_readme(dataclasses.replace(pretrained, card=card), name, "ab12")
    return huggingface_hub.ModelCard(text).data


def test_the_header(pretrained):
    card = {"configuration": {"method": "simsiam", "data": "hf:anna/birds:train"}, "accuracy": ACCURACY}
    header = header_of(pretrained, {**card, "license": "mit"}, "resnet18")
    assert (header.license, header.library_name, header.datasets) == ("mit", "timm", ["anna/birds"])
    assert header.pipeline_tag == "image-feature-extraction"
    assert header.tags == ["simsiam", "self-supervised"] and header.model_name == "resnet18"
    assert [(r.metric_name, r.metric_value) for r in header.eval_results] == [
        ("kNN accuracy, knn20", 0.75), ("kNN accuracy, knn200", 0.5),
    ]  # fmt: skip
    assert {r.dataset_type for r in header.eval_results} == {"anna/birds"}
    bare = header_of(pretrained, {}).to_dict()
    assert bare == {
        "library_name": "keras", "pipeline_tag": "image-feature-extraction", "tags": ["image-features"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("hf:anna/birds:train", "anna/birds"), ("tfds:cifar10", "cifar10"), ("digits", "digits"),
        ("fashion_mnist:train[:20000]", "fashion_mnist"), ("folder:/home/anna/birds", None),
        ("folder:birds", None), ("tar:s3://anna/birds.tar", None), ("hf:/home/anna/birds", None), (7, None),
        (None, None),
    ],
)  # fmt: skip
def test_published_sets_alone_are_named(data, name):
    assert hub_card.public_data({"configuration": {"data": data}}) == name


@pytest.mark.parametrize("odd", ["x: y\n- z", "---", "{", "# no", "'", "null", "1e3", "\x1b[31m", "é\u2028"])
def test_odd_values_of_a_card_stay_values(pretrained, odd):
    """The header that is read back is the header that was meant, and the page has no second one."""
    card = {"license": odd, "data": odd, "accuracy": {"backbone": {odd: 0.5, "knn20": odd}},
            "configuration": {"data": odd, "method": odd}}  # fmt: skip
    header = header_of(pretrained, card)
    metrics = [result.metric_value for result in header.eval_results or ()]
    assert metrics == ([0.5] if odd.isalnum() else [])
    assert header.license in (None, "null", "1e3")  # nothing but a name


def test_no_path_of_the_machine_is_published(pretrained, tmp_path):
    secret = "/home/anna/secret"
    card = {
        "data": f"folder:{secret}/my birds, 0.1 of every class", "test": f"tar:{secret}/birds.tar",
        "weights": {"path": secret, "sha256": "ab12"}, "networks beside": {"projector": "ab12"},
        "configuration": {"data": f"folder:{secret}/birds", "workdir": secret, "weights": secret,
                          "monitor": f"zip:{secret}/x.zip", "data_dir": secret, "seed": 3},
    }  # fmt: skip
    hub_folder.write_hub_folder(dataclasses.replace(pretrained, card=card), tmp_path / "hub")
    for file in ("README.md", "backbone.json"):
        assert "secret" not in (tmp_path / "hub" / file).read_text(), file
    written = json.loads((tmp_path / "hub" / "backbone.json").read_text())
    assert written["data"] == "folder:my birds, 0.1 of every class" and written["test"] == "tar:birds.tar"
    assert written["configuration"] == {"seed": 3} and "networks beside" not in written
    assert open_pretrained(str(tmp_path / "hub")).card["configuration"] == {"seed": 3}


def test_a_size_given_by_hand_is_published(pretrained, tmp_path):
    larger = dataclasses.replace(
        pretrained, augmentation=dataclasses.replace(pretrained.augmentation, size=64), card={}
    )
    hub_folder.write_hub_folder(larger, tmp_path / "hub")
    opened = open_pretrained(str(tmp_path / "hub"))
    assert opened.augmentation == larger.augmentation and opened.sha256 == pretrained.sha256


def test_a_card_keeps_the_size_of_the_trainings_views(pretrained, tmp_path):
    """Whitened features are read at another size than that of the training: each has its entry."""
    trained, read = (dataclasses.replace(pretrained.augmentation, size=size) for size in (32, 64))
    known = {"views": dataclasses.asdict(trained), "finishing": {"size": 48}}
    card = hub_folder.published_card(dataclasses.replace(pretrained, augmentation=read, card=known))
    assert card["views"]["size"] == 32 and card["finishing"]["size"] == 64


@pytest.mark.parametrize("size", [224, 96, 65, 160, 384, 299, 64, 32])
def test_timm_resizes_as_our_evaluation_does(size):
    data = pytest.importorskip("timm.data")
    crop = hub_folder._crop(size)
    resize, *_ = data.create_transform((3, size, size), interpolation="bilinear", **crop).transforms
    short = shorter_side(size)
    assert resize.size in (short, (short, short), [short, short])
    assert crop["crop_mode"] == ("center" if size > 64 else "squash")


def test_a_header_that_is_read_back_otherwise_is_refused(pretrained, monkeypatch):
    read = types.SimpleNamespace(data=types.SimpleNamespace(to_dict=dict))
    monkeypatch.setattr(huggingface_hub, "ModelCard", lambda text: read)
    with pytest.raises(ValueError, match="not read back"):
        hub_card.hub_readme(pretrained, "", "ab12")
