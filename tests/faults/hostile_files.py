"""What tests of hostile files share: good ones to start from, and what it means to be refused."""

import functools
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam_tf import nets
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError


@functools.cache
def _good():
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        backbone_file.save_network(nets.resnet("resnet10", "cifar", 0.05, 1), Path(file.name))
        with zipfile.ZipFile(file.name) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def good():
    """The members {name: bytes} of a small backbone's file."""
    return dict(_good())


class Payload:
    """Makes the canary when unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def packed(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def refused(path, expected):
    """Checks that a file is refused in a printable line, and that this leaves nothing behind."""
    before = sorted(str(p) for p in path.parent.rglob("*"))
    with pytest.raises(UserError, match=expected) as caught:
        backbone_file.load_backbone(str(path))
    assert path.name in str(caught.value) and str(caught.value).isprintable()
    assert sorted(str(p) for p in path.parent.rglob("*")) == before


def normal(root, name="ok.png"):
    """An image that nothing is wrong with."""
    root.mkdir(exist_ok=True)
    Image.fromarray(np.full((30, 30, 3), 99, np.uint8)).save(root / name)
