"""python -m simsiam_tf.export --weights=… --format=…: a backbone and its preprocessing for other programs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Inapplicable, WeightsConfig, option

ABOUT = """Writes a backbone that takes images of any size as they are: resizing and normalisation are inside.
The file is read back as another program would, and its features are held against the source's. A card lies
beside it, as JSON and Markdown.

    python -m simsiam_tf.export --weights=runs/quickstart --format=onnx"""


@dataclasses.dataclass(frozen=True)
class ExportConfig(WeightsConfig):
    """An export."""

    INAPPLICABLE = (Inapplicable(("format",), "hub", bool, "--hub"),)

    format: str = option(
        "saved_model",
        "keras: a Keras file; saved_model: TensorFlow's folder; onnx; tflite: for phones",
        "Output",
        choices=("keras", "saved_model", "onnx", "tflite"),
    )
    hub: bool = option(
        False,
        "instead: a folder for the Hugging Face Hub (safetensors, config.json, README.md), which timm and "
        "torchvision read, of a ResNet-18, -34 or -50 of width 1 with the imagenet stem",
    )
    out: str | None = option(
        None, "file, or folder of a saved_model or for the Hub; WORKDIR/export/model and its suffix, or "
        "WORKDIR/export/hub, by default",
    )  # fmt: skip
    overwrite: bool = option(False, "replace what is there")


def call(config: ExportConfig) -> int:
    """Exports, compares, writes the card and says where."""
    with cli.heavy_imports():
        from simsiam_tf.distributed import strategies
        from simsiam_tf.model_export import formats, hub_folder, model_card
        from simsiam_tf.pretrained.backbone_file import located
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained

        strategies.look_for_devices()
    name = "hub" if config.hub else f"model{formats.FORMATS[config.format].suffix}"
    out = Path(config.out).expanduser() if config.out else located(config.weights).parent / name
    if config.hub:
        hub_folder.check(out, config.overwrite)
    else:
        formats.check(out, config.format, config.overwrite)
    pretrained = open_pretrained(config.weights, config.augmentation, config.image_size)
    print(f"writing {out}, and reading it back", flush=True)
    with cli.silence_stderr():
        if config.hub:
            made, card = hub_folder.write(pretrained, out, config.overwrite), out / "README.md"
        else:
            made = formats.export(pretrained, out, config.format, config.overwrite)
            _, card = model_card.write(pretrained, made)
    print(
        f"  largest difference of a feature from the source's: {made.difference:.2g} "
        f"(largest feature {made.largest:.2g})\n  card  {card}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ExportConfig, call, "simsiam_tf.export", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
