"""The configuration of a pre-training run."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar

from simsiam_tf.config.backbones import BACKBONES
from simsiam_tf.config.fields import BIG, check_address, option
from simsiam_tf.config.methods import METHODS, loss_kind, method_of
from simsiam_tf.config.methods import NO_EFFECT as OF_METHODS
from simsiam_tf.config.run import RUN_RANGES, RunConfig, check_epochs
from simsiam_tf.runtime.errors import UserError

RANGES = [
    *RUN_RANGES,
    ("max_megapixels", 0.001, 1e4), ("image_size", 4, 4096), ("crop_area", 0.01, 1.0),
    ("jitter", 0, 1), ("blur_p", 0, 1), ("solarize_p", 0, 1), ("flip_p", 0, 1),
    ("width", 0.01, 16), ("d", 2, 2**16), ("projector_layers", 1, 8),
    ("projector_hidden", 1, 2**16), ("predictor_hidden", 1, 2**16), ("batch_size", 2, 2**20),
    ("base_lr", 0, 1e3), ("final_lr", 0, 1e3), ("predictor_lr_factor", 0, 1e3), ("warmup_epochs", 0, BIG),
    ("start_epoch", 0, BIG), ("momentum", 0, 0.9999), ("weight_decay", 0, 1), ("average", 0, 0.9999),
    ("temperature", 0.001, 100),
    ("target_momentum", 0, 0.99999), ("queue", 1, BIG), ("key_groups", 1, 2**16), ("prototypes", 2, 2**20),
    ("sinkhorn_epsilon", 0.001, 10), ("frozen_prototypes", 0, BIG),
    ("knn_every", 0, BIG), ("knn_images", 100, BIG),
]  # fmt: skip

NO_EFFECT = [  # (fields, the field whose value makes them moot, which values those are, what to call that)
    (("predictor_hidden",), "h", lambda v: v == "none", "no predictor (`method`, `predictor`)"),
    (
        ("predictor_lr", "predictor_lr_factor"), "h", lambda v: v != "trained",
        "a predictor that is not trained (`method`, `predictor`)",
    ),
    (
        ("output_affine",),
        "bn",
        lambda v: v in ("none", "hidden"),
        "bn=none and bn=hidden, which have no output BN",
    ),
    (("projector_hidden",), "projector_layers", lambda v: v == 1, "projector_layers=1"),
    (("weights_heads", "start_epoch"), "weights", lambda v: not v, "no `weights`"),
    (
        ("monitor_queries", "knn_every", "knn_images", "final_knn"), "monitor", lambda v: v == "none",
        "monitor=none",
    ),
    (
        ("on_bad_image", "max_megapixels"),
        "data",
        lambda v: not v.startswith("folder:"),
        "data that is no folder",
    ),
    *OF_METHODS,
    *RunConfig.NO_EFFECT,
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """Everything that a pre-training run depends on. None and "auto" are resolved by the data."""

    RANGES: ClassVar = RANGES
    NO_EFFECT: ClassVar = NO_EFFECT
    DEPENDS: ClassVar = {"h": {"predictor", "method"}}

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
        free="none",
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
    augmentation: str = option(
        "auto",
        "augmentation; auto: by channels and image size; simclr and byol: imagenet's as those papers have it "
        "(swav: as simclr)",
        choices=("auto", "imagenet", "simclr", "byol", "cifar", "grayscale"),
    )
    image_size: int | None = option(None, "side of the views in pixels; the augmentation's by default")
    crop_area: float | None = option(
        None, "smallest share of the image that a crop covers; the augmentation's by default"
    )
    jitter: float | None = option(
        None,
        "strength of brightness, contrast and saturation; hue gets a quarter; the augmentation's by default",
    )
    blur_p: float | None = option(None, "probability of Gaussian blur; the augmentation's by default")
    solarize_p: float | None = option(None, "probability of solarisation; the augmentation's by default")
    flip_p: float | None = option(None, "probability of a horizontal flip; the augmentation's by default")

    backbone: str = option("resnet50", "network", "Network", choices=BACKBONES)
    stem: str = option(
        "auto",
        "first layers; auto: cifar up to 64 pixels, else imagenet; cifar_pad2 is solo-learn's",
        choices=("auto", "imagenet", "cifar", "small", "cifar_pad2"),
    )
    width: float = option(1.0, "multiplies the backbone's channels, 64 at the first stage")
    d: int = option(2048, "width of projection and prediction (App. B)")
    projector_layers: int = option(3, "fc layers of the projector (App. D: 2 for CIFAR)")
    projector_hidden: int | None = option(
        None,
        "hidden width of the projector; by default that of the backbone's features, as in the official code: "
        "with ResNet-50 the paper's 2048 at any `d`",
    )
    predictor_hidden: int | None = option(
        None, "hidden width of the predictor; d/4 by default, with byol that of the projector"
    )
    weights: str | None = option(
        None,
        "start the backbone, and the heads of a converted checkpoint, from these weights: a work folder or a "
        ".keras file",
    )
    weights_heads: str = option(
        "auto",
        "start projector and predictor from `weights`, too; auto: from a converted checkpoint of PyTorch, "
        "whose run goes on, and not from a run of our own",
        choices=("auto", "true", "false"),
    )

    method: str = option(
        "simsiam", "simsiam, or one of those it is compared with (Sec. 6, Table 4)", "Method", choices=METHODS
    )
    stop_gradient: bool | None = option(
        None,
        "stop the gradient at the targets, without which simsiam collapses (Fig. 2); by default false with "
        "simclr only",
    )
    predictor: str = option(
        "auto",
        "the predictor h (Table 1); auto: trained with simsiam and byol, none otherwise, though simclr and "
        "swav may have one (Sec. 6.2)",
        choices=("auto", "trained", "fixed", "none"),
    )
    predictor_lr: str = option("decayed", "learning rate of h (Table 1 c)", choices=("decayed", "constant"))
    predictor_lr_factor: float = option(1.0, "multiplies the learning rate of h")
    bn: str = option("default", "BN in the MLP heads (Table 3)", choices=("none", "hidden", "default", "all"))
    output_affine: bool = option(True, "scale and shift in the projector's output BN (Sec. 4.4)")
    similarity: str = option("cosine", "similarity (Sec. 4.5)", choices=("cosine", "cross_entropy"))
    symmetry: str = option(
        "symmetric", "loss (Sec. 4.6)", choices=("symmetric", "asymmetric", "asymmetric_2x")
    )

    alternate: str | None = option(
        None,
        "steps for which the targets are made with the same weights (Sec. 5): a number, or epoch; without "
        "it the weights of each step make them",
    )
    average: float | None = option(
        None,
        "share of the old in a moving average of each image's embedding, which is its target (Sec. 5: 0.8, "
        "with predictor=none)",
    )

    temperature: float | None = option(
        None, "τ of simclr, moco and swav; by default 0.1, 0.2 and 0.1", "Compared methods"
    )
    target_momentum: float | None = option(
        None, "m of the momentum encoder: moco (0.999), and byol (0.996), where it rises to 1"
    )
    queue: int = option(65536, "keys that moco keeps")
    key_groups: int = option(
        1, "parts of a batch, over all replicas, in which moco's keys have BN statistics of their own"
    )
    prototypes: int = option(3000, "of swav")
    sinkhorn_epsilon: float = option(0.05, "smoothness of swav's codes")
    frozen_prototypes: float = option(1.0, "epochs before swav's prototypes learn")
    prototype_norm: str = option(
        "after_step",
        "where swav's prototypes are made of length one: after each step, as in its code, or in the loss, "
        "through which then goes a gradient (Sec. 6.2, without stop-gradient)",
        choices=("after_step", "in_loss"),
    )

    epochs: float = option(100.0, "passes over the data", "Optimisation")
    start_epoch: float = option(
        0.0,
        "go on with another program's run, whose weights `weights` has, after so many epochs: its momentum, "
        "and rates and order as of then",
    )
    batch_size: int = option(512, "images a step, over all replicas")
    optimizer: str = option(
        "sgd", "sgd, or lars for large batches, as the code of `method` has it", choices=("sgd", "lars")
    )
    base_lr: float = option(0.05, "learning rate for 256 images; times batch_size/256")
    final_lr: float = option(0.0, "the rate that the cosine ends at, likewise times batch_size/256")
    lr_update: str = option(
        "step",
        "when the decayed rate changes; epoch: once an epoch, as in the official code",
        choices=("step", "epoch"),
    )
    warmup_epochs: float = option(0.0, "epochs of linear warm-up (Table 2: 10 for batch 1024 and more)")
    momentum: float = option(0.9, "SGD momentum")
    weight_decay: float = option(1e-4, "coupled L2 on all parameters")

    knn_every: int | None = option(
        None,
        "epochs between kNN evaluations; 0: only at the end; "
        "by default as many as keep them within about 1 % of the time",
        "Monitor",
        free=True,
    )
    knn_images: int = option(
        12000, "images that the monitor uses during training; at the end it uses all", free=True
    )
    final_knn: bool = option(
        True,
        "kNN accuracy of all images at the end, after the export; false leaves it out, as where the features "
        "of all images do not fit into memory",
        free=True,
    )
    fail_on_collapse: bool = option(
        False, "stop with exit status 3 as soon as the run is called collapsed", free=True
    )
    preview: bool = option(False, "only write a picture of images and their views", "Only look", free=True)
    dry_run: bool = option(False, "only check the data and print what would run", free=True)

    def by_method(self, name: str) -> Any:
        """A field, or what the method has where that is left open."""
        value = getattr(self, name)
        return getattr(method_of({"method": self.method}), name) if value in (None, "auto") else value

    @property
    def h(self) -> str:
        """The predictor: "trained", "fixed" or "none"."""
        return self.by_method("predictor")

    @property
    def loss(self) -> str:
        """What kind of loss it is: "cosine", "cross_entropy", "distance" or "contrast"."""
        return loss_kind(dataclasses.asdict(self))

    def validate(self) -> PretrainConfig:
        """Returns itself, or raises UserError for the first value that cannot be."""
        super().validate()
        check_epochs(self)
        check_address("data_service", self.data_service)
        if self.start_epoch >= self.epochs:
            raise UserError(
                f"start_epoch={self.start_epoch:g}: nothing is left of epochs={self.epochs:g}. Pass the "
                "epochs of the whole run as `epochs`."
            )
        if self.alternate not in (None, "epoch") and not re.fullmatch(r"[1-9]\d{0,8}", self.alternate):
            raise UserError(f"alternate={self.alternate}: must be a number of steps, or epoch.")
        if self.alternate and self.average is not None:
            raise UserError("`alternate` and `average`: are two readings of Sec. 5. Pass one of them.")
        if self.predictor == "fixed" and self.method != "simsiam":
            raise UserError(f"predictor=fixed: is for simsiam alone. Leave it out with method={self.method}.")
        if self.method == "moco" and (
            self.batch_size % self.key_groups or self.batch_size < 2 * self.key_groups
        ):
            raise UserError(
                f"key_groups={self.key_groups}: a batch of {self.batch_size} cannot be cut into as many "
                "equal parts of two images or more. Choose another of the two."
            )
        return self
