"""What the trainings of other libraries share: arguments, and the features of a torchvision ResNet-18.

These scripts run in an environment of their own (`scripts/bench/learning.py` makes it), without this package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def arguments(doc: str) -> argparse.Namespace:
    """The arguments of a training. Pictures are RGB files."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--train", type=Path, required=True, help="file that names the pictures to train on")
    parser.add_argument("--embed", type=Path, required=True, help="file that names the pictures to embed")
    parser.add_argument(
        "--seconds", type=float, required=True, help="time of the training, its start included"
    )
    parser.add_argument("--pixels", type=int, default=48, help="side of the views")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for the training's files")
    parser.add_argument("--out", type=Path, required=True, help="file for the features, .npy")
    return parser.parse_args()


def paths(file: Path) -> list[str]:
    """The paths in a file, one a line."""
    return file.read_text(encoding="utf-8").splitlines()


def write_features(network: torch.nn.Module, files: list[str], pixels: int, out: Path) -> None:
    """Writes the outputs of a network for pictures of pixels × pixels, float32 [N, F]."""
    network.eval()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(files), 256):
            pictures = [Image.open(file).convert("RGB") for file in files[start : start + 256]]
            pictures = [p.resize((pixels, pixels), Image.Resampling.BILINEAR) for p in pictures]
            x = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2) / 255
            x = torchvision.transforms.functional.normalize(x, MEAN, STD)
            blocks.append(network(x).flatten(1).float().numpy())
    np.save(out, np.concatenate(blocks))


def has_bfloat16() -> bool:
    """Whether the processor computes products in bfloat16."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
