"""python -m scripts.paper.reproduce --table=…: the paper's tables, row by row, beside the paper's results."""

from __future__ import annotations

import dataclasses
import sys

from scripts.paper import SCALES, TABLES, campaign
from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, option
from simsiam_tf.runtime.errors import UserError


def _list_lines(entries: dict[str, str]) -> str:
    return "\n".join(f"    {name:14}{text}" for name, text in entries.items())


ABOUT = f"""Runs the rows that have no result yet of the paper's tables, in three processes each:
pre-training, kNN, linear evaluation. Rerun the same command after an interruption: finished rows are not run
again, and the others continue from their checkpoints. Writes OUT.json and, from it, OUT.md: each table of the
paper with our results beside it, and whether the results of three seeds or more show each claim.

    python -m scripts.paper.reproduce --table=fig2
    python -m scripts.paper.reproduce --table=all --seeds=3 --jobs=2 --out=results

Tables:
{_list_lines({name: table.title for name, table in TABLES.items()})}

Scales:
{_list_lines({name: f"{scale.about}; {scale.cost}" for name, scale in SCALES.items()})}"""


@dataclasses.dataclass(frozen=True)
class ReproduceConfig(Config):
    """A choice of tables, and the scale at which their rows are run."""

    table: str = option("all", "tables, separated by commas; all: every table but table4_long", "What")
    scale: str = option("fashion_mnist", "size of data, network and training", choices=tuple(SCALES))
    seeds: int = option(1, "runs of every row", limits=(1, 100))
    first_seed: int = option(0, "first seed; the others follow it", limits=(0, 2**31 - 101))
    epochs: float | None = option(
        None, "epochs of every pre-training, instead of the scale's own", limits=(0.01, 1e5)
    )
    data_dir: str | None = option(None, "folder of TFDS's data sets")
    jobs: int = option(1, "runs at a time, each on its share of the cores", "Run", limits=(1, 64))
    folder: str = option("runs/reproduce", "parent of the work folders")
    out: str | None = option(None, "path of the results, without .json and .md; FOLDER/SCALE by default")
    dry_run: bool = option(False, "only list the runs that have no result yet, with their flags", "Only look")

    def validate(self) -> ReproduceConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        super().validate()
        unknown = [name for name in self.tables if name not in TABLES]
        if unknown:
            raise UserError(
                f"--table={self.table}: no table {unknown[0]!r}. Choose from all, {', '.join(TABLES)}."
            )
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """The names in `table`."""
        if self.table == "all":
            return tuple(name for name, table in TABLES.items() if not table.named_only)
        return tuple(name.strip() for name in self.table.split(","))


def call(config: ReproduceConfig) -> int:
    """Runs the missing rows and writes the tables."""
    return campaign.run_campaign(config)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(ReproduceConfig, call, "scripts.paper.reproduce", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
