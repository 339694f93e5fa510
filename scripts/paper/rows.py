"""The paper's tables: the flagfile of each row, and the paper's result."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    name: path of its flagfile, without flags/ and .cfg. paper: ImageNet top-1 of the linear evaluation
    in %, or a word. title: names of options in braces are replaced by their values (`scales.row_title`).
    """

    name: str
    title: str
    paper: float | str

    @property
    def flagfile(self) -> str:
        return f"flags/{self.name}.cfg"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper. named_only: whether --table=all leaves it out, because of its cost."""

    title: str
    rows: tuple[Row, ...]
    named_only: bool = False


BASE = Row("paper/table1_c_constant_lr", "SimSiam, lr of h constant", 68.1)
DECAYED = Row("paper/fig2_with_stop_gradient", "SimSiam, lr of h decayed", 67.7)
SIMCLR = Row("compare/simclr", "SimCLR", 66.5)
SWAV = Row("compare/swav", "SwAV", 66.5)
METHODS = (  # Table 4: name, title, top-1 after 100, 200, 400 and 800 epochs
    ("simclr", "SimCLR", (66.5, 68.3, 69.8, 70.4)),
    ("moco", "MoCo v2, symmetric", (67.4, 69.9, 71.0, 72.2)),
    ("byol", "BYOL", (66.5, 70.6, 73.2, 74.3)),
    ("swav", "SwAV", (66.5, 69.1, 70.7, 71.8)),
    ("simsiam", "SimSiam", (68.1, 70.0, 70.8, 71.3)),
)

TABLES = {
    "fig2": Table(
        "Fig. 2: stop-gradient",
        (
            dataclasses.replace(DECAYED, title="with stop-gradient"),
            Row("paper/fig2_without_stop_gradient", "without stop-gradient", 0.1),
        ),
    ),
    "table1": Table(
        "Table 1: predictor",
        (
            dataclasses.replace(DECAYED, title="baseline, lr decayed on a cosine"),
            Row("paper/table1_a_no_predictor", "(a) no predictor", 0.1),
            Row("paper/table1_b_fixed_predictor", "(b) fixed at its random start", 1.5),
            dataclasses.replace(BASE, title="(c) lr of h not decayed"),
        ),
    ),
    "table2": Table(
        "Table 2: batch size",
        tuple(
            Row(f"paper/table2_batch_{batch}", "batch {batch_size}", paper)
            for batch, paper in (
                (64, 66.1), (128, 67.3), (256, 68.1), (512, 68.1), (1024, 68.0), (2048, 67.9), (4096, 64.0),
            )
        ),
    ),
    "table3": Table(
        "Table 3 and Sec. 4.4: BN in the heads",
        (
            Row("paper/table3_a_no_bn", "(a) none", 34.6),
            Row("paper/table3_b_hidden_bn", "(b) hidden layers", 67.4),
            Row("paper/table3_c_default_bn", "(c) and the projector's output", 68.1),
            Row("paper/table3_d_all_bn", "(d) and the predictor's output", "unstable"),
            Row("paper/sec44_output_bn_without_affine", "(c), output BN without affine", 68.2),
        ),
    ),
    "sec45": Table(
        "Sec. 4.5: similarity",
        (
            dataclasses.replace(BASE, title="cosine"),
            Row("paper/sec45_cross_entropy", "cross-entropy", 63.2),
        ),
    ),
    "sec46": Table(
        "Sec. 4.6: symmetry",
        (
            dataclasses.replace(BASE, title="symmetric"),
            Row("paper/sec46_asymmetric", "asymmetric", 64.8),
            Row("paper/sec46_asymmetric_2x", "asymmetric, two pairs per image", 67.3),
        ),
    ),
    "appb": Table(
        "App. B: output dimension",
        (
            *(
                Row(f"paper/appb_d_{d}", "d = {d}", paper)
                for d, paper in ((256, 65.3), (512, 67.2), (1024, 67.5))
            ),
            dataclasses.replace(BASE, title="d = {d}"),
        ),
    ),
    "sec5": Table(
        "Sec. 5: alternation, and the expectation without a predictor",
        (
            *(
                Row(f"paper/sec5_alternation_{k}", f"targets kept for k = {k}", paper)
                for k, paper in ((1, 68.1), (10, 68.7), (100, 68.9))
            ),
            Row("paper/sec5_alternation_epoch", "targets kept for an epoch", 67.0),
            Row("paper/sec5_moving_average", "no predictor, a moving average per image", 55.0),
        ),
    ),
    "sec62": Table(
        "Sec. 6.2: the other methods with SimSiam's parts",
        (
            SIMCLR,
            Row("compare/simclr_predictor", "SimCLR with predictor", 66.4),
            Row("compare/simclr_predictor_stop_gradient", "SimCLR with predictor and stop-gradient", 66.0),
            SWAV,
            Row("compare/swav_predictor", "SwAV with predictor", 65.2),
            Row("compare/swav_without_stop_gradient", "SwAV without stop-gradient", "NaN"),
        ),
    ),
    "table4": Table(
        "Table 4: methods",
        (
            *(
                Row(f"compare/{name}", f"{title}, batch {{batch_size}}", paper[0])
                for name, title, paper in METHODS
            ),
        ),
    ),
    "table4_long": Table(
        "Table 4: methods, more epochs",
        (
            *(
                Row(f"compare/{name}_{epochs}ep", f"{title}, epochs {{epochs}}", paper[i])
                for name, title, paper in METHODS
                for i, epochs in ((1, 200), (2, 400), (3, 800))
            ),
        ),
        named_only=True,
    ),
}  # fmt: skip
