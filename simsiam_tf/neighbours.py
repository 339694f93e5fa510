"""python -m simsiam_tf.neighbours --embeddings=x.npz --query=photo.jpg: the nearest images."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, option
from simsiam_tf.config.evaluation import PREPROCESSINGS
from simsiam_tf.runtime.errors import UserError

ABOUT = """Names the images whose embeddings are nearest to a query image's, by cosine.

    python -m simsiam_tf.neighbours --embeddings=photos.npz --query=/my/photos/one.jpg"""


@dataclasses.dataclass(frozen=True)
class NeighboursConfig(Config):
    """Options of neighbours."""

    embeddings: str | None = option(None, "file that simsiam_tf.embed wrote", "Search")
    query: str | None = option(
        None, "an image file, or the name of an image in the embeddings, which is taken if both exist"
    )
    k: int = option(9, "number of images to name", limits=(1, 2**20))
    weights: str | None = option(
        None, "the backbone that computed the embeddings; by default the one that they record"
    )
    augmentation: str = option(
        "auto",
        "preprocessing of a query file; needed only where neither the embeddings nor the model card of the "
        "backbone record it",
        choices=PREPROCESSINGS,
    )
    image_size: int | None = option(
        None,
        "height and width in pixels of a query file as the backbone takes it; needed only where neither the "
        "embeddings nor the model card record them",
        limits=(4, 4096),
    )
    max_megapixels: float = option(100.0, "most megapixels of a query file", limits=(0.001, 1e4))

    def validate(self) -> NeighboursConfig:
        for name, example in (("embeddings", "photos.npz"), ("query", "photo.jpg")):
            if not getattr(self, name):
                raise UserError(f"--{name}: missing, as in --{name}={example}.")
        return super().validate()


def call(config: NeighboursConfig) -> int:
    """Searches and prints the neighbours."""
    with cli.heavy_imports():
        from simsiam_tf.features import embedding_file, query
        from simsiam_tf.runtime.display_text import printable_text
    assert config.embeddings is not None and config.query is not None
    embeddings = embedding_file.read_embeddings(Path(config.embeddings).expanduser())
    shown = printable_text(config.query)
    is_file = os.path.isfile(config.query) and not os.path.isabs(config.query)
    if is_file and embeddings.row(config.query) is not None:
        note = "the image of this name among the embeddings is taken; for the file, pass"
        print(f"--query={shown}: {note} --query=./{shown}", file=sys.stderr)
    preprocessing = config.max_megapixels, config.augmentation, config.image_size
    vector = query.query_features(embeddings, config.query, config.weights, *preprocessing)
    print(f"nearest to {shown} of {len(embeddings.names)} images")
    for name, cosine in embeddings.neighbours(vector, config.k):
        print(f"  {cosine:6.3f}  {printable_text(name)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(NeighboursConfig, call, "simsiam_tf.neighbours", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
