"""The options of a pre-training."""

from __future__ import annotations

import dataclasses
from typing import Any

from simsiam_tf.config.backbones import check_not_overwritten, is_published
from simsiam_tf.config.fields import BIG, Inapplicable, check_address, default, option
from simsiam_tf.config.images import SourceConfig
from simsiam_tf.config.methods import (
    METHODS,
    PY_METHOD,
    MethodOptions,
    add_method_options,
    loss_kind,
    method_of,
    method_row,
)
from simsiam_tf.config.networks import NetworkConfig
from simsiam_tf.config.run import RunConfig, run_option
from simsiam_tf.config.tuning import TuningConfig
from simsiam_tf.config.view_options import ViewConfig
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
@add_method_options
class PretrainConfig(NetworkConfig, ViewConfig, TuningConfig, RunConfig, SourceConfig):
    """All options of a pre-training, with those of every method; each help explains None and "auto"."""

    DECIDERS = {"h": {"predictor", "method"}}
    INAPPLICABLE = (
        Inapplicable(
            ("predictor_hidden",), "h", lambda v: v == "none", "no predictor (`method`, `predictor`)"
        ),
        Inapplicable(
            ("predictor_lr", "predictor_lr_factor"), "h", lambda v: v != "trained",
            "a predictor that is not trained (`method`, `predictor`)",
        ),
        Inapplicable(
            ("output_affine",), "bn", lambda v: v in ("none", "hidden"),
            "bn=none and bn=hidden, which have no output BN",
        ),
        Inapplicable(("epochs",), "minutes", lambda v: v is not None, "`minutes`, from which it follows"),
        Inapplicable(("local_size", "local_crop_area"), "local_views", lambda v: not v, "local_views=0"),
        Inapplicable(
            ("decoded_size",), "data_service", lambda v: v is not None,
            "`data_service`, whose workers decode the images",
        ),
        Inapplicable(("given",), "recipe", lambda v: v == "none", "recipe=none"),
        Inapplicable(("read_size",), "finish", lambda v: v == "none", "finish=none"),
        Inapplicable(
            ("monitor_queries", "knn_every", "knn_images", "final_images"), "monitor", lambda v: v == "none",
            "monitor=none",
        ),
        Inapplicable(("start_epoch",), "weights", lambda v: not v, "no `weights`"),
        *NetworkConfig.INAPPLICABLE,
        *SourceConfig.INAPPLICABLE,
        *RunConfig.INAPPLICABLE,
        *TuningConfig.INAPPLICABLE,
    )  # fmt: skip

    data: str = option(
        "fashion_mnist",
        "images to learn from: fashion_mnist, digits, tfds:NAME[:SPLIT], folder:PATH, list:FILE, "
        "tar:PATTERN, zip:PATTERN, parquet:PATTERN, tfrecord:PATTERN or hf:NAME[:SPLIT]; several "
        "sets of encoded images are separated by commas. A slice is written as in "
        "fashion_mnist:train[:50000]",
        "Data",
    )
    monitor: str = option(
        "auto",
        "labelled images for the kNN monitor, which evaluates the backbone during training: it classifies "
        "test images by the nearest of these. auto: the images of `data`; without labels, the monitor "
        "measures how often a changed crop finds its own image among 2,000. none: no monitor",
        "Data",
        resumable="none",
    )
    monitor_queries: str = option(
        "auto",
        "labelled test images of the kNN monitor; auto: the test or validation split of the set in "
        "`monitor`. Where there is neither, or it overlaps with `monitor`, every tenth image of the set",
    )
    data_service: str | None = option(
        None,
        "HOST:PORT of a tf.data service that makes the views on other machines: the same views in the same "
        "order. See python -m simsiam_tf.data_service --help",
        resumable=True,
    )

    decoded_size: int | None = option(
        None,
        "side in pixels of square copies in memory: each image is decoded once, before the training, and its "
        "views are cut from the copy; with twice `image_size` few views are blurred. By default, images are "
        "decoded anew in every epoch, unless all have one size of at most 128 pixels",
        limits=(8, 1024),
    )

    method: str = option(
        "simsiam",
        "simsiam; a method that the paper compares with it (Table 4): simclr, moco, byol, swav; or vicreg, "
        "barlow, or distill, which learns the features of `teacher`; or a class of yours, a SiameseModel, in "
        "a module of the current folder or an installed one",
        "Method",
        choices=METHODS,
        form=PY_METHOD,
    )

    recipe: str = option(
        "none",
        "auto: choose network, views, method, learning rate and batch size from the images and the machine, "
        "and print each choice with its reason (docs/recipes.md); options that are set stay as they are",
        "Method",
        choices=("none", "auto"),
        resumable=True,
    )
    given: str = option(
        "",
        "names of options that recipe=auto leaves at their defaults, separated by commas; typed flags need "
        "not be named",
        resumable=True,
    )
    epochs: float = run_option(
        "epochs",
        100.0,
        help="passes over the training images; 0: train nothing, and export the weights of `weights` or "
        "`backbone` as they are, with whitened features (`finish`)",
    )
    minutes: float | None = option(
        None,
        "duration of the whole run in minutes, instead of `epochs`: a few steps are timed at the start, and "
        "the run gets as many steps as fit, beside evaluations and export. When continued, it keeps this "
        "number of steps",
        "Optimisation",
        limits=(0.01, BIG),
    )
    start_epoch: float = option(
        0.0,
        "number of epochs for which another program has trained `weights`. The run continues with the "
        "learning rate and the order of images of that epoch and, where `weights` has it, SGD's momentum",
        limits=(0, BIG),
    )
    optimizer: str = option(
        "sgd",
        "sgd; lars, for large batches, as in the code of `method`; or adamw, for transformers, for example "
        "with base_lr=0.001 weight_decay=0.05. Weight decay of adamw is decoupled, and leaves out biases, "
        "normalisation layers, tokens and position embeddings",
        choices=("sgd", "lars", "adamw"),
    )
    final_lr: float = option(
        0.0,
        "learning rate at the end of the cosine, multiplied by batch_size/256 as `base_lr` is",
        limits=(0, 1e3),
    )
    predictor_lr: str = option(
        "decayed",
        "whether the predictor's learning rate decays as the backbone's or stays constant (Table 1 c)",
        choices=("decayed", "constant"),
    )
    predictor_lr_factor: float = option(
        1.0, "factor by which the predictor's learning rate is multiplied", limits=(0, 1e3)
    )
    lr_update: str = option(
        "step",
        "how often the learning rate decays: at every step, or once an epoch as in the official code",
        choices=("step", "epoch"),
    )

    knn_every: int | None = option(
        None,
        "epochs from one evaluation by the monitor to the next; 0: only at the end; by default, evaluations "
        "take about 1 % of the time",
        "Monitor",
        resumable=True,
        limits=(0, BIG),
    )
    knn_images: int = option(
        12000,
        "number of images that the monitor uses during the training; without labels at most 2,000",
        resumable=True,
        limits=(100, BIG),
    )
    final_images: int | None = option(
        None,
        "number of images that the monitor uses at the end, after the export; by default all, or with "
        "`minutes` as many as a tenth of that time allows. 0: no evaluation at the end",
        resumable=True,
        limits=(0, BIG),
    )
    finish: str = option(
        "whiten",
        "layers that the export adds to the backbone. whiten: features are means over the quarters of what "
        "the last residual blocks give out, if these are at most 2,048 numbers, and are centred and whitened "
        "by statistics of up to 20,000 images of `data`; linear_eval, finetune and further pre-training "
        "remove these layers. none: features as in the training",
        choices=("whiten", "none"),
        resumable=True,
    )
    read_size: int | None = option(
        None,
        "height and width in pixels of the images that the exported backbone takes, with finish=whiten; by "
        "default twice the size of the views but at most 64, or the size of the views where that is larger",
        limits=(4, 4096),
        resumable=True,
    )
    fail_on_collapse: bool = option(
        False, "stop with exit status 3 as soon as the diagnosis is a collapse", resumable=True
    )
    preview: bool = option(
        False,
        "write a picture of some images and their views, preview.png in the work folder (`workdir`), and do "
        "not train",
        "Preview",
        resumable=True,
    )
    dry_run: bool = option(
        False, "check the images, print what a run would do, and do not train", resumable=True
    )

    def is_free(self, option: str) -> bool:
        """Whether recipe=auto may choose an option: it has its default, and `given` does not name it."""
        return option not in self.given.split(",") and getattr(self, option) == default(type(self), option)

    def undecided(self) -> set[str]:
        return {"method"} if self.recipe == "auto" and self.is_free("method") else set()

    def method_option(self, name: str) -> Any:
        """The value of an option, or the method's default for it where it is None or "auto"."""
        value = getattr(self, name)
        return method_of({"method": self.method}).defaults.get(name) if value in (None, "auto") else value

    @property
    def method_options(self) -> MethodOptions:
        """The options of the method, with its defaults filled in."""
        cls = method_row(self.method).options
        return cls(**{field.name: self.method_option(field.name) for field in dataclasses.fields(cls)})

    def stem_for(self, size: int) -> str:
        """The option `stem`, with "auto" resolved by the size of the views in pixels."""
        return self.stem if self.stem != "auto" else "cifar" if size <= 64 else "imagenet"

    @property
    def h(self) -> str:
        """The predictor: "trained", "fixed" or "none"."""
        return self.method_option("predictor")

    @property
    def loss(self) -> str:
        """The type of the loss: a key of `diagnosis.LIMITS`."""
        return loss_kind(dataclasses.asdict(self))

    def validate(self) -> PretrainConfig:
        super().validate()
        check_address("data_service", self.data_service)
        if self.start_epoch and self.optimizer == "adamw":
            raise UserError(
                f"start_epoch={self.start_epoch:g}: has no moments of optimizer=adamw to go on with. Leave "
                "it out, or continue with optimizer=sgd."
            )
        self.method_options.check(self.batch_size)
        check_not_overwritten(self)
        return self

    @property
    def needs_timing(self) -> bool:
        """Whether `epochs` is still to be chosen for `minutes`; its default then stands for no value."""
        return self.minutes is not None and self.epochs == default(type(self), "epochs")

    @property
    def trains_nothing(self) -> bool:
        """Whether trained weights are exported as they are, but for the whitening (epochs=0)."""
        return self.epochs == 0 and (bool(self.weights) or is_published(self.backbone))

    def check_epochs(self) -> None:
        if self.needs_timing:
            return
        if self.epochs == 0 and not self.trains_nothing:
            raise UserError(
                "epochs=0: trains nothing, which is of use with trained weights alone. Pass weights=RUN or "
                "backbone=NETWORK+weights, or more epochs."
            )
        if self.epochs != 0:
            super().check_epochs()
        if self.start_epoch and self.start_epoch >= self.epochs:
            raise UserError(
                f"start_epoch={self.start_epoch:g}: nothing is left of epochs={self.epochs:g}. Pass the "
                "epochs of the whole run as `epochs`."
            )

    def as_values(self) -> PretrainConfig:
        """Without `minutes` where `epochs` has been chosen for them."""
        return self if self.needs_timing else dataclasses.replace(self, minutes=None)
