"""Writes the features of a folder's images by lightly-train's `embed`, with its defaults.

The checkpoint of a ResNet-18 is made first where it is missing, by a moment of training on a few images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightly_train

FEW = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run with the checkpoint")
    parser.add_argument(
        "--out", type=Path, help="file of the features; without it only the checkpoint is made"
    )
    args = parser.parse_args()
    checkpoint = args.run / "checkpoints" / "last.ckpt"
    if not checkpoint.exists():
        few = [str(path) for path in sorted(args.images.iterdir())[:FEW]]
        lightly_train.pretrain(
            out=args.run, data=few, model="torchvision/resnet18", method="simclr", epochs=1, batch_size=8,
            num_workers=2, accelerator="cpu", overwrite=True, transform_args={"image_size": (64, 64)},
        )  # fmt: skip
    if args.out:
        lightly_train.embed(out=args.out, data=args.images, checkpoint=checkpoint, overwrite=True)


if __name__ == "__main__":
    main()
