"""Runs the rows that have no result yet of the chosen tables, and writes all tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.bench import cpu_info
from scripts.paper import results, run_queue, scales
from scripts.paper.rows import TABLES
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.progress import bar, say
from simsiam_tf.runtime.signals import INTERRUPTED


def run_campaign(config: Any) -> int:
    """Runs the missing rows of a `ReproduceConfig`; returns 0, 1 if a run failed, or 75 if interrupted."""
    scale = scales.SCALES[config.scale]
    out = Path(config.out or Path(config.folder) / config.scale).expanduser()
    known = results.Results(out.with_name(f"{out.name}.json"), config.scale)
    all_rows = _flags(config, scale)
    flags = {row.name: all_rows[row.name] for table in config.tables for row in TABLES[table].rows}
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    first_row: dict[str, str] = {}  # text of a flagfile → the first of the rows that have it
    for name, text in flags.items():
        first_row.setdefault(text, name)
    jobs = [
        run_queue.Job(
            first_row[text], seed, text, scale.linear,
            Path(config.folder).expanduser().absolute() / config.scale / first_row[text] / f"seed{seed}",
            config.data_dir,
        )
        for seed in seeds
        for text in first_row
        if known.get(text, seed) is None
    ]  # fmt: skip
    wanted = len(first_row) * len(seeds)
    print(f"{wanted} runs for {len(flags)} rows, {wanted - len(jobs)} of them done.")
    print(f"{config.scale}: {scale.about}; {scale.cost}.")
    if config.dry_run:
        print("\n".join(_job_line(job) for job in jobs))
        return 0
    page = out.with_name(f"{out.name}.md")

    def write() -> None:
        runs_of_rows = {name: known.runs_of_flags(text) for name, text in all_rows.items()}
        atomic_write_text(page, results.markdown(runs_of_rows, config.scale, config.epochs))

    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise UserError(f"--out={page}: cannot be written ({error.strerror}). Choose another.") from error
    queue = _run_jobs(jobs, config, known, write)
    print(f"{page}, {known.path}: {queue.finished} runs added, {queue.failed} failed.")
    if queue.interrupted:
        print("Interrupted. Rerun the same command to go on.", file=sys.stderr)
        return INTERRUPTED
    return 1 if queue.failed else 0


def _flags(config: Any, scale: scales.Scale) -> dict[str, str]:
    """Row's name → text of its flagfile at the scale, for the rows of all tables."""
    extra_flags = (f"--epochs={config.epochs}",) if config.epochs else ()
    rows = {row.name: row for table in TABLES.values() for row in table.rows}
    return {name: scales.row_flags(scales.row_config(row, scale, extra_flags)) for name, row in rows.items()}


def _run_jobs(
    jobs: list[run_queue.Job], config: Any, known: results.Results, write: Callable[[], None]
) -> run_queue.RunQueue:
    with bar(None, "runs", total=len(jobs), unit="run", delay=0) as progress:
        machine = machine_text(config.jobs)

        def done(job: run_queue.Job, metrics: dict) -> None:
            known.add(job.flagfile, job.seed, {**metrics, "machine": machine})
            write()
            progress.update()

        queue = run_queue.RunQueue(jobs, done, say)
        queue.run(config.jobs)
    return queue


def _job_line(job: run_queue.Job) -> str:
    return f"{job.name}, seed {job.seed}: {' '.join(job.flagfile.split())}"


def machine_text(jobs: int) -> str:
    """CPU, cores, runs at a time and versions, as text for the results."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras"))
    return f"{cpu_info.cpu_name()}, {os.cpu_count()} cores, {jobs} at a time, {versions}"
