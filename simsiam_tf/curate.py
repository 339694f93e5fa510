"""python -m simsiam_tf.curate --weights=… --data=folder:… --out=FOLDER: what is in a set of pictures."""

from __future__ import annotations

import dataclasses
import importlib.util
import operator
import os
import sys
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import FeaturesConfig, option
from simsiam_tf.config.fields import BIG, Config, Inapplicable, default
from simsiam_tf.config.images import bad_image_option
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.errors import UserError

ABOUT = """Answers questions about a set of pictures from their features: which are duplicates or outliers,
which groups there are, which labels look wrong, which pictures another set has, too, and which to label
first. Writes tables, lists for --data=list:, and a page, curation.html. No picture is changed or removed.

    python -m simsiam_tf.curate --weights=runs/photos --data=folder:/my/photos --out=curated
    python -m simsiam_tf.curate --embeddings=photos.npz --out=curated
    python -m simsiam_tf.pretrain --recipe=auto --data=list:curated/lists/without_duplicates.csv"""


NEEDS = ("jinja2", "plotly")  # for a page


@dataclasses.dataclass(frozen=True)
class CurateConfig(FeaturesConfig):
    """Options of curate."""

    INAPPLICABLE = (
        *FeaturesConfig.INAPPLICABLE,
        Inapplicable(
            ("fast", "augmentation", "image_size", "pixels", "trust_code", "batch_size", "features_dir"),
            "embeddings",
            bool,
            "embeddings that are computed already",
        ),
        Inapplicable(("map", "map_sample"), "page", operator.not_, "no page"),
        Inapplicable(("map_sample",), "map", lambda v: v == "pca", "map=pca, which takes all pictures"),
    )

    on_bad_image: str = bad_image_option("skip")
    embeddings: str | None = option(
        None,
        "file of features instead of `weights`, by simsiam_tf.embed or another tool; its pictures are read "
        "from `data`, or where the file says they were",
        "Curation",
    )
    features_column: str | None = option(
        None, "array or column of features, where `embeddings` or the file of `against` has several"
    )
    names_column: str | None = option(None, "array or column of names, likewise")
    names: str | None = option(None, "text file with the names of the pictures of `embeddings`, one a line")
    out: str | None = option(None, "folder for the tables, the lists and the page")
    overwrite: bool = option(False, "replace the files of an earlier curate in `out`")
    against: str | None = option(
        None,
        "another set, to search for near-duplicates, such as the training images of a test set: a place as "
        "for `data`, or a file of features",
    )
    neighbours: int = option(
        20, "number of nearest pictures that each picture is compared with", limits=(2, 1000)
    )
    duplicate_cosine: float | None = option(
        None,
        "least cosine of near-duplicates; by default chosen from the cosines of neighbours",
        limits=(1e-6, 1),
    )
    outliers: int = option(100, "number of pictures in the list of outliers", limits=(0, BIG))
    clusters: int | None = option(
        None, "number of clusters; by default chosen by their silhouette", limits=(1, 10000)
    )
    hdbscan: bool = option(
        False, "cluster by density (HDBSCAN), which leaves some pictures out of all groups"
    )
    subset: int = option(0, "number of pictures to label first; 0: no list of them", limits=(0, BIG))
    subset_by: str = option(
        "auto",
        "how these are chosen: typical ones of different groups (typical), or far from each other and from "
        "those that `have` names (k_centre); auto: typical ones for up to 500 labels in all, and up to a "
        "fifth of the pictures, since few labels teach most by typical pictures and many by unlike ones "
        "(Hacohen et al. 2022)",
        choices=("auto", "k_centre", "typical"),
    )
    have: str | None = option(
        None,
        "list of pictures that have labels already: paths or names, one a line, or CSV; by default those "
        "that `data` has a label for in a list or a table, where some have none",
    )
    link: str | None = option(None, "new folder for links to the files of each list but without_…")
    page: bool = option(True, "write curation.html")
    map: str = option(
        "auto",
        "how the page's map is made: umap, which needs umap-learn; tsne; or pca, which takes seconds; auto: "
        "umap where it is installed, else tsne",
        choices=("auto", "umap", "tsne", "pca"),
    )
    map_sample: int = option(
        4000,
        "number of pictures from which umap or tsne makes the map, beside which all others are placed; the "
        "time grows with it, and is about a minute for 4000 on two cores",
        limits=(8, BIG),
    )
    seed: int = option(0, "seed of the clusters, and of the map on the page", limits=(0, BIG))

    def validate(self) -> CurateConfig:
        if self.embeddings and self.weights:
            raise UserError(f"embeddings={self.embeddings} has no effect with `weights`. Leave one out.")
        Config.validate(self) if self.embeddings else super().validate()
        if not self.out:
            raise UserError("`out`: missing. Pass a folder for the answers, as in out=curated.")
        columns = ("features_column", "names_column", "names")
        if unused := [name for name in columns if getattr(self, name) and not self.embeddings]:
            value = getattr(self, unused[0])
            raise UserError(f"{unused[0]}={value} has no effect without `embeddings`. Leave it out.")
        if self.hdbscan and self.clusters is not None:
            raise UserError(f"clusters={self.clusters} has no effect with `hdbscan`. Leave one out.")
        unused = [name for name in ("have", "subset_by") if getattr(self, name) != default(type(self), name)]
        if unused and not self.subset:
            value = getattr(self, unused[0])
            raise UserError(
                f"{unused[0]}={value} has no effect without `subset`. Pass subset=500, or leave it out."
            )
        if self.embeddings and not self.data and self.on_bad_image == "error":
            raise UserError("on_bad_image=error has no effect with `embeddings` alone. Pass `data`, too.")
        if self.link and os.path.lexists(os.path.expanduser(self.link)):
            raise UserError(f"link={self.link}: exists. Choose a new folder.")
        return self


def call(config: CurateConfig) -> int:
    """Writes the answers, and prints a summary."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if config.page and missing:
        raise UserError(
            f"`page`: needs {' and '.join(missing)}: pip install 'simsiam-tf[viz]'. Or pass --nopage."
        )
    if config.map == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError("map=umap: needs umap-learn: pip install 'simsiam-tf[umap]'. Or pass map=tsne.")
    from simsiam_tf.curation.output_folder import check_output  # takes a second to import

    assert config.out is not None
    out = Path(config.out).expanduser()
    check_output(out, config.overwrite)
    if config.link:
        check_writable(Path(config.link).expanduser(), "link", folders=True)
    with cli.heavy_imports():
        from simsiam_tf.curation import run_curation
    print(run_curation.curate(config, out))
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(CurateConfig, call, "simsiam_tf.curate", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
