"""Writes the tables of docs/gpu.md from the figures that `gpu_stages.py` has appended.

    python scripts/bench/gpu_page.py runs/gpu/figures.jsonl docs/gpu.md

The tables lie between two markers in the page; all else in it is left as it is. Of a stage that ran more than
once the last line counts.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from simsiam_tf.runtime.atomic_files import atomic_write_text

BEGIN, END = "<!-- gpu_page.py: tables begin -->", "<!-- gpu_page.py: tables end -->"
OURS = ("ours", "ours, whole step by XLA", "ours, autoclustering")  # equal batch and precision
THEIRS = ("PyTorch", "PyTorch, torch.compile")
LOSS_STEPS = (1, 10, 20, 100, 300)
TITLES = {
    1: "A step of ResNet-50",
    2: "Where its time goes",
    3: "A training from a folder of JPEGs",
    4: "Trainings to some hundred steps",
    5: "Memory by batch size",
    6: "Search for neighbours",
}
HEADERS = {
    1: ("step", "precision", "batch", "seconds", "of PyTorch's better", "GPU memory, peak MiB"),
    2: ("class of operations", "ms of a step", "share", "kernels"),
    3: ("program", "images/s", "waiting for data", "GPU in use", "host memory, peak MiB"),
    4: ("training", "steps", "ms a step", *(f"loss at step {n}" for n in LOSS_STEPS), "last loss"),
    5: ("batch", "peak MiB", "`--dry_run` estimates", "peak / estimate"),
    6: ("queries", "bank", "numbers each", "seconds", "TFLOP/s", "ImageNet, s", "all pairs, h"),
}


def read(log: Path) -> list[dict]:
    """The lines of a file of figures; a last line that was cut is left out."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    figures = []
    for line in lines:
        try:
            figures.append(json.loads(line))
        except ValueError:
            continue
    return figures


def newest(figures: list[dict]) -> dict[str, dict]:
    """Stage → its last line, in the order in which stages were first run."""
    return {line["stage"]: line for line in figures if "stage" in line}


def step_seconds(line: dict) -> float | None:
    """Seconds of a step, from a line of item 1; None where it failed."""
    timings = _timings(line)
    return next(iter(timings["median_seconds"].values())) if timings else None


def fastest(figures: list[dict], names: tuple[str, ...] = OURS) -> str | None:
    """The stage of the fastest step among `names`, or None where none was measured."""
    lines = newest(figures)
    seconds = {name: step_seconds(lines[name]) for name in names if name in lines}
    measured = {name: value for name, value in seconds.items() if value}
    return min(measured, key=measured.__getitem__) if measured else None


def write_page(page: Path, figures: list[dict]) -> None:
    """Replaces the tables of a page.

    Raises:
        ValueError: the page lacks one of the markers.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: has no lines {BEGIN} and {END}. Put them where the tables should be.")
    atomic_write_text(page, f"{before}{BEGIN}\n{tables(figures)}\n{END}{after}")


def tables(figures: list[dict]) -> str:
    """All tables, in Markdown."""
    lines, parts = newest(figures), [_machine(figures[0])]
    for item, title in TITLES.items():
        chosen = [line for line in lines.values() if line["item"] == item]
        if item == 5 and "ours" in lines:
            chosen.append({**lines["ours"], "item": 5})
        rows = [row for line in chosen for row in _rows(line, lines)]
        if rows:
            header = [HEADERS[item], ["---"] * len(HEADERS[item])]
            parts.append(f"### {item}. {title}\n\n" + "\n".join(map(_row, [*header, *rows])))
        if item == 1 and (sentence := _winner(figures)):
            parts.append(sentence)
    return "\n\n".join(parts)


def _machine(known: dict) -> str:
    versions = ", ".join(
        f"{library} {known[library]}"
        for library in ("tensorflow", "keras", "torch", "triton")
        if library in known
    )
    sizes = "Tiny sizes, which show only that every stage runs. " if known.get("tiny") else ""
    card = f"{known['card']} (memory, driver)" if "card" in known else "no GPU"
    return f"{sizes}{card}; {known['cpu']}; {versions}; {known['date']}."


def _winner(figures: list[dict]) -> str:
    ours, theirs, lines = fastest(figures), fastest(figures, THEIRS), newest(figures)
    if ours is None:
        return ""
    sentence = f"The fastest of ours: {ours}"
    if theirs:
        ratio = step_seconds(lines[ours]) / step_seconds(lines[theirs])
        sentence += f", {ratio:.2f} of {theirs}'s time"
    return sentence + ". `AUTO` in `simsiam_tf/distributed/step_compilation.py` has to say the same of GPUs."


def _row(cells) -> str:  # noqa: ANN001
    return "| " + " | ".join(map(str, cells)) + " |"


def _rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    """The rows of one stage; of one without a result a single row that says why."""
    item, width = line["item"], len(HEADERS[line["item"]])
    if line["status"] != "done":
        reason = f"{line['status']}: {line['reason']}"
        return [[line["stage"], reason, *[""] * (width - 2)]]
    rows = {1: _step_rows, 2: _profile_rows, 3: _fed_rows, 4: _loss_rows, 5: _memory_rows, 6: _search_rows}
    return rows[item](line, lines)


def _timings(line: dict) -> dict:
    """The timings of a line of `bench_step.py` or `bench_end_to_end.py`; empty where it failed."""
    if line["status"] != "done":
        return {}
    result = line["result"]
    return next(iter(result["results"].values())) if "results" in result else result


def _metadata(timings: dict) -> dict:
    return next(iter(timings["metadata"].values()))


def _number(value: float | None, pattern: str = "{:,.0f}") -> str:
    return "–" if value is None else pattern.format(value)


def _step_rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    timings, seconds = _timings(line), step_seconds(line)
    precision, metadata = next(iter(line["result"]["results"])), _metadata(_timings(line))
    rivals = [step_seconds(lines[name]) for name in THEIRS if name in lines]
    best = min((value for value in rivals if value), default=None)
    comparable = best and line["stage"] in OURS
    memory = next(iter(timings.get("gpu_peak_mib", {}).values()), None)
    return [[
        line["stage"], precision, str(metadata.get("batch", "")), f"{seconds:.4f}",
        f"{seconds / best:.2f}" if comparable else "", _number(memory),
    ]]  # fmt: skip


def _profile_rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    del lines
    result = line["result"]
    total = sum(result["operation_seconds"].values())
    scale = 1.0 if "gpu" in result else result["step"] / total
    rows = [["a step", f"{1000 * result['step']:.1f}", "", ""]]
    for name, seconds in sorted(result["operation_seconds"].items(), key=lambda item: -item[1]):
        count = _number(result["calls"].get(name))
        rows.append([f"– {name}", f"{1000 * scale * seconds:.1f}", f"{seconds / total:.0%}", count])
    return rows


def _fed_rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    del lines
    timings = _timings(line)
    (name, seconds), *_ = timings["median_seconds"].items()
    waiting = timings["notes"].get(name, {}).get("waiting")
    return [[
        line["stage"], f"{1 / seconds:,.1f}", _number(waiting, "{:.1%}"),
        _number(timings["gpu_utilisation"].get(name), "{:.0f} %"), _number(timings["peak_mib"][name]),
    ]]  # fmt: skip


def _loss_rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    del lines
    losses = line["result"]["losses"]
    training = statistics.median(run.get("training", float("nan")) for run in line["result"]["runs"])
    at = [f"{losses[n - 1]:.4f}" if n <= len(losses) else "" for n in LOSS_STEPS]
    milliseconds = 1000 * training / max(1, len(losses) - 1)
    return [[line["stage"], str(len(losses)), f"{milliseconds:.1f}", *at, f"{losses[-1]:.4f}"]]


def _memory_rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    del lines
    timings = _timings(line)
    metadata, on_gpu = _metadata(timings), next(iter(timings["gpu_peak_mib"].values()), None)
    peak = next(iter(timings["peak_mib"].values())) if on_gpu is None else on_gpu
    estimate = metadata["estimated_mib"]
    return [[str(metadata["batch"]), _number(peak), _number(estimate), f"{peak / estimate:.2f}"]]


def _search_rows(line: dict, lines: dict[str, dict]) -> list[list[str]]:
    del lines
    found = line["result"]
    return [[
        f"{found['queries']:,}", f"{found['bank']:,}", str(found["features"]), f"{found['seconds']:.2f}",
        f"{found['operations a second'] / 1e12:.2f}", _number(found["seconds of ImageNet"]),
        _number(found["seconds of all pairs"] / 3600, "{:,.2f}"),
    ]]  # fmt: skip


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print("usage: gpu_page.py FIGURES.jsonl PAGE.md", file=sys.stderr)
        return 2
    write_page(Path(argv[1]), read(Path(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
