"""python -m simsiam_tf.embed --weights=… --data=folder:… --out=x.npz: embeddings of images."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

from simsiam_tf.command_line import cli
from simsiam_tf.config import FeaturesConfig, option
from simsiam_tf.config.backbones import is_network
from simsiam_tf.config.fields import BIG, Inapplicable
from simsiam_tf.config.images import bad_image_option
from simsiam_tf.runtime.errors import UserError

ABOUT = """Writes a file of embeddings: the name of every image, relative to the folder of --data, the image's
features, and a record of the backbone that computed them. To continue an interrupted command, type it
again.

    python -m simsiam_tf.embed --weights=runs/photos --data=folder:/my/photos --out=photos.npz
    python -m simsiam_tf.neighbours --embeddings=photos.npz --query=/my/photos/one.jpg
    python -m simsiam_tf.embed --weights=runs/photos --data=tar:photos-*.tar --out=photos/ --ray=HOST:6379"""


LONG = 60.0  # seconds, after which --fast is named
SHARD_IMAGES = 8192  # images of a file with --ray, or as many as make whole batches


@dataclasses.dataclass(frozen=True)
class EmbedConfig(FeaturesConfig):
    """Options of embed."""

    INAPPLICABLE = (
        *FeaturesConfig.INAPPLICABLE,
        Inapplicable(("ray_cores", "shard_images"), "ray", lambda v: not v, "one process, without `ray`"),
        Inapplicable(("features_dir",), "ray", bool, "`ray`, which keeps finished features in `out`"),
    )

    on_bad_image: str = bad_image_option(
        "skip", " A file beside `out` has all their names, as in photos.unreadable.json."
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
    overwrite: bool = option(
        False,
        "replace an existing file or folder of embeddings; with `ray`, files of other weights, images or "
        "options",
    )
    ray: str | None = option(
        None,
        "compute by a Ray cluster, which writes a folder of Parquet files, out=NAME/. Without a value, or "
        "with local: one of this machine alone; auto: the one that this machine belongs to; or its HOST:PORT",
        "Cluster",
        bare="local",
    )
    ray_cores: int | None = option(
        None,
        "CPU cores of each process of the cluster; by default those of its machine, shared by the GPUs, or, "
        "without a GPU, up to 8",
        limits=(1, 2**12),
    )
    shard_images: int | None = option(
        None,
        "images of each Parquet file, a multiple of `batch_size`; by default 8192 or a little more",
        limits=(1, BIG),
    )

    def validate(self) -> EmbedConfig:
        super().validate()
        folder = self.out and self.out.endswith("/") and not os.path.splitext(self.out.rstrip("/"))[1]
        if not self.out or not (folder or self.out.endswith((".npz", ".parquet"))):
            raise UserError(
                f"--out={self.out or ''}: must name a file, as in --out=photos.npz or .parquet, or a folder "
                "without a suffix, as in --out=photos/."
            )
        if self.ray:
            self._validate_ray(bool(folder))
        elif os.path.lexists(os.path.expanduser(self.out.rstrip("/"))) and not self.overwrite:
            raise UserError(f"--out={self.out}: exists. Choose another, or pass --overwrite.")
        return self

    def _validate_ray(self, folder: bool) -> None:
        if not folder:
            raise UserError(f"--out={self.out}: must be a folder with `ray`, as in --out=photos/.")
        rows, batch = self.rows_per_shard, self.batch_size
        if rows % batch:
            raise UserError(
                f"shard_images={rows}: is not a multiple of batch_size={batch}. Pass "
                f"shard_images={max(1, rows // batch) * batch}."
            )
        if str(self.ray).startswith("ray://"):
            raise UserError(f"ray={self.ray}: run the command on a machine of the cluster, with ray=auto.")

    @property
    def rows_per_shard(self) -> int:
        """Images of a Parquet file."""
        return self.shard_images or self.batch_size * -(-SHARD_IMAGES // self.batch_size)


def call(config: EmbedConfig) -> int:
    """Extracts the features and writes the embeddings."""
    if config.ray:
        return _call_cluster(config)
    with cli.heavy_imports():
        from simsiam_tf.data import open_source
        from simsiam_tf.distributed import strategies
        from simsiam_tf.evaluate import cached_scores
        from simsiam_tf.features import embedding_file, image_embeddings
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
        from simsiam_tf.runtime.display_text import counted, printable_text
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
    written = printable_text(f"{out}: {counted(len(embeddings.names), 'image')} of {source.name}")
    print(f"{written}, {pretrained.features} {config.dtype} numbers each")
    took = time.monotonic() - began
    if took > LONG and not config.fast:
        print(f"This took {took:.0f} s. With --fast it may take less; features then differ by about 1 %.")
    return 0


def _call_cluster(config: EmbedConfig) -> int:
    with cli.heavy_imports():
        import tensorflow as tf

        from simsiam_tf.data.sources.base import SourceOptions
        from simsiam_tf.evaluate import cached_scores
        from simsiam_tf.features import cluster_embedding
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
        from simsiam_tf.runtime.display_text import counted, printable_text
    assert config.out and config.weights and config.ray
    tf.config.set_visible_devices([], "GPU")  # they are for the workers
    out = Path(config.out).expanduser()
    pretrained = open_pretrained(config.weights, **config.preprocessing())
    data = config.data or cached_scores.training_data(pretrained)
    preprocessing = config.preprocessing()
    if is_network(config.weights):
        preprocessing["pixels"] = "auto"  # by the card of its copy
    rows = cluster_embedding.embed_by_cluster(
        pretrained, preprocessing, data, SourceOptions(**pretrained.source_options(config, data)),
        out, out.with_suffix(".unreadable.json"), config.ray, config.ray_cores, config.batch_size,
        config.rows_per_shard, config.dtype, config.fast, config.overwrite,
    )  # fmt: skip
    written = printable_text(f"{out}: {counted(rows, 'image')} of {data}")
    print(f"{written}, {pretrained.features} {config.dtype} numbers each")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(EmbedConfig, call, "simsiam_tf.embed", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
