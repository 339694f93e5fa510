"""From a choice of tables to results: which runs are missing, running them, writing what came out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.paper import results, run_queue, scales
from scripts.paper.rows import TABLES
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.progress import bar
from simsiam_tf.runtime.signals import INTERRUPTED


def run(config: Any) -> int:
    """Runs what a `ReproduceConfig` asks for; returns the exit status: 0, 1 where a run failed, 75."""
    scale = scales.SCALES[config.scale]
    out = Path(config.out or Path(config.folder) / config.scale).expanduser()
    held = results.Results(out.with_name(f"{out.name}.json"), config.scale)
    all_rows = _flags(config, scale)
    flags = {row.name: all_rows[row.name] for table in config.tables for row in TABLES[table].rows}
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    first: dict[str, str] = {}
    for name, text in flags.items():
        first.setdefault(text, name)  # of the rows that are the same run
    jobs = [
        run_queue.Job(
            first[text], seed, text, scale.linear,
            Path(config.folder).expanduser().absolute() / config.scale / first[text] / f"seed{seed}",
            config.data_dir,
        )
        for seed in seeds
        for text in first
        if held.get(text, seed) is None
    ]  # fmt: skip
    wanted = len(first) * len(seeds)
    print(f"{wanted} runs for {len(flags)} rows, {wanted - len(jobs)} of them done.")
    print(f"{config.scale}: {scale.about}; {scale.cost}.")
    if config.dry_run:
        print("\n".join(_listed(job) for job in jobs))
        return 0
    page = out.with_name(f"{out.name}.md")

    def write() -> None:
        of_rows = {name: held.of(text) for name, text in all_rows.items()}
        atomic_write_text(page, results.markdown(of_rows, config.scale, config.epochs))

    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise UserError(f"--out={page}: cannot be written ({error.strerror}). Choose another.") from error
    queue = _work(jobs, config, held, write)
    print(f"{page}, {held.path}: {queue.finished} runs added, {queue.failed} failed.")
    if queue.interrupted:
        print("Interrupted. Rerun the same command to go on.", file=sys.stderr)
        return INTERRUPTED
    return 1 if queue.failed else 0


def _flags(config: Any, scale: scales.Scale) -> dict[str, str]:
    """Row's name → the flagfile it runs with, of all tables."""
    more = (f"--epochs={config.epochs}",) if config.epochs else ()
    rows = {row.name: row for table in TABLES.values() for row in table.rows}
    return {name: scales.flags(scales.configuration(row, scale, more)) for name, row in rows.items()}


def _work(
    jobs: list[run_queue.Job], config: Any, held: results.Results, write: Callable[[], None]
) -> run_queue.Queue:
    with bar(None, "runs", total=len(jobs), unit="run", delay=0) as progress:
        machine = _machine(config.jobs)

        def done(job: run_queue.Job, figures: dict) -> None:
            held.add(job.flagfile, job.seed, {**figures, "machine": machine})
            write()
            progress.update()

        queue = run_queue.Queue(jobs, done, lambda line: progress.write(line, file=sys.stderr))
        queue.run(config.jobs)
    return queue


def _listed(job: run_queue.Job) -> str:
    return f"{job.name}, seed {job.seed}: {' '.join(job.flagfile.split())}"


def _machine(jobs: int) -> str:
    """What figures are made with."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras"))
    return f"{_cpu()}, {os.cpu_count()} cores, {jobs} at a time, {versions}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown CPU"
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "unknown CPU")
