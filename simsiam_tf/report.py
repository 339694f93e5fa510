"""python -m simsiam_tf.report --workdir=…: a pre-training or a transfer as one HTML page."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import SourceConfig, option
from simsiam_tf.config.images import bad_image_option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Writes WORKDIR/report.html, one file that opens offline: the diagnosis in words, curves, views, a
map of the embeddings, neighbours, the spectrum of the features, saliency and results. It replaces an earlier
report. While the run goes on, the report has no images yet. The embeddings are also written for TensorBoard's
projector. The report of transfer has its metrics, curves, and test images with true and predicted boxes or
masks side by side; of the options, only out matters to it.

    python -m simsiam_tf.report --workdir=runs/quickstart
    python -m simsiam_tf.report --workdir=runs/garments/detection"""
NEEDS = ("matplotlib", "jinja2")


@dataclasses.dataclass(frozen=True)
class ReportConfig(SourceConfig):
    """Options of report."""

    workdir: str | None = option(None, "work folder of a pre-training or of transfer", "Report")
    out: str | None = option(None, "file to write; by default WORKDIR/report.html")
    images: int = option(2000, "number of images whose embeddings are shown", limits=(4, 20000))
    neighbours: int = option(7, "number of neighbours to show for an image", limits=(1, 50))
    seed: int = option(0, "seed of all random choices", limits=(0, 2**31 - 1))
    tensorboard: bool = option(True, "write the embeddings for TensorBoard's projector, to WORKDIR/tb")
    data: str | None = option(
        None, "images to show, as for pretrain; by default the training images of the run", "Images"
    )
    on_bad_image: str = bad_image_option("skip")

    def validate(self) -> ReportConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        super().validate()
        if not self.workdir:
            raise UserError(
                "--workdir: missing. Pass that of a pre-training or transfer, as in --workdir=runs/a."
            )
        return self


def call(config: ReportConfig) -> int:
    """Writes the report and prints its path."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"a report needs {' and '.join(missing)}: pip install 'simsiam-tf[viz]'.")
    with cli.heavy_imports():
        from simsiam_tf import html_report
    shared = {field.name for field in dataclasses.fields(SourceConfig)} | {"workdir"}
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in shared}
    reading = config.source_options()
    path = html_report.write_report(config.workdir or "", data=config.data, **options, **reading)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ReportConfig, call, "simsiam_tf.report", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
