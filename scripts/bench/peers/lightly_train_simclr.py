"""Trains a ResNet-18 by lightly-train's SimCLR, with its defaults, for as many epochs as fit into a time.

Two trials, of an epoch of some pictures and of three times as many, tell the time of an epoch; they do not
count. The epochs follow from the time, so that the rate reaches its end with the last. Where not even one
epoch of all pictures fits, as many pictures as fit are drawn for one.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import common
import lightly_train
import torch
import torchvision

BATCH, FEW = 128, 512


def main() -> None:
    args = common.arguments(__doc__ or "")
    files = common.paths(args.train)

    def train(name: str, pictures: list[str], epochs: int) -> tuple[Path, float]:
        began, out = time.perf_counter(), args.work / name
        lightly_train.pretrain(
            out=out, data=pictures, model="torchvision/resnet18", method="simclr", epochs=epochs,
            batch_size=BATCH, num_workers=2, seed=args.seed, overwrite=True, accelerator="cpu",
            precision="bf16-mixed" if common.has_bfloat16() else "32-true",
            transform_args={"image_size": (args.pixels, args.pixels)},
        )  # fmt: skip
        return out, time.perf_counter() - began

    random.Random(args.seed).shuffle(files)
    times = {}
    low = min(FEW, len(files) // 3)
    for count in (low, 3 * low):
        out, times[count] = train("trial", files[:count], 1)
    picture = (times[3 * low] - times[low]) / (2 * low)  # seconds
    fit = int((args.seconds - times[low]) / picture) + low  # pictures
    epochs = max(1, round(fit / len(files)))
    out, seconds = train("run", files[: max(fit, BATCH)], epochs)
    print(f"lightly-train: {epochs} epochs, {fit:,} pictures, {seconds:.0f} s", flush=True)

    network = torchvision.models.resnet18()
    network.load_state_dict(torch.load(out / "exported_models" / "exported_last.pt"), strict=False)
    network.fc = torch.nn.Identity()
    common.write_features(network, common.paths(args.embed), args.pixels, args.out)
    shutil.rmtree(args.work / "trial")


if __name__ == "__main__":
    main()
