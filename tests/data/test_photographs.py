"""Features and pixels of image files equal those of torchvision's transforms and network."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
pytest.importorskip("reference_torch.torchvision_views", reason="needs torchvision: simsiam-tf[parity]")

from helpers.torch_layouts import resnet
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision import transforms

from simsiam_tf.data import Augmentation, Views, open_source, pipeline, preprocess
from simsiam_tf.data.augment.augmentations import IMAGENET_MEAN, IMAGENET_STD
from simsiam_tf.pretrained.torch_weights import from_torch

SIDES = ((640, 427), (427, 640), (333, 517), (300, 300), (1100, 801), (90, 700))  # width, height


NOISE_SIDES = ((280, 260), (300, 257), (240, 320))  # hardly shrunk: most values lie near a rounding


def noise(sides):
    """A smooth picture with noise, (width, height)."""
    y, x = np.mgrid[: sides[1], : sides[0]]
    waves = 127 + 90 * np.sin(19 * x / sides[0]) * np.cos(25 * y / sides[1])
    noisy = waves[..., None] + np.random.default_rng(5).normal(0, 8, (*waves.shape, 3))
    return Image.fromarray(noisy.clip(0, 255).astype("uint8"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """JPEG and PNG files of photographs in sizes whose resized sides are no whole numbers."""
    folder = tmp_path_factory.mktemp("photographs")
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    for i, sides in enumerate(SIDES):
        image = (china, flower)[i % 2].resize(sides, Image.Resampling.LANCZOS)
        image.save(folder / f"{i}.jpg", quality=90, subsampling=(2, 0)[i % 2])
    china.save(folder / "china.png")
    for sides in NOISE_SIDES:
        noise(sides).save(folder / f"noise{sides[0]}.png")
    return sorted(folder.iterdir())


def theirs(file, size, short):
    ready = [transforms.Resize(short), transforms.CenterCrop(size), transforms.ToTensor()]
    ready = transforms.Compose([*ready, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    return ready(Image.open(file).convert("RGB"))


def test_a_tall_file_has_nearly_torchvisions_features(tmp_path, measured):
    """Pillow resizes its height first from version 13 on, this package and earlier versions its width."""
    noise((300, 1000)).save(tmp_path / "tall.png")
    difference = difference_from_torchvision([tmp_path / "tall.png"], 224, 256)
    measured("features of a tall image file by torchvision", difference, 2e-2)


@pytest.mark.parametrize(("size", "short"), [pytest.param(224, 256, marks=pytest.mark.slow), (96, 110)])
def test_features_of_files_are_those_of_torchvision(files, size, short, measured):
    difference = difference_from_torchvision(files, size, short)
    measured("features of image files by torchvision", difference, 5e-6)


def difference_from_torchvision(files, size, short):
    """Largest difference of a ResNet-18's features of files, relative to the largest feature."""
    net = resnet("resnet18")
    backbone = from_torch({k: v.numpy() for k, v in net.state_dict().items()}).backbone
    net.fc = nn.Identity()
    with torch.no_grad():
        expected = net(torch.stack([theirs(file, size, short) for file in files])).numpy()
    source = open_source(f"folder:{files[0].parent}")
    assert list(source.names) == [file.name for file in files]
    (images,) = pipeline.evaluation_views(source, Views(Augmentation(size=size), 1), range(source.size))
    found = backbone(images, training=False).numpy()
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("size", "short"), [(224, 256), (96, 110)])
def test_pixels_are_those_of_torchvision(files, size, short):
    augmentation = Augmentation(size=size)
    views = Views(augmentation, 1)
    for file in files:
        expected = theirs(file, size, short).permute(1, 2, 0).numpy()
        image = np.asarray(Image.open(file).convert("RGB"))
        for found in (
            views.normalise(views.evaluation_view(tf.constant(image))),
            preprocess(image[None], augmentation)[0],
        ):
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=file.name)


def test_a_long_thin_image_needs_no_more_memory_than_its_file():
    view = Views(Augmentation(size=96), 1).evaluation_view
    stripe = np.zeros((2, 60_000, 3), np.uint8)
    stripe[:, 29_000:31_000] = 200  # resized whole it would have 3.3 million columns
    made = tf.function(view).get_concrete_function(tf.TensorSpec([None, None, 3], tf.uint8))
    np.testing.assert_array_equal(made(tf.constant(stripe)), 200)
    tall = made(tf.constant(stripe.transpose(1, 0, 2)))
    np.testing.assert_array_equal(tall, 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        "Views(Augmentation(size=96), 1).evaluation_view",
        "lambda x: preprocess(x, Augmentation(size=96))",
    ],
)
def test_no_uint8_is_transposed_since_onednn_complains(what):
    code = (
        "import tensorflow as tf\n"
        "from simsiam_tf.data import Augmentation, Views, preprocess\n"
        f"ready = tf.function({what}, autograph=False)\n"
        "ready(tf.ones([2, 130, 180, 3], tf.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "DT_UINT8" not in done.stderr, done.stderr
