"""The configuration of a pre-training run."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from simsiam_tf.config.fields import BIG, check_address, option
from simsiam_tf.config.run import RUN_RANGES, RunConfig, check_epochs

RANGES = [
    *RUN_RANGES,
    ("max_megapixels", 0.001, 1e4), ("image_size", 4, 4096), ("crop_area", 0.01, 1.0),
    ("jitter", 0, 1), ("blur_p", 0, 1), ("flip_p", 0, 1),
    ("width", 0.01, 16), ("d", 2, 2**16), ("projector_layers", 1, 8),
    ("projector_hidden", 1, 2**16), ("predictor_hidden", 1, 2**16), ("batch_size", 2, 2**20),
    ("base_lr", 0, 1e3), ("predictor_lr_factor", 0, 1e3), ("warmup_epochs", 0, BIG), ("momentum", 0, 0.9999),
    ("weight_decay", 0, 1), ("knn_every", 0, BIG), ("knn_images", 100, BIG),
]  # fmt: skip

NO_EFFECT = [  # (fields, the field whose value makes them moot, which values those are, what to call that)
    (("predictor_hidden",), "predictor", lambda v: v == "none", "--predictor=none"),
    (
        ("predictor_lr", "predictor_lr_factor"),
        "predictor",
        lambda v: v != "trained",
        "a predictor that is not trained",
    ),
    (
        ("output_affine",),
        "bn",
        lambda v: v in ("none", "hidden"),
        "--bn=none and --bn=hidden, which have no output BN",
    ),
    (("projector_hidden",), "projector_layers", lambda v: v == 1, "--projector_layers=1"),
    (("monitor_queries", "knn_every", "knn_images"), "monitor", lambda v: v == "none", "--monitor=none"),
    (
        ("on_bad_image", "max_megapixels"),
        "data",
        lambda v: not v.startswith("folder:"),
        "data that is no folder",
    ),
    *RunConfig.NO_EFFECT,
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """Everything that a pre-training run depends on. None and "auto" are resolved by the data."""

    RANGES: ClassVar = RANGES
    NO_EFFECT: ClassVar = NO_EFFECT

    data: str = option(
        "fashion_mnist",
        "images to learn from: fashion_mnist, digits, "
        "tfds:NAME[:SPLIT] or folder:PATH; slices as in fashion_mnist:train[:50000]",
        "Data",
    )
    monitor: str = option(
        "auto",
        "labelled set whose images the kNN monitor votes with, or none; "
        "auto: the pre-training set where it has labels",
    )
    monitor_queries: str = option(
        "auto",
        "labelled set that the monitor classifies; auto: the test split, "
        "or every tenth image where there is none",
    )
    data_dir: str | None = option(None, "where TFDS keeps its data sets", free=True)
    data_service: str | None = option(
        None,
        "HOST:PORT of a tf.data service's dispatcher, whose data workers then make the views: the same "
        "ones in the same order. See python -m simsiam_tf.data_service --help",
        free=True,
    )
    on_bad_image: str = option(
        "error", "what to do with unreadable images of a folder", choices=("error", "skip")
    )
    max_megapixels: float = option(
        100.0, "larger images of a folder count as unreadable; decided by their header, before decoding"
    )
    recipe: str = option(
        "auto",
        "augmentation; auto: by channels and image size",
        choices=("auto", "imagenet", "cifar", "grayscale"),
    )
    image_size: int | None = option(None, "side of the views in pixels; the recipe's by default")
    crop_area: float | None = option(
        None, "smallest share of the image that a crop covers; the recipe's by default"
    )
    jitter: float | None = option(
        None, "strength of brightness, contrast and saturation; hue gets a quarter; the recipe's by default"
    )
    blur_p: float | None = option(None, "probability of Gaussian blur; the recipe's by default")
    flip_p: float | None = option(None, "probability of a horizontal flip; the recipe's by default")

    backbone: str = option(
        "resnet50", "network", "Network", choices=("resnet10", "resnet18", "resnet34", "resnet50")
    )
    stem: str = option(
        "auto",
        "first layers; auto: cifar up to 64 pixels, else imagenet; cifar_pad2 is solo-learn's",
        choices=("auto", "imagenet", "cifar", "small", "cifar_pad2"),
    )
    width: float = option(1.0, "multiplies the backbone's channels, 64 at the first stage")
    d: int = option(2048, "width of projection and prediction (App. B)")
    projector_layers: int = option(3, "fc layers of the projector (App. D: 2 for CIFAR)")
    projector_hidden: int | None = option(None, "hidden width of the projector; d by default")
    predictor_hidden: int | None = option(None, "hidden width of the predictor; d/4 by default")
    weights: str | None = option(
        None, "start the backbone from these weights: a work folder or a .keras file"
    )

    stop_gradient: bool = option(
        True, "stop the gradient at the targets; without it, collapse (Fig. 2)", "Method"
    )
    predictor: str = option("trained", "the predictor h (Table 1)", choices=("trained", "fixed", "none"))
    predictor_lr: str = option("decayed", "learning rate of h (Table 1 c)", choices=("decayed", "constant"))
    predictor_lr_factor: float = option(1.0, "multiplies the learning rate of h")
    bn: str = option("default", "BN in the MLP heads (Table 3)", choices=("none", "hidden", "default", "all"))
    output_affine: bool = option(True, "scale and shift in the projector's output BN (Sec. 4.4)")
    similarity: str = option("cosine", "similarity (Sec. 4.5)", choices=("cosine", "cross_entropy"))
    symmetry: str = option(
        "symmetric", "loss (Sec. 4.6)", choices=("symmetric", "asymmetric", "asymmetric_2x")
    )

    epochs: float = option(100.0, "passes over the data", "Optimisation")
    batch_size: int = option(512, "images a step, over all replicas")
    base_lr: float = option(0.05, "learning rate for 256 images; times batch_size/256")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up (Table 2: 10 for batch 1024 and more)")
    momentum: float = option(0.9, "SGD momentum")
    weight_decay: float = option(1e-4, "coupled L2 on all parameters")

    knn_every: int | None = option(
        None,
        "epochs between kNN evaluations; 0: only at the end; "
        "by default as many as keep them within about 1.5 % of the time",
        "Monitor",
        free=True,
    )
    knn_images: int = option(
        12000, "images that the monitor uses during training; at the end it uses all", free=True
    )
    fail_on_collapse: bool = option(
        False, "stop with exit status 3 as soon as the run is called collapsed", free=True
    )
    preview: bool = option(False, "only write a picture of images and their views", "Only look", free=True)
    dry_run: bool = option(False, "only check the data and print what would run", free=True)

    def validate(self) -> PretrainConfig:
        """Returns itself, or raises UserError for the first value that cannot be."""
        super().validate()
        check_epochs(self)
        check_address("data_service", self.data_service)
        return self
