"""The options of a pre-training."""

from __future__ import annotations

import dataclasses
from typing import Any

from simsiam_tf.config.backbones import BACKBONES, PIXELS, is_network, parse_backbone
from simsiam_tf.config.evaluation import PIXELS_OPTION, TRUST_OPTION
from simsiam_tf.config.fields import BIG, Inapplicable, check_address, default, option
from simsiam_tf.config.images import SourceConfig
from simsiam_tf.config.methods import METHODS, MethodOptions, add_method_options, loss_kind, method_of
from simsiam_tf.config.run import RunConfig
from simsiam_tf.config.tuning import TuningConfig
from simsiam_tf.config.view_options import ViewConfig
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
@add_method_options
class PretrainConfig(ViewConfig, TuningConfig, RunConfig, SourceConfig):
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
        Inapplicable(
            ("d",), "method", lambda v: v in METHODS and not METHODS[v].d,
            "method=distill, whose z is as wide as the teacher's features",
        ),
        Inapplicable(("projector_hidden",), "projector_layers", lambda v: v == 1, "projector_layers=1"),
        Inapplicable(("epochs",), "minutes", lambda v: v is not None, "`minutes`, from which it follows"),
        Inapplicable(("local_size", "local_crop_area"), "local_views", lambda v: not v, "local_views=0"),
        Inapplicable(
            ("decoded_size",), "data_service", lambda v: v is not None,
            "`data_service`, whose workers decode the images",
        ),
        Inapplicable(("given",), "recipe", lambda v: v == "none", "recipe=none"),
        Inapplicable(("read_size",), "finish", lambda v: v == "none", "finish=none"),
        Inapplicable(("weights_heads", "start_epoch"), "weights", lambda v: not v, "no `weights`"),
        Inapplicable(("stem", "width"), "backbone", is_network, "a backbone that is none of our ResNets"),
        Inapplicable(("pixels",), "backbone", lambda v: not is_network(v), "one of our ResNets"),
        Inapplicable(
            ("monitor_queries", "knn_every", "knn_images", "final_images"), "monitor", lambda v: v == "none",
            "monitor=none",
        ),
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
        "labelled images by which the run is judged while it trains: the kNN monitor labels test images by "
        "the nearest of these. auto: the images of `data`; where they have no labels, a changed crop of an "
        "image is to find this image among 2,000. none: no monitor",
        "Data",
        resumable="none",
    )
    monitor_queries: str = option(
        "auto",
        "labelled test images of the kNN monitor; auto: the test or validation split, or, where there is "
        "none or `monitor` names images of it, every tenth image",
    )
    data_service: str | None = option(
        None,
        "HOST:PORT of a tf.data service that makes the views on other machines: the same views in the same "
        "order. See python -m simsiam_tf.data_service --help",
        resumable=True,
    )

    decoded_size: int | None = option(
        None,
        "decode each image once, before the training, and keep a copy of so many pixels a side, from which "
        "views are cut; twice `image_size` blurs few of them. By default images are decoded again for every "
        "epoch, but for those that all have one size of at most 128 pixels",
        limits=(8, 1024),
    )

    backbone: str = option(
        "resnet50",
        f"network whose features are learned: {', '.join(BACKBONES)}; keras:NAME of keras.applications; "
        "hub:PRESET of keras-hub (a name, a folder, hf://…, kaggle://…); file:PATH.keras; or "
        "py:MODULE:FUNCTION, a function of (size, channels) that gives a Keras model. keras:NAME+imagenet, "
        "and +weights for the others, begin with published weights",
        "Network",
    )
    pixels: str = option(*PIXELS_OPTION, choices=("auto", *PIXELS))
    trust_code: bool = option(*TRUST_OPTION)
    stem: str = option(
        "auto",
        "first layers of the backbone: imagenet (7×7, stride 2, pooling), cifar (3×3, stride 1), small (3×3, "
        "stride 2), cifar_pad2 (cifar with the padding of solo-learn); auto: cifar for views of up to 64 "
        "pixels, else imagenet",
        choices=("auto", "imagenet", "cifar", "small", "cifar_pad2"),
    )
    width: float = option(
        1.0, "factor of the numbers of channels of the backbone, 64 in its first stage", limits=(0.01, 16)
    )
    d: int = option(2048, "width of the projection and the prediction (App. B)", limits=(2, 2**16))
    projector_layers: int = option(
        3, "fully connected layers of the projector (App. D: 2 for CIFAR)", limits=(1, 8)
    )
    projector_hidden: int | None = option(
        None,
        "width of the projector's hidden layers; by default that of the features, 2048 with ResNet-50; with "
        "vicreg and barlow that is `d`",
        limits=(1, 2**16),
    )
    predictor_hidden: int | None = option(
        None,
        "width of the predictor's hidden layer; by default d/4, with byol the projector's",
        limits=(1, 2**16),
    )
    weights: str | None = option(
        None,
        "start the backbone from these weights: a finished or converted work folder, a .keras file, or "
        "hf://USER/NAME[@REVISION] on the Hugging Face Hub",
    )
    weights_heads: str = option(
        "auto",
        "whether projector and predictor start from `weights`, too; auto: only from weights that were "
        "converted from PyTorch, to continue that training",
        choices=("auto", "true", "false"),
    )

    method: str = option(
        "simsiam",
        "simsiam, a method that the paper compares it with (Table 4), or a later one: vicreg, barlow, or "
        "distill, which learns the features of `teacher`",
        "Method",
        choices=METHODS,
    )

    recipe: str = option(
        "none",
        "auto: choose network, views, method, rates and batch from the images and the machine, and print "
        "each choice with its reason (docs/recipes.md); options that are given stay as they are",
        choices=("none", "auto"),
        resumable=True,
    )
    given: str = option(
        "",
        "options that recipe=auto leaves at their defaults, separated by commas; flags that are typed need "
        "not be named",
        resumable=True,
    )
    minutes: float | None = option(
        None,
        "minutes that the whole run takes, instead of `epochs`: a few steps are timed at the start, and as "
        "many are trained as fit, with evaluations and export. A run that continues keeps their number",
        "Optimisation",
        limits=(0.01, BIG),
    )
    start_epoch: float = option(
        0.0,
        "number of epochs that another program has trained. The run continues from its weights and, where "
        "`weights` has it, its momentum, with the learning rate and the order of images of that epoch",
        limits=(0, BIG),
    )
    optimizer: str = option(
        "sgd",
        "sgd, or, for large batches, lars as in the code of `method`, or adamw, as for transformers, for "
        "example with base_lr=0.001 weight_decay=0.05: its decay is decoupled, and leaves out biases, norms, "
        "tokens and position embeddings",
        choices=("sgd", "lars", "adamw"),
    )
    final_lr: float = option(
        0.0,
        "learning rate at the end of the cosine, multiplied by batch_size/256 as `base_lr` is",
        limits=(0, 1e3),
    )
    predictor_lr: str = option(
        "decayed",
        "learning rate of the predictor: decays as that of the backbone, or stays constant (Table 1 c)",
        choices=("decayed", "constant"),
    )
    predictor_lr_factor: float = option(
        1.0, "the predictor's learning rate is multiplied by this", limits=(0, 1e3)
    )
    lr_update: str = option(
        "step",
        "how often the learning rate decays: at every step, or once an epoch as in the official code",
        choices=("step", "epoch"),
    )

    knn_every: int | None = option(
        None,
        "epochs from one evaluation by the monitor to the next; 0: only at the end; by default as often as "
        "about 1 % of the time allows",
        "Monitor",
        resumable=True,
        limits=(0, BIG),
    )
    knn_images: int = option(
        12000,
        "number of images that the monitor uses during the training. Without labels it uses at most 2,000",
        resumable=True,
        limits=(100, BIG),
    )
    final_images: int | None = option(
        None,
        "number of images that the monitor uses at the end, once the weights are exported; by default all, "
        "or with `minutes` as many as take a tenth of them. 0: no evaluation at the end",
        resumable=True,
        limits=(0, BIG),
    )
    finish: str = option(
        "whiten",
        "how the exported backbone reads features. whiten: as means over the quarters of its last maps, if "
        "these are at most 2,048, centred and whitened as measured on up to 20,000 images of `data`; "
        "linear_eval, finetune and further pre-training leave these layers out. none: as they are trained",
        choices=("whiten", "none"),
        resumable=True,
    )
    read_size: int | None = option(
        None,
        "height and width in pixels at which the exported backbone reads images, with finish=whiten; by "
        "default twice those of the views, but at most 64, or those of larger views",
        limits=(4, 4096),
        resumable=True,
    )
    fail_on_collapse: bool = option(
        False, "stop with exit status 3 as soon as the diagnosis is a collapse", resumable=True
    )
    preview: bool = option(
        False, "write a picture of some images and their views, and do not train", "Only look", resumable=True
    )
    dry_run: bool = option(False, "check the data and print what would run, and do not train", resumable=True)

    def method_option(self, name: str) -> Any:
        """The value of an option, or the method's default for it where it is None or "auto"."""
        value = getattr(self, name)
        return method_of({"method": self.method}).defaults.get(name) if value in (None, "auto") else value

    @property
    def method_options(self) -> MethodOptions:
        """The options of the method, with its defaults filled in."""
        cls = METHODS[self.method].options
        return cls(**{field.name: self.method_option(field.name) for field in dataclasses.fields(cls)})

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
        published = parse_backbone(self.backbone).weights
        if self.weights and (published or is_network(self.weights)):
            name = self.weights if is_network(self.weights) else self.backbone
            raise UserError(
                f"weights={self.weights}: `weights` takes work folders and .keras files. For published "
                f"weights pass backbone={name.partition('+')[0]}+weights alone."
            )
        if self.start_epoch and self.optimizer == "adamw":
            raise UserError(
                f"start_epoch={self.start_epoch:g}: has no moments of optimizer=adamw to go on with. Leave "
                "it out, or continue with optimizer=sgd."
            )
        self.method_options.check(self.batch_size)
        return self

    @property
    def needs_timing(self) -> bool:
        """Whether `epochs` is still to be chosen for `minutes`; its default then stands for no value."""
        return self.minutes is not None and self.epochs == default(type(self), "epochs")

    def check_epochs(self) -> None:
        if self.needs_timing:
            return
        super().check_epochs()
        if self.start_epoch >= self.epochs:
            raise UserError(
                f"start_epoch={self.start_epoch:g}: nothing is left of epochs={self.epochs:g}. Pass the "
                "epochs of the whole run as `epochs`."
            )

    def as_values(self) -> PretrainConfig:
        """Without `minutes` where `epochs` has been chosen for them."""
        return self if self.needs_timing else dataclasses.replace(self, minutes=None)
