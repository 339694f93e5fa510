"""python -m simsiam_tf.export --weights=… --format=…: a backbone and its preprocessing for other programs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Inapplicable, WeightsConfig, option

ABOUT = """Writes a backbone and its preprocessing as one network, which takes images of any size. The export
is read back as another program would read it, and its features are compared with the backbone's. A model card
is written beside it, as JSON and Markdown. --hub writes a folder of weights instead, with the card as README.

    python -m simsiam_tf.export --weights=runs/quickstart --format=onnx"""


@dataclasses.dataclass(frozen=True)
class ExportConfig(WeightsConfig):
    """Options of export."""

    INAPPLICABLE = (Inapplicable(("format",), "hub", bool, "--hub"),)

    format: str = option(
        "saved_model",
        "keras: a Keras file; saved_model: TensorFlow's folder; onnx; tflite: for phones",
        "Output",
        choices=("keras", "saved_model", "onnx", "tflite"),
    )
    hub: bool = option(
        False,
        "write a folder for the Hugging Face Hub instead (safetensors, config.json, README.md), which timm "
        "and, for 3 channels, torchvision read; of a ResNet-18 to -101 of width 1 with imagenet stem",
    )
    out: str | None = option(
        None, "file to write; for saved_model and the Hub a folder. By default model and the format's "
        "suffix, or hub, in WORKDIR/export or beside a .keras file",
    )  # fmt: skip
    overwrite: bool = option(False, "replace an earlier export")


def call(config: ExportConfig) -> int:
    """Exports, compares features, writes the model card and prints the card's path."""
    with cli.heavy_imports():
        from simsiam_tf.model_export import export_model, formats, write_model_card
        from simsiam_tf.pretrained.backbone_file import backbone_path
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
    assert config.weights
    format = "hub" if config.hub else config.format
    name = "hub" if config.hub else f"model{formats.FORMATS[format].suffix}"
    out = Path(config.out).expanduser() if config.out else backbone_path(config.weights).parent / name
    formats.check_output(out, format, config.overwrite)
    pretrained = open_pretrained(config.weights, **config.preprocessing())
    print(f"writing {out}, and reading it back", flush=True)
    with cli.silence_stderr():
        exported = export_model(pretrained, out, format, config.overwrite)
    card = out / "README.md" if config.hub else write_model_card(pretrained, exported)
    print(
        f"  largest difference of a feature from the source's: {exported.difference:.2g} "
        f"(largest feature {exported.largest:.2g})\n  card  {card}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ExportConfig, call, "simsiam_tf.export", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
