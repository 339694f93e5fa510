"""python -m simsiam_tf.neighbours --embeddings=x.npz --query=photo.jpg: the nearest images."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, option
from simsiam_tf.config.evaluation import PREPROCESSINGS
from simsiam_tf.config.fields import Inapplicable
from simsiam_tf.runtime.errors import UserError

ABOUT = """Names the images whose embeddings are nearest to those of one query image or of many, by cosine.

    python -m simsiam_tf.neighbours --embeddings=photos.npz --query=/my/photos/one.jpg
    python -m simsiam_tf.neighbours --embeddings=photos.npz --query=folder:/my/new --out=neighbours.csv
    python -m simsiam_tf.neighbours --embeddings=photos.npz --query=all --page=neighbours.html"""
NEEDS = ("matplotlib", "jinja2")  # for a page


@dataclasses.dataclass(frozen=True)
class NeighboursConfig(Config):
    """Options of neighbours."""

    INAPPLICABLE = (
        Inapplicable(
            ("weights", "augmentation", "image_size", "max_megapixels"), "query", lambda v: v == "all",
            "query=all, the images whose features are known",
        ),
    )  # fmt: skip

    embeddings: str | None = option(
        None,
        "file or folder that simsiam_tf.embed wrote; or features of another tool: .npz, .npy, or .parquet "
        "with a column of vectors",
        "Search",
    )
    query: str | None = option(
        None,
        "an image file, or the name of an image among the embeddings; if both exist, the latter. Or many: a "
        "folder; list:FILE, a path or a name among the embeddings a line; or all, each image among the "
        "embeddings. Of many queries, an image among the embeddings is not its own neighbour",
    )
    k: int = option(9, "number of images to name for a query", limits=(1, 2**20))
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
    features_column: str | None = option(
        None,
        "array of the .npz, or column of the .parquet, with the features; needed only where several would do",
        "Embeddings of other tools",
    )
    names_column: str | None = option(
        None, "array or column with the names of the images; needed only where several would do"
    )
    names: str | None = option(
        None, "text file with the names of the images, a line each; by default they are numbers of rows"
    )
    out: str | None = option(
        None, "table to write, .csv or .parquet, with the columns query, rank, name and cosine", "Output"
    )
    page: str | None = option(
        None, "gallery to write, .html: each query and its neighbours as pictures, in one file"
    )
    images: str | None = option(
        None, "where the pictures of the page lie, a folder or as for `data` of pretrain; by default where "
        "the embeddings say they were",
    )  # fmt: skip
    overwrite: bool = option(False, "replace existing files")

    def validate(self) -> NeighboursConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        for name, example in (("embeddings", "photos.npz"), ("query", "photo.jpg")):
            if not getattr(self, name):
                raise UserError(f"--{name}: missing, as in --{name}={example}.")
        outputs = (("out", (".csv", ".parquet")), ("page", (".html",)))
        for name, suffixes in outputs:
            path = getattr(self, name)
            if path is not None and not path.endswith(suffixes):
                raise UserError(f"{name}={path}: must end in {' or '.join(suffixes)}.")
            if path is not None and os.path.lexists(os.path.expanduser(path)) and not self.overwrite:
                raise UserError(f"{name}={path}: exists. Choose another, or pass --overwrite.")
        if self.images and not self.page:
            raise UserError(f"images={self.images}: has no effect without a page. Pass page=neighbours.html.")
        return super().validate()


def call(config: NeighboursConfig) -> int:
    """Searches, and prints the neighbours or writes them."""
    from simsiam_tf.features import embedding_file, query_list  # which load no TensorFlow
    from simsiam_tf.features.parquet import import_pyarrow
    from simsiam_tf.runtime.atomic_files import check_writable
    from simsiam_tf.runtime.display_text import counted, printable_text

    assert config.embeddings is not None and config.query is not None
    out, page = (Path(path).expanduser() if path else None for path in (config.out, config.page))
    for path, name in ((out, "out"), (page, "page")):
        if path is not None:
            check_writable(path, name)
    if out is not None and out.suffix == ".parquet":
        import_pyarrow("out")
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if page is not None and missing:
        raise UserError(f"page={page}: needs {' and '.join(missing)}: pip install 'simsiam-tf[viz]'.")
    embeddings = embedding_file.read_embeddings(
        Path(config.embeddings).expanduser(), config.features_column, config.names_column, config.names
    )
    if query_list.query_folder(embeddings, config.query) is not None:
        _load_tensorflow()
    queries = query_list.find_queries(embeddings, config.query)
    shown, alone = printable_text(config.query), not queries.leave_out
    if alone and not queries.files and os.path.isfile(config.query) and not os.path.isabs(config.query):
        note = "the image of this name among the embeddings is taken; for the file, pass"
        print(f"--query={shown}: {note} --query=./{shown}", file=sys.stderr)
    features = queries.stored_features(embeddings)
    if queries.files:
        _load_tensorflow()
        from simsiam_tf.features import query

        backbone = query.open_backbone(embeddings, config.weights, config.augmentation, config.image_size)
        if alone:
            features = query.embed_file(backbone, queries.files[0], config.max_megapixels)[None]
        else:
            queries, features = query.embed_queries(embeddings, queries, backbone, config.max_megapixels)
    if alone:
        embeddings.check_query(features[0])
    cosines, rows = query_list.find_neighbours(embeddings, queries, features, config.k)
    if out is not None:
        from simsiam_tf.features.neighbour_table import write_table

        count = write_table(out, queries.names, embeddings.names, cosines, rows)
        print(f"{out}: {counted(count, 'neighbour')} of {counted(len(queries.rows), 'image')}")
    if page is not None:
        _load_tensorflow()
        from simsiam_tf.html_report import neighbours_page

        line = neighbours_page.write_page(page, embeddings, queries, cosines, rows, config.images)
        print(line)
    if out is None and page is None:
        for number, near in enumerate(rows):
            print(
                f"nearest to {printable_text(str(queries.names[number]))} "
                f"of {counted(len(embeddings.names), 'image')}"
            )
            for row, cosine in zip(near, cosines[number], strict=True):
                if row >= 0:
                    print(f"  {cosine:6.3f}  {printable_text(str(embeddings.names[row]))}")
    return 0


def _load_tensorflow() -> None:
    with cli.heavy_imports():
        import tensorflow  # noqa: F401


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(NeighboursConfig, call, "simsiam_tf.neighbours", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
