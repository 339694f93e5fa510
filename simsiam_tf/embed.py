"""python -m simsiam_tf.embed --weights=… --data=folder:… --out=x.npz: embeddings of images."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import FeaturesConfig, option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Writes a file of embeddings: the name of every image, relative to the folder of --data, the image's
features, and a record of the backbone that computed them. To continue an interrupted command, type it
again.

    python -m simsiam_tf.embed --weights=runs/photos --data=folder:/my/photos --out=photos.npz
    python -m simsiam_tf.neighbours --embeddings=photos.npz --query=/my/photos/one.jpg"""


LONG = 60.0  # seconds, after which --fast is named


@dataclasses.dataclass(frozen=True)
class EmbedConfig(FeaturesConfig):
    """Options of embed."""

    on_bad_image: str = option(
        "skip",
        "an image that cannot be read stops the command (error) or is left out (skip). Such images are named "
        "in a file beside `out`, as in photos.unreadable.json",
        choices=("error", "skip"),
    )
    out: str | None = option(
        None,
        "what to write: NAME.npz, which needs no other package and is read memory-mapped; NAME.parquet, for "
        "tools that read tables, which neighbours reads into memory; NAME/, a folder of features.npy, "
        "names.parquet and about.json, for a million images: any program maps features.npy into memory, and "
        "the names take little",
        "Output",
    )
    dtype: str = option("float32", "type of the numbers in the file", choices=("float32", "float16"))
    overwrite: bool = option(False, "replace an existing file or folder of embeddings")

    def validate(self) -> EmbedConfig:
        super().validate()
        folder = self.out and self.out.endswith("/") and not os.path.splitext(self.out.rstrip("/"))[1]
        if not self.out or not (folder or self.out.endswith((".npz", ".parquet"))):
            raise UserError(
                f"--out={self.out or ''}: must name a file, as in --out=photos.npz or .parquet, or a folder "
                "without a suffix, as in --out=photos/."
            )
        if os.path.lexists(os.path.expanduser(self.out.rstrip("/"))) and not self.overwrite:
            raise UserError(f"--out={self.out}: exists. Choose another, or pass --overwrite.")
        return self


def call(config: EmbedConfig) -> int:
    """Extracts the features and writes the embeddings."""
    with cli.heavy_imports():
        from simsiam_tf.data import open_source
        from simsiam_tf.distributed import strategies
        from simsiam_tf.evaluate import cached_scores
        from simsiam_tf.features import embedding_file, image_embeddings
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
        from simsiam_tf.runtime.display_text import printable_text
    assert config.out is not None and config.weights is not None
    out = Path(config.out).expanduser()
    embedding_file.check_output(out)
    strategies.set_precision("auto" if config.fast else "float32")
    pretrained = open_pretrained(config.weights, **config.preprocessing())
    report = out.with_suffix(".unreadable.json")
    data = config.data or cached_scores.training_data(pretrained)
    source = open_source(data, "train", report=report, **pretrained.source_options(config, data))
    folder = Path(config.features_dir).expanduser() if config.features_dir else None
    began = time.monotonic()
    embeddings = image_embeddings.embed(
        pretrained, source, folder, config.batch_size, config.on_bad_image, report, config.fast
    )
    embedding_file.write_embeddings(embeddings, out, config.dtype)
    written = printable_text(f"{out}: {len(embeddings.names)} images of {source.name}")
    print(f"{written}, {pretrained.features} {config.dtype} numbers each")
    took = time.monotonic() - began
    if took > LONG and not config.fast:
        print(f"This took {took:.0f} s. With --fast it may take less; features then differ by about 1 %.")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(EmbedConfig, call, "simsiam_tf.embed", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
