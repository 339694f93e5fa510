"""python -m simsiam_tf.export --weights=… --format=…: a backbone and its preprocessing for other programs."""

from __future__ import annotations

import dataclasses
import operator
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Inapplicable, WeightsConfig, option
from simsiam_tf.config.backbones import is_network
from simsiam_tf.pretrained import hub, weights_address
from simsiam_tf.runtime.errors import UserError

ABOUT = """Writes a backbone and its preprocessing as one network, which takes images of any size. The export
is read back as another program would read it, and its features are compared with the backbone's. A model card
is written beside it, as JSON and Markdown.

    python -m simsiam_tf.export --weights=runs/quickstart --format=onnx

--hub writes a folder for the Hugging Face Hub instead, with the model card as README. All commands take this
folder as --weights; --push uploads it, and --weights=hf://USER/NAME downloads it. No file in the folder names
a path of this machine.

    python -m simsiam_tf.export --weights=runs/quickstart --hub --push=USER/NAME --license=cc-by-4.0"""


@dataclasses.dataclass(frozen=True)
class ExportConfig(WeightsConfig):
    """Options of export."""

    INAPPLICABLE = (
        Inapplicable(("format",), "hub", bool, "--hub"),
        Inapplicable(("push", "license"), "hub", operator.not_, "no --hub"),
        Inapplicable(("private",), "push", operator.not_, "no --push"),
    )

    format: str = option(
        "saved_model",
        "keras: a .keras file; saved_model: a folder of TensorFlow; onnx; tflite: for phones",
        "Output",
        choices=("keras", "saved_model", "onnx", "tflite"),
    )
    hub: bool = option(
        False,
        "write a folder for the Hugging Face Hub instead (backbone.keras, README.md), which all commands "
        "take as `weights`; for a ResNet-18 to -101 of width 1 with imagenet stem also files for timm and, "
        "with 3 channels, torchvision",
    )
    license: str | None = option(
        None, "licence in the header of README.md: one of the Hub's names, such as apache-2.0 or cc-by-4.0"
    )
    push: str | None = option(
        None, "upload the folder to this repository of the Hub, USER/NAME, which is created if it is "
        "missing; needs HF_TOKEN or hf auth login",
    )  # fmt: skip
    private: bool = option(False, "create the repository as private")
    out: str | None = option(
        None, "file to write; for saved_model and the Hub a folder. By default model with the format's "
        "suffix, or a folder hub, in WORKDIR/export or beside the .keras file; for weights of the Hub in "
        "runs/USER-NAME, of a URL in runs/NAME-DIGEST, of a library in runs/KIND-NAME/export",
    )  # fmt: skip
    overwrite: bool = option(False, "replace an earlier export")

    def validate(self) -> ExportConfig:
        super().validate()
        if self.push is not None and not hub.is_repository(self.push):
            raise UserError(f"--push={self.push}: must be USER/NAME, as in --push=anna/birds.")
        if self.license is not None and not hub.LICENSE.fullmatch(self.license):
            raise UserError(
                f"--license={self.license}: must be a name of the Hub's list, in small letters, as in "
                "--license=apache-2.0."
            )
        return self


def call(config: ExportConfig) -> int:
    """Exports, compares features, writes the model card and prints the card's path."""
    with cli.heavy_imports():
        from simsiam_tf.model_export import export_model, formats, hub_push, write_model_card
        from simsiam_tf.pretrained import backbone_file, published
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
    assert config.weights
    format = "hub" if config.hub else config.format
    name = "hub" if config.hub else f"model{formats.FORMATS[format].suffix}"
    if weights_address.is_address(config.weights):
        folder = weights_address.results_folder(config.weights)
    elif is_network(config.weights):
        folder = published.results_folder(config.weights) / backbone_file.EXPORTED.parent
    else:
        folder = backbone_file.backbone_path(config.weights).parent
    out = Path(config.out).expanduser() if config.out else folder / name
    formats.check_output(out, format, config.overwrite)
    if config.push:
        hub_push.check_login(config.push)
    pretrained = open_pretrained(config.weights, **config.preprocessing())
    if config.license:
        pretrained = dataclasses.replace(pretrained, card={**pretrained.card, "license": config.license})
    print(f"writing {out}, and reading it back", flush=True)
    with cli.silence_stderr():
        exported = export_model(pretrained, out, format, config.overwrite)
    card = out / "README.md" if config.hub else write_model_card(pretrained, exported)
    print(
        f"  largest difference of a feature from the source's: {exported.difference:.2g} "
        f"(largest feature {exported.largest:.2g}; {formats.COMPARED_IMAGES})\n  card  {card}"
    )
    if config.push:
        url = hub_push.push_folder(out, config.push, config.private)
        print(f"  pushed  {url}: take it with --weights={hub.PREFIX}{config.push}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ExportConfig, call, "simsiam_tf.export", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
