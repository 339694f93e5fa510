"""python -m simsiam_tf.report --workdir=…: a pre-training as one page."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Writes WORKDIR/report.html, one file that needs no network: curves, views, embeddings on a plane,
neighbours, spectrum, saliency, results, and the diagnosis in words. A report that is there is replaced. Works
while the run goes on, too. TensorBoard gets the embeddings for its projector.

    python -m simsiam_tf.report --workdir=runs/quickstart"""
NEEDS = ("matplotlib", "jinja2")


@dataclasses.dataclass(frozen=True)
class ReportConfig(Config):
    """A report."""

    workdir: str | None = option(None, "work folder of a pre-training", "Report")
    out: str | None = option(None, "file to write; WORKDIR/report.html by default")
    images: int = option(2000, "images that are embedded", limits=(4, 20000))
    neighbours: int = option(7, "neighbours shown of an image", limits=(1, 50))
    seed: int = option(0, "of whatever is drawn", limits=(0, 2**31 - 1))
    tensorboard: bool = option(True, "give the embeddings to TensorBoard's projector, in WORKDIR/tb")
    data: str | None = option(
        None, "images to show: fashion_mnist, digits, tfds:NAME[:SPLIT] or folder:PATH; by default what the "
        "run learned from", "Images",
    )  # fmt: skip
    data_dir: str | None = option(None, "where TFDS keeps its data sets")
    on_bad_image: str = option(
        "skip", "what to do with unreadable images of a folder", choices=("error", "skip")
    )
    max_megapixels: float = option(
        100.0, "larger images of a folder count as unreadable", limits=(0.001, 1e4)
    )

    def validate(self) -> ReportConfig:
        """Returns itself, or raises UserError for the first value that cannot be."""
        super().validate()
        if not self.workdir:
            raise UserError(
                "--workdir: missing. Pass that of a pre-training, as in --workdir=runs/quickstart."
            )
        return self


def call(config: ReportConfig) -> int:
    """Writes the report and says where."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"a report needs {' and '.join(missing)}: pip install 'simsiam-tf[viz]'.")
    with cli.silence_stderr():
        from simsiam_tf import html_report
        from simsiam_tf.distributed import strategies

        strategies.look_for_devices()
    options = {
        "data_dir": config.data_dir, "on_bad_image": config.on_bad_image,
        "max_megapixels": config.max_megapixels,
    }  # fmt: skip
    path = html_report.write_report(
        config.workdir, config.out, config.data, config.images, config.neighbours, config.seed,
        config.tensorboard, lambda text: print(text, file=sys.stderr, flush=True), **options,
    )  # fmt: skip
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ReportConfig, call, "simsiam_tf.report", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
