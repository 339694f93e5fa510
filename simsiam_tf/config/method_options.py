"""The options of every method, from which its flags are made.

They are not defined beside the models, since `--help` has to answer without importing TensorFlow.
"""

from __future__ import annotations

import dataclasses
import re

from simsiam_tf.config.backbones import PIXELS
from simsiam_tf.config.fields import BIG, option
from simsiam_tf.runtime.errors import UserError

SYMMETRY = {  # Sec. 4.6: (i, j) asks h to predict view j from view i   ImageNet top-1, %
    "symmetric": ((0, 1), (1, 0)),  # 68.1
    "asymmetric": ((0, 1),),  # 64.8
    "asymmetric_2x": ((0, 1), (2, 3)),  # 67.3: two pairs of views for each image
}


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """Options of a method, by the names of its model's arguments. Methods may share an option."""

    def check(self, batch_size: int) -> None:
        """Raises UserError for options that do not go together, or not with the batch size."""
        del batch_size

    @property
    def view_count(self) -> int:
        """Views of each image that the loss takes."""
        return 2

    @property
    def small_views(self) -> tuple[int, int | None, float]:
        """Further, small views: (number, size in pixels or None, largest area of a crop)."""
        return 0, None, 1.0

    @property
    def frozen_epochs(self) -> dict[str, float]:
        """Part of the model (its attribute) → epochs at the start in which it does not learn."""
        return {}


@dataclasses.dataclass(frozen=True)
class PredictorOptions(MethodOptions):
    """Options of methods that work with or without a predictor, and with or without stop-gradient."""

    predictor: str = option(
        "auto",
        "predictor h (Table 1): trained, fixed at its initial weights (simsiam only), or none; auto: trained "
        "with simsiam and byol, else none",
        "Method",
        choices=("auto", "trained", "fixed", "none"),
    )
    stop_gradient: bool | None = option(
        None, "let no gradient through the targets (Fig. 2); by default true, but false with simclr"
    )


@dataclasses.dataclass(frozen=True)
class LocalViewOptions(MethodOptions):
    """Small views beside the two of each image: the multi-crop of SwAV (arXiv 2006.09882)."""

    local_views: int = option(
        0,
        "number of small views of each image beside those of full size, which are predicted from the small "
        "ones, too (multi-crop; 6 in the SwAV paper)",
        "Local views",
        limits=(0, 64),
    )
    local_size: int | None = option(
        None,
        "height and width of small views in pixels; by default 3/7 of the size of the other views",
        limits=(4, 4096),
    )
    local_crop_area: float = option(
        0.14,
        "largest share of the image that a small view's crop covers; the smallest share is 5/14 of this",
        limits=(0.01, 1.0),
    )

    @property
    def small_views(self) -> tuple[int, int | None, float]:
        return self.local_views, self.local_size, self.local_crop_area


@dataclasses.dataclass(frozen=True)
class SimSiamOptions(LocalViewOptions, PredictorOptions):
    """Options of SimSiam (Sec. 4 and 5)."""

    bn: str = option(
        "default",
        "layers of projector and predictor with batch normalisation (Table 3); default: all but the "
        "predictor's output",
        "Method",
        choices=("none", "hidden", "default", "all"),
    )
    output_affine: bool = option(
        True, "learn a scale and a shift in the batch normalisation of the projector's output (Sec. 4.4)"
    )
    similarity: str = option(
        "cosine", "similarity of prediction and target (Sec. 4.5)", choices=("cosine", "cross_entropy")
    )
    symmetry: str = option(
        "symmetric",
        "predictions in the loss (Sec. 4.6): each of two views from the other (symmetric), one from the "
        "other (asymmetric), or the latter for two pairs of views (asymmetric_2x)",
        choices=SYMMETRY,
    )
    alternate: str | None = option(
        None, "steps after which the weights that make the targets are updated (Sec. 5): a number, or epoch"
    )
    average: float | None = option(
        None,
        "the target of an image is the moving average of its projections, in which the old average has this "
        "share (Sec. 5: 0.8, with predictor=none)",
        limits=(0, 0.9999),
    )

    def check(self, batch_size: int) -> None:
        if self.alternate not in (None, "epoch") and not re.fullmatch(r"[1-9]\d{0,8}", self.alternate):
            raise UserError(f"alternate={self.alternate}: must be a number of steps, or epoch.")
        if self.alternate and self.average is not None:
            raise UserError("`alternate` and `average`: are two readings of Sec. 5. Pass one of them.")
        if self.local_views and (self.alternate or self.average is not None):
            raise UserError(
                f"local_views={self.local_views}: is not for `alternate` and `average`. Leave it out."
            )

    @property
    def view_count(self) -> int:
        return 1 + max(max(pair) for pair in SYMMETRY[self.symmetry])


@dataclasses.dataclass(frozen=True)
class TemperatureOptions(MethodOptions):
    """The temperature of a softmax over similarities."""

    temperature: float | None = option(
        None,
        "temperature τ of the softmax in simclr, moco and swav; by default 0.1, 0.2 and 0.1",
        "Compared methods",
        limits=(0.001, 100),
    )


@dataclasses.dataclass(frozen=True)
class ContrastOptions(TemperatureOptions, PredictorOptions):
    """Options of methods with a softmax that work with or without a predictor."""

    def check(self, batch_size: int) -> None:
        if self.predictor == "fixed":
            raise UserError("predictor=fixed: is for simsiam alone. Leave it out with another `method`.")


@dataclasses.dataclass(frozen=True)
class SimCLROptions(LocalViewOptions, ContrastOptions):
    """Options of SimCLR."""


@dataclasses.dataclass(frozen=True)
class TargetMomentumOptions(MethodOptions):
    """The momentum of the encoder that makes the targets."""

    target_momentum: float | None = option(
        None,
        "momentum of the encoder that makes the targets, by default 0.999 with moco and 0.996 with byol, "
        "where it rises to 1 during the run",
        "Compared methods",
        limits=(0, 0.99999),
    )


@dataclasses.dataclass(frozen=True)
class MoCoOptions(TargetMomentumOptions, TemperatureOptions):
    """Options of MoCo."""

    queue: int = option(
        65536, "number of keys of earlier images in moco's queue", "Compared methods", limits=(1, BIG)
    )
    key_groups: int = option(
        1,
        "number of equal groups of a batch, over all replicas, in which moco's keys are batch-normalised",
        limits=(1, 2**16),
    )

    def check(self, batch_size: int) -> None:
        if batch_size % self.key_groups or batch_size < 2 * self.key_groups:
            raise UserError(
                f"key_groups={self.key_groups}: a batch of {batch_size} cannot be cut into as many equal "
                "parts of two images or more. Choose another `key_groups` or `batch_size`."
            )


@dataclasses.dataclass(frozen=True)
class SwAVOptions(ContrastOptions):
    """Options of SwAV."""

    prototypes: int = option(3000, "number of swav's prototypes", "Compared methods", limits=(2, 2**20))
    sinkhorn_epsilon: float = option(
        0.05, "ε in swav's Sinkhorn-Knopp; larger: each image belongs to more prototypes", limits=(0.0125, 10)
    )
    frozen_prototypes: float = option(
        1.0, "epochs at the start in which swav's prototypes do not learn", limits=(0, BIG)
    )
    prototype_norm: str = option(
        "after_step",
        "when swav's prototypes are scaled to length one: after each step, as in SwAV's code, or in the "
        "loss, with a gradient (Sec. 6.2, for stop_gradient=false)",
        choices=("after_step", "in_loss"),
    )

    @property
    def frozen_epochs(self) -> dict[str, float]:
        return {"prototypes": self.frozen_prototypes}


@dataclasses.dataclass(frozen=True)
class VICRegOptions(MethodOptions):
    """Options of VICReg."""

    invariance_weight: float = option(
        25.0, "λ of vicreg: weight of the distance between two views", "Other methods", limits=(0, 1e6)
    )
    variance_weight: float = option(
        25.0, "μ of vicreg: weight of standard deviations that fall short of 1", limits=(0, 1e6)
    )
    covariance_weight: float = option(
        1.0, "ν of vicreg: weight of covariances of the channels", limits=(0, 1e6)
    )


@dataclasses.dataclass(frozen=True)
class BarlowOptions(MethodOptions):
    """Options of Barlow Twins."""

    redundancy_weight: float = option(
        5e-3, "λ of barlow: weight of correlations of different channels", "Other methods", limits=(0, 1e6)
    )
    loss_factor: float = option(
        0.024,
        "factor by which barlow's loss is multiplied: 0.024 in the code of its authors, 1 in the paper",
        limits=(1e-6, 1e6),
    )


@dataclasses.dataclass(frozen=True)
class DistillOptions(MethodOptions):
    """Options of distillation."""

    teacher: str | None = option(
        None,
        "network whose features the backbone learns: a finished or converted work folder, a .keras file, "
        "hf://USER/NAME, the URL of a card, keras:NAME+imagenet or hub:PRESET",
        "Distillation",
        resumable=True,
    )
    teacher_pixels: str = option(
        "auto", "pixel values that the teacher takes; see `pixels`", choices=("auto", *PIXELS)
    )
    teacher_size: int | None = option(
        None,
        "side in pixels to which views are resized for the teacher; by default the size of the views, or the "
        "only size that the teacher takes",
        limits=(4, 4096),
    )

    def check(self, batch_size: int) -> None:
        if not self.teacher:
            raise UserError(
                "`teacher`: missing, and method=distill learns its features. Pass a work folder, as in "
                "teacher=runs/photos, or a published network, as in teacher=keras:EfficientNetV2B0+imagenet."
            )
