"""The options of the networks of a pre-training: backbone, heads, and the weights they begin with."""

from __future__ import annotations

import dataclasses
from typing import Self

from simsiam_tf.config.backbones import BACKBONES, PIXELS, is_network, parse_backbone
from simsiam_tf.config.evaluation import PIXELS_OPTION, TRUST_OPTION
from simsiam_tf.config.fields import Config, Inapplicable, option
from simsiam_tf.config.methods import METHODS
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Config):
    """Options of networks; a base of `PretrainConfig`."""

    INAPPLICABLE = (
        Inapplicable(
            ("d",), "method", lambda v: v in METHODS and not METHODS[v].d,
            "method=distill, whose z is as wide as the teacher's features",
        ),
        Inapplicable(("projector_hidden",), "projector_layers", lambda v: v == 1, "projector_layers=1"),
        Inapplicable(("weights_heads",), "weights", lambda v: not v, "no `weights`"),
        Inapplicable(
            ("stem", "width"), "backbone", is_network, "a backbone that is not a ResNet of this package"
        ),
        Inapplicable(("pixels",), "backbone", lambda v: not is_network(v), "a ResNet of this package"),
    )  # fmt: skip

    backbone: str = option(
        "resnet50",
        f"network whose features are learned: {', '.join(BACKBONES)}; keras:NAME of keras.applications; "
        "hub:PRESET of keras-hub (a name, a folder, hf://…, kaggle://…); file:PATH.keras; or "
        "py:MODULE:FUNCTION, a function of (size, channels) that returns a Keras model. keras:NAME+imagenet, "
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
        1.0,
        "channels of the backbone, as a multiple of the usual number, 64 in its first stage",
        limits=(0.01, 16),
    )
    d: int = option(2048, "width of the projection and the prediction (App. B)", limits=(2, 2**16))
    projector_layers: int = option(
        3, "fully connected layers of the projector (App. D: 2 for CIFAR)", limits=(1, 8)
    )
    projector_hidden: int | None = option(
        None,
        "width of the projector's hidden layers; by default the number of features (2048 with ResNet-50), "
        "with vicreg and barlow `d`",
        limits=(1, 2**16),
    )
    predictor_hidden: int | None = option(
        None,
        "width of the predictor's hidden layer; by default d/4, with byol the width of the projector's",
        limits=(1, 2**16),
    )
    weights: str | None = option(
        None,
        "start the backbone from these weights: a finished or converted work folder, a .keras file, "
        "hf://USER/NAME[@REVISION] on the Hugging Face Hub, or the URL of a card, "
        "https://…/NAME.json#sha256=HEX",
    )
    weights_heads: str = option(
        "auto",
        "whether projector and predictor start from `weights`, too; auto: only from weights that were "
        "converted from PyTorch, to continue that training",
        choices=("auto", "true", "false"),
    )

    def validate(self) -> Self:
        super().validate()
        published = parse_backbone(self.backbone).weights
        if self.weights and (published or is_network(self.weights)):
            name = self.weights if is_network(self.weights) else self.backbone
            raise UserError(
                f"weights={self.weights}: `weights` takes work folders and .keras files. For published "
                f"weights pass backbone={name.partition('+')[0]}+weights alone."
            )
        return self
