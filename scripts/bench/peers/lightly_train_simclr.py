"""Trains a ResNet-18 by lightly-train's SimCLR, with its defaults, for as many epochs as fit into a time.

Two trials, of one epoch of 512 pictures and of all, tell the time of an epoch; they do not count. The epochs
follow from the time, so that the rate reaches its end with the last. Where not even one epoch fits, one is
trained, which takes longer.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import common
import lightly_train
import torch
import torchvision


def main() -> None:
    args = common.arguments(__doc__ or "")
    files = common.paths(args.train)

    def train(name: str, pictures: list[str], epochs: int) -> tuple[Path, float]:
        began, out = time.perf_counter(), args.work / name
        lightly_train.pretrain(
            out=out, data=pictures, model="torchvision/resnet18", method="simclr", epochs=epochs,
            batch_size=128, num_workers=2, seed=args.seed, overwrite=True, accelerator="cpu",
            precision="bf16-mixed" if common.has_bfloat16() else "32-true",
            transform_args={"image_size": (args.pixels, args.pixels)},
        )  # fmt: skip
        return out, time.perf_counter() - began

    _, few = train("few", files[:512], 1)
    _, whole = train("whole", files, 1)
    epoch = max((whole - few) * len(files) / max(len(files) - 512, 1), 1e-3)
    epochs = max(1, round((args.seconds - few) / epoch))
    out, seconds = train("run", files, epochs)
    print(f"lightly-train: {epochs} epochs of {epoch:.1f} s, {seconds:.0f} s in all", flush=True)

    network = torchvision.models.resnet18()
    network.load_state_dict(torch.load(out / "exported_models" / "exported_last.pt"), strict=False)
    network.fc = torch.nn.Identity()
    common.write_features(network, common.paths(args.embed), args.pixels, args.out)
    for name in ("few", "whole"):
        shutil.rmtree(args.work / name)


if __name__ == "__main__":
    main()
