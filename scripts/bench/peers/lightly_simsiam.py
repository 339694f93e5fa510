"""Trains a ResNet-18 by SimSiam from lightly's parts, with the sizes and the rate of its example, for a time.

Ten steps after the first five are timed; the number of steps follows, and the rate falls along a cosine.
"""

from __future__ import annotations

import time

import common
import torch
import torchvision
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from lightly.transforms import SimSiamTransform
from PIL import Image

BATCH, LR, WARM, TIMED = 256, 0.06, 5, 10


class Pictures(torch.utils.data.Dataset):
    """Two views of each picture."""

    def __init__(self, files: list[str], pixels: int) -> None:
        self.files, self.transform = files, SimSiamTransform(input_size=pixels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> list[torch.Tensor]:
        return self.transform(Image.open(self.files[i]).convert("RGB"))


def main() -> None:
    began = time.perf_counter()
    args = common.arguments(__doc__ or "")
    torch.manual_seed(args.seed)
    files = common.paths(args.train)
    backbone = torchvision.models.resnet18()
    backbone.fc = torch.nn.Identity()
    project, predict = SimSiamProjectionHead(512, 512, 128), SimSiamPredictionHead(128, 64, 128)
    networks, loss_of = torch.nn.ModuleList([backbone, project, predict]), NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(networks.parameters(), lr=LR, momentum=0.9)
    loader = torch.utils.data.DataLoader(
        Pictures(files, args.pixels), min(BATCH, len(files)), shuffle=True, drop_last=True, num_workers=2,
        persistent_workers=True,
    )  # fmt: skip
    precision = torch.autocast("cpu", torch.bfloat16, enabled=common.has_bfloat16())
    step, last, timed = 0, WARM + TIMED + 1, began
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None
    while step < last:
        for views in loader:
            with precision:
                z = [project(backbone(x)) for x in views]
                p = [predict(x) for x in z]
                loss = 0.5 * (loss_of(z[0].detach(), p[1]) + loss_of(z[1].detach(), p[0]))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step == WARM:
                timed = time.perf_counter()
            elif step == WARM + TIMED:
                now = time.perf_counter()
                last = step + max(1, int((args.seconds - (now - began)) / ((now - timed) / TIMED)))
                schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, last - step)
            elif schedule is not None:
                schedule.step()
            if step == last:
                break
    print(f"lightly: {step} steps, loss {loss.item():.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    common.write_features(backbone, common.paths(args.embed), args.pixels, args.out)


if __name__ == "__main__":
    main()
