"""python -m simsiam_tf.convert --weights=… --out=…: converts networks from PyTorch or to PyTorch."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, field_types, option
from simsiam_tf.pretrained.torch_layouts import LAYOUTS, SUFFIXES, WRITABLE_SUFFIXES
from simsiam_tf.runtime.errors import UserError, as_flags

ABOUT = """Converts backbone, projector and predictor from PyTorch weights to a folder that every --weights
takes, and from such a folder to PyTorch. Finds a ResNet under any prefix, by the names that torchvision,
timm, facebookresearch/simsiam, mmselfsup, solo-learn, lightly, MoCo, BYOL, DINO or Detectron2 give its
weights. Architecture and widths are read from the shapes; weights that are left out are listed. No code in a
pickle is run.

    python -m simsiam_tf.convert --weights=checkpoint.pth.tar --out=runs/converted
    python -m simsiam_tf.convert --weights=runs/photos --out=photos.safetensors"""


@dataclasses.dataclass(frozen=True)
class ConvertConfig(Config):
    """Options of convert."""

    weights: str | None = option(
        None, "PyTorch weights (.pth, .pth.tar, .pt, .ckpt, .bin, .safetensors), or a finished work folder, "
        "a .keras file or hf://USER/NAME", "Conversion",
    )  # fmt: skip
    out: str | None = option(None, "from PyTorch: folder to create; to PyTorch: .safetensors or .pth")
    layout: str = option(
        "auto",
        "program whose names the weights have (auto: found by the names) or get (auto: torchvision)",
        choices=("auto", *LAYOUTS),
    )
    prefix: str | None = option(
        None,
        "from PyTorch: prefix of the network to convert where a file has several, as in module.encoder_k; "
        "by default the network that the program's authors evaluate",
    )
    stem: str = option(
        "auto",
        "from PyTorch: first layers; auto: imagenet for a 7×7 kernel; for a 3×3 kernel cifar_pad2 where "
        "solo-learn wrote the file, else cifar",
        choices=("auto", "imagenet", "cifar", "small", "cifar_pad2"),
    )
    augmentation: str = option(
        "auto",
        "from PyTorch: preprocessing of images; auto: grayscale for one channel, else imagenet for the "
        "imagenet stem and cifar for others",
        choices=("auto", "imagenet", "cifar", "grayscale"),
    )
    image_size: int | None = option(
        None, "from PyTorch: side of the images in pixels; the augmentation's by default", limits=(4, 4096)
    )
    overwrite: bool = option(False, "replace an earlier conversion")

    def validate(self) -> ConvertConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        super().validate()
        if not self.weights or not self.out:
            raise UserError(f"--{'out' if self.weights else 'weights'}: missing. See --help.")
        out = Path(self.out).expanduser()
        if self.from_torch and out.suffix in (*SUFFIXES, ".keras"):
            raise UserError(f"--out={self.out}: must be a folder, as in --out=runs/converted.")
        if not self.from_torch and out.suffix not in WRITABLE_SUFFIXES:
            raise UserError(f"--out={self.out}: must end in .safetensors or .pth.")
        taken = out / "export" / "backbone.keras" if self.from_torch else out
        if taken.exists() and not self.overwrite:
            raise UserError(f"--out={self.out}: exists. Choose another, or pass --overwrite.")
        return self

    @property
    def from_torch(self) -> bool:
        """Whether the weights are PyTorch's, by their suffix."""
        return Path(self.weights or "").suffix in SUFFIXES


def call(config: ConvertConfig) -> int:
    """Converts, and prints a report."""
    with cli.heavy_imports():
        from simsiam_tf.distributed import strategies
        from simsiam_tf.pretrained import torch_weights

        strategies.look_for_devices()
    assert config.weights and config.out
    if config.from_torch:
        report = torch_weights.convert_from_torch(
            config.weights, config.out, config.layout, config.stem, config.augmentation, config.image_size,
            config.prefix,
        )  # fmt: skip
        print(as_flags(report, field_types(ConvertConfig)))
    else:
        print(torch_weights.convert_to_torch(config.weights, config.out, config.layout))
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ConvertConfig, call, "simsiam_tf.convert", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
