"""The paper's augmentation as PyTorch's users have it: torchvision's transforms on PIL images.

torchvision's wheels expect a CUDA build of PyTorch. Beside a CPU build their compiled operators are missing,
which the transforms do not need: it is enough to declare them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image, ImageFilter

_OPERATORS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward",
    "ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward",
    "deform_conv2d", "_deform_conv2d_backward",
)  # fmt: skip
try:
    import torchvision.transforms as T
except RuntimeError:  # "operator torchvision::nms does not exist"
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in _OPERATORS:
        _library.define(f"{_name}(Tensor x) -> Tensor")
    import torchvision.transforms as T


class Blur:
    """PIL's Gaussian blur with σ uniform in `sigma`."""

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def transform(size: int = 224) -> Callable[[Image.Image], torch.Tensor]:
    """One view of an RGB image: float32 [3, size, size] (Sec. 3)."""
    return T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.2, 1.0)),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomApply([Blur()], p=0.5),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def load(name: str) -> Image.Image:
    with open(name, "rb") as file:
        return Image.open(file).convert("RGB")


class Pairs(torch.utils.data.Dataset):
    """Two views of every JPEG below a folder."""

    def __init__(self, folder: str) -> None:
        self.names = sorted(str(p) for p in Path(folder).rglob("*.[jJ][pP]*[gG]"))
        self.transform = transform()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = load(self.names[i])
        return self.transform(image), self.transform(image)


def endless_loader(
    folder: str, batch: int, workers: int, pinned: bool = False
) -> Iterator[list[torch.Tensor]]:
    """Shuffled batches of pairs, epoch after epoch, from workers that live as long as the iterator.

    A small folder is repeated within an epoch, at whose end workers wait for each other. pinned: whether
    batches are put into memory from which a GPU copies.
    """
    pairs = Pairs(folder)
    pairs.names *= math.ceil(8 * max(1, workers) * batch / len(pairs))
    loader = torch.utils.data.DataLoader(
        pairs, batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0,
        pin_memory=pinned,
    )  # fmt: skip
    while True:
        yield from loader
