"""Images of a set that cannot be read: a line that names some, and a report that names all."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from simsiam_tf.data.sources.addresses import read_bytes
from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

FIX = "Mend or remove them, or go on without them: pass on_bad_image=skip."
KINDS = 4  # most reasons that the line names


def report_unreadable(
    bad: dict[str, str],
    size: int,
    shown: str,
    options: SourceOptions,
    stand_ins: bool = False,
    problem: str = "cannot be decoded",
) -> None:
    """Writes the report of unreadable images, and refuses the set or says on stderr what is left out.

    bad: name → reason. size: images of the set. shown: the set's name. stand_ins: whether others stand in for
    such images, as in a run that continues. problem: of these images.

    Raises:
        UserError: there are such images, and options.on_bad_image is "error".
    """
    named = bool(bad and options.report and _write_report(options.report, bad))
    if not bad:
        return
    kinds: dict[str, list[str]] = {}
    for name, reason in bad.items():
        kinds.setdefault(reason, []).append(name)
    most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    listed = [
        f"{len(names)} × {reason}, such as {printable_text(names[0])}" for reason, names in most[:KINDS]
    ]
    if len(most) > KINDS:
        listed.append(f"{sum(len(names) for _, names in most[KINDS:])} for other reasons")
    such = f": {'; '.join(listed)}"
    if len(most) == 1:
        such = f", such as {printable_text(most[0][1][0])} ({most[0][0]})"
    text = f"{shown}: {len(bad)} of {counted(size, 'image')}"
    if options.on_bad_image == "error":
        all_named = f" All are named in {options.report}." if named else ""
        raise UserError(f"{text} {problem}{such}.{all_named} {FIX}")
    fate = "replaced by the next in the list" if stand_ins else "left out"
    print(f"{text} {fate}{f'; named in {options.report}' if named else such}", file=sys.stderr)


def _write_report(report: Path, bad: dict[str, str]) -> bool:
    """Writes the report. Returns whether that worked; a line on stderr says why not."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        if not report.is_dir() and not report.is_file():  # a pipe or a device
            report.unlink(missing_ok=True)
        atomic_write_text(report, json.dumps({"unreadable": bad}, indent=1))
        return True
    except OSError as error:
        print(f"{report}: cannot be written ({error.strerror})", file=sys.stderr)
        return False


def add_to_report(report: Path, names: Sequence[str]) -> None:
    """Adds images that changed or disappeared while their features were made to a report."""
    try:
        bad = {**json.loads(read_bytes(str(report)))["unreadable"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        bad = {}
    _write_report(
        report, {**bad, **dict.fromkeys(names, "changed or disappeared while its features were made")}
    )
