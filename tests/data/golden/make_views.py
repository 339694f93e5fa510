"""Golden values of the augmentation's operators, from torchvision and PIL on two photographs.

    pip install torch torchvision pillow scikit-learn
    python tests/data/golden/make_views.py       # writes views.npz beside this file

The photographs are scikit-learn's china.jpg and flower.jpg. Arrays are named PHOTO/OPERATOR:
uint8 where PIL computes, float16 in [0, 255] where torchvision's tensor backend does (the hue and
the chains: PIL quantises a hue to 256 steps, and every step of a chain to 256 levels).
tests/data/test_augment_layers.py repeats the parameters below by importing this file, which needs neither
library until `main` runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("views.npz")
REGION = {"china": (slice(150, 278), slice(220, 380)), "flower": (slice(100, 228), slice(180, 340))}
PATCH = (slice(30, 70), slice(60, 116))  # of the region: 40 × 56 pixels for all but the crops
SIZE = 64
BOXES = {"shrink": (7, 12, 119, 131), "enlarge": (50, 81, 33, 41)}  # top, left, height, width
FACTORS = (0.6, 1.4)
HUES = (-0.08, 0.1)
SIGMAS = (0.5, 1.0, 2.0)
CHAIN = {"brightness": 1.4, "contrast": 0.65, "saturation": 1.35, "hue": 0.09}
ORDERS = (
    ("brightness", "contrast", "saturation", "hue"),
    ("contrast", "hue", "saturation", "brightness"),
)


def operators(photo: np.ndarray) -> dict[str, np.ndarray]:
    """One region, uint8 [H, W, 3] → name → what the libraries make of it."""
    import torch
    from PIL import Image, ImageFilter
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    region, patch = Image.fromarray(photo), Image.fromarray(photo[PATCH])
    tensor = torch.tensor(np.asarray(patch)).permute(2, 0, 1) / 255.0
    adjust = {name: getattr(tv, f"adjust_{name}") for name in CHAIN}
    out = {"region": region}
    for name, box in BOXES.items():
        out[f"crop/{name}"] = tv.resized_crop(region, *box, [SIZE, SIZE], InterpolationMode.BILINEAR)
    for name in ("brightness", "contrast", "saturation"):
        out |= {f"{name}/{f}": adjust[name](patch, f) for f in FACTORS}
    out |= {f"hue/{shift}": levels(tv.adjust_hue(tensor, shift)) for shift in HUES}
    out["gray"] = tv.to_grayscale(patch, num_output_channels=3)
    out |= {f"blur/{s}": patch.filter(ImageFilter.GaussianBlur(radius=s)) for s in SIGMAS}
    out["flip"] = tv.hflip(patch)
    for i, order in enumerate(ORDERS):
        x = tensor
        for name in order:
            x = adjust[name](x, CHAIN[name])
        out[f"chain/{i}"] = levels(x)
    return {name: np.asarray(x) for name, x in out.items()}


def levels(x) -> np.ndarray:
    """Tensor [3, H, W] in [0, 1] → float16 [H, W, 3] in [0, 255]."""
    return (x.permute(1, 2, 0).numpy() * 255.0).astype(np.float16)


def declare_operators() -> None:
    """Lets torchvision's wheel, built for CUDA, be imported beside the CPU build of torch."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    pooled = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
    for name in ("nms", "qnms", *pooled, *(f"_{name}_backward" for name in pooled)):
        library.define(f"{name}(Tensor x) -> Tensor")
    declare_operators.library = library  # the declarations live as long as it does


def main() -> None:
    from sklearn.datasets import load_sample_images

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        declare_operators()
    samples = load_sample_images()
    golden = {}
    for photo, region in REGION.items():
        at = [Path(name).stem for name in samples.filenames].index(photo)
        made = operators(np.ascontiguousarray(samples.images[at][region]))
        golden |= {f"{photo}/{name}": x for name, x in made.items()}
    np.savez_compressed(FILE, **golden)
    print(f"{FILE}: {len(golden)} arrays, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
