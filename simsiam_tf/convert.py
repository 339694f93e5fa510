"""python -m simsiam_tf.convert --weights=… --out=…: converts networks from PyTorch or to PyTorch."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, Inapplicable, field_types, option
from simsiam_tf.config.evaluation import PREPROCESSINGS
from simsiam_tf.pretrained.torch_layouts import LAYOUTS, SUFFIXES, WRITABLE_SUFFIXES
from simsiam_tf.runtime.errors import UserError, as_flags

ABOUT = """Converts backbone, projector and predictor from PyTorch weights to a folder that all commands take
as --weights, and from such a folder to PyTorch; presets of keras-hub are converted both ways, too. A ResNet
is found under any prefix, by the names that torchvision, timm, facebookresearch/simsiam, mmselfsup,
solo-learn, lightly, MoCo, BYOL, DINO or Detectron2 give its weights; EfficientNet-Lite by the names of
efficientnet_pytorch. Architecture and widths are read from the shapes, and weights that are left out are
listed. Code in a pickle is never run.

    python -m simsiam_tf.convert --weights=checkpoint.pth.tar --out=runs/converted
    python -m simsiam_tf.convert --weights=runs/photos --out=photos.safetensors
    python -m simsiam_tf.convert --weights=runs/photos --layout=keras_hub --out=photos_preset
    python -m simsiam_tf.convert --weights=photos_preset --layout=keras_hub --out=runs/converted"""

KERAS_HUB = "keras_hub"  # the only layout that is a folder; the others are names of weights in a file


@dataclasses.dataclass(frozen=True)
class ConvertConfig(Config):
    """Options of convert."""

    INAPPLICABLE = (
        Inapplicable(
            ("prefix", "stem", "augmentation", "image_size"), "to_torch", bool,
            "--weights that are converted to PyTorch",
        ),
        Inapplicable(("prefix", "stem"), "from_torch", lambda v: not v, "--weights that are not of PyTorch"),
    )  # fmt: skip
    DECIDERS = {"from_torch": {"weights"}, "to_torch": {"weights", "layout"}}

    weights: str | None = option(
        None, "PyTorch weights (.pth, .pth.tar, .pt, .ckpt, .bin, .safetensors), or a preset of keras-hub "
        "(folder, name or address), or a finished work folder, a .keras file or hf://USER/NAME", "Conversion",
    )  # fmt: skip
    out: str | None = option(
        None, "folder to create; to convert to PyTorch, a .safetensors or .pth file to write"
    )  # fmt: skip
    layout: str = option(
        "auto",
        "program whose names the PyTorch weights have (auto: recognised) or are to get (auto: torchvision); "
        "keras_hub: a preset of keras-hub, to which ResNets of width 1 with the imagenet stem are converted",
        choices=("auto", *LAYOUTS, KERAS_HUB),
    )
    prefix: str | None = option(
        None,
        "from PyTorch: prefix of the network to convert where a file has several, as in module.encoder_k; "
        "by default that of the network that the program's authors evaluate",
    )
    stem: str = option(
        "auto",
        "from PyTorch: first layers; auto: imagenet for a 7×7 kernel; for a 3×3 kernel cifar_pad2 where "
        "solo-learn wrote the file, else cifar, or an error where the program is not clear",
        choices=("auto", "imagenet", "cifar", "small", "cifar_pad2"),
    )
    augmentation: str = option(
        "auto",
        "preprocessing of images. auto, from PyTorch: grayscale for one channel, else imagenet for the "
        "imagenet stem and cifar for others; auto, otherwise: that of the preset or of the run",
        choices=PREPROCESSINGS,
    )
    image_size: int | None = option(
        None,
        "side of the images in pixels; by default that of the preset or `augmentation`",
        limits=(4, 4096),
    )
    overwrite: bool = option(False, "replace an earlier conversion")

    def validate(self) -> ConvertConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        if not self.weights or not self.out:
            raise UserError(f"--{'out' if self.weights else 'weights'}: missing. See --help.")
        super().validate()
        out = Path(self.out).expanduser()
        if self.from_torch and self.layout == KERAS_HUB:
            raise UserError(
                f"--layout={KERAS_HUB}: {self.weights} is a file of PyTorch. Convert it to a folder first, "
                "without --layout, and that folder then."
            )
        is_folder = self.from_torch or self.from_keras_hub or self.layout == KERAS_HUB
        if is_folder and out.suffix in (*SUFFIXES, ".keras"):
            raise UserError(f"--out={self.out}: must be a folder, as in --out=runs/converted.")
        if not is_folder and out.suffix not in WRITABLE_SUFFIXES:
            raise UserError(f"--out={self.out}: must end in .safetensors or .pth.")
        taken = out / "export" / "backbone.keras" if self.from_torch or self.from_keras_hub else out
        if taken.exists() and not self.overwrite:
            raise UserError(f"--out={self.out}: exists. Choose another, or pass --overwrite.")
        return self

    @property
    def from_torch(self) -> bool:
        """Whether the weights are PyTorch's, by their suffix."""
        return Path(self.weights or "").suffix in SUFFIXES

    @property
    def to_torch(self) -> bool:
        """Whether weights of this package are to be written for PyTorch."""
        return not (self.from_torch or self.from_keras_hub or self.layout == KERAS_HUB)

    @property
    def from_keras_hub(self) -> bool:
        """Whether the weights are a preset of keras-hub: its folder or, with layout=keras_hub, its name."""
        path = Path(self.weights or "").expanduser()
        is_preset = all((path / name).is_file() for name in ("config.json", "model.weights.h5"))
        is_download = self.layout == KERAS_HUB and not path.exists() and path.suffix != ".keras"
        return self.layout in ("auto", KERAS_HUB) and (is_preset or is_download)


def call(config: ConvertConfig) -> int:
    """Converts, and prints a report."""
    with cli.heavy_imports():
        from simsiam_tf.pretrained import keras_hub_presets, torch_weights
    assert config.weights and config.out
    if config.from_torch:
        report = torch_weights.convert_from_torch(
            config.weights, config.out, config.layout, config.stem, config.augmentation, config.image_size,
            config.prefix,
        )  # fmt: skip
        print(as_flags(report, field_types(ConvertConfig)))
    elif config.from_keras_hub:
        report = keras_hub_presets.convert_from_keras_hub(
            config.weights, config.out, config.augmentation, config.image_size
        )
        print(as_flags(report, field_types(ConvertConfig)))
    elif config.layout == KERAS_HUB:
        print(_write_preset(config))
    else:
        print(torch_weights.convert_to_torch(config.weights, config.out, config.layout))
    return 0


def _write_preset(config: ConvertConfig) -> str:
    """Writes a preset of keras-hub; returns a report."""
    from simsiam_tf.model_export import export_model, formats
    from simsiam_tf.pretrained.pretrained_backbone import open_pretrained

    out = Path(config.out or "").expanduser()
    formats.check_output(out, KERAS_HUB, config.overwrite)
    pretrained = open_pretrained(config.weights or "", config.augmentation, config.image_size, finished=False)
    with cli.silence_stderr():
        exported = export_model(pretrained, out, KERAS_HUB, config.overwrite)
    return (
        f"{exported.path}: a preset of keras-hub, with {pretrained.backbone.count_params():,} numbers\n"
        f"  largest difference of a feature from the source's: {exported.difference:.2g} "
        f"(largest feature {exported.largest:.2g}; {formats.COMPARED_IMAGES})\n"
        f"  card       {exported.path / 'README.md'}"
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ConvertConfig, call, "simsiam_tf.convert", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
