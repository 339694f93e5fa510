"""Command lines: argv → configuration → one call, with one clear line for what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import gc
import os
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from simsiam_tf import config as configs
from simsiam_tf.errors import UserError
from simsiam_tf.loop import signals
from simsiam_tf.withheld import withheld

HERE = Path(__file__).resolve().parent
# Flagfiles lie beside the package in a checkout and within it in an installed wheel.
FLAG_ROOTS = (HERE.parent, HERE / "flagfiles")
SHOWN_LAST = ("Run", "Only look")  # groups of flags, in --help
_DEFINE = {
    str: flags.DEFINE_string, int: flags.DEFINE_integer,
    float: flags.DEFINE_float, bool: flags.DEFINE_boolean,
}  # fmt: skip


def run(cls: type, call: Callable[[Any], int | None], prog: str, about: str, argv=None) -> int:
    """Parses argv (sys.argv by default) into a `cls` and calls; returns the exit status.

    0: done. 2: something to mend, named in one line on stderr. 75: ended by SIGTERM or SIGINT,
    with nothing lost that was committed. Others are the call's own.
    """
    # The process ends after its own command, and what is done has to look done until then.
    afterwards = signal.SIG_IGN if argv is None else None
    argv = sys.argv[1:] if argv is None else list(argv)
    if any(a in ("--help", "-h", "--helpfull", "--helpshort", "-help") for a in argv):
        print(usage(cls, prog, about))
        return 0

    def leave(number: int, frame: Any) -> None:
        """Ends the process here and now: library threads must not hold it up."""
        line = f"{prog}: ended by {signal.Signals(number).name}. Rerun the same command to go on.\n"
        os.write(_terminal, line.encode())
        os._exit(signals.INTERRUPTED)

    try:
        with signals.handled(leave, afterwards):
            return call(parse(cls, argv)) or 0
    except UserError as error:
        print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.status


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While a command imports what it works with: quietly, and without what makes it slow.

    Keras and keras-cv import these two for wrappers and plots that no command has a use for. What
    is imported is half a million objects that stay, which the garbage collector would look through
    again and again; it leaves out those that are frozen.
    """
    anew, collects = "keras" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        with quietly(), withheld("sklearn", "matplotlib"):
            yield
        if anew:
            gc.freeze()
    finally:
        if collects:
            gc.enable()


_terminal = 2  # the descriptor of the user's stderr, also while `quietly` holds back the other


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Holds back what libraries print on stderr while they load; shows it when that fails.

    TensorFlow's native code greets with half a dozen lines that no setting turns off.
    """
    global _terminal
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    _terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(_terminal, held.read())
            raise
        finally:
            os.dup2(_terminal, 2)
            os.close(_terminal)
            _terminal = 2


def parse(cls: type, argv: list[str]) -> Any:
    """Arguments without the program's name → a validated configuration.

    Raises:
        UserError: unknown flag or value, positional argument, missing flagfile, or whatever
            the configuration's own `validate` refuses.
    """
    values = flags.FlagValues()
    kinds = configs.kinds(cls)
    for field in dataclasses.fields(cls):
        _DEFINE[kinds[field.name]](field.name, field.default, field.metadata["help"], flag_values=values)
    try:
        rest = values(["", *expand(argv)], known_only=False)
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(kinds), 1, 0.5)
        hint = f" Did you mean --{near[0]}?" if near else " See --help."
        raise UserError(f"--{error.flagname}: no such flag.{hint}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest[1:]:
        raise UserError(f"{rest[1]!r}: stray argument. Every value belongs to a flag: --NAME=VALUE.")
    config = cls(**{name: values[name].value for name in kinds})
    typed = {arg.lstrip("-").partition("=")[0] for arg in argv if arg.startswith("-")}
    return configs.overridden(config, typed).validate()


def expand(argv: list[str], seen: tuple[Path, ...] = ()) -> list[str]:
    """argv with every --flagfile replaced by its lines; later flags win.

    A relative path is looked for in the working folder, beside the flagfile that names it,
    and among the flagfiles that come with the package ("flags/quickstart.cfg").
    """
    expanded: list[str] = []
    pending = list(argv)
    while pending:
        arg = pending.pop(0)
        name, equals, value = arg.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            expanded.append(arg)
            continue
        if not equals:
            if not pending:
                raise UserError("--flagfile: names no file. Try --flagfile=flags/quickstart.cfg.")
            value = pending.pop(0)
        path = _find(value, seen)
        if path in seen:
            raise UserError(f"--flagfile={value}: includes itself.")
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--flagfile={value}: {path} is no text ({error}).") from error
        wanted = [line for line in lines if line and not line.startswith("#")]
        stray = next((line for line in wanted if not line.startswith("-")), None)
        if stray:
            raise UserError(f"{path}: {stray!r} is no flag. Write --NAME=VALUE, or # before a comment.")
        expanded += expand(wanted, (*seen, path))
    return expanded


def _find(value: str, seen: tuple[Path, ...]) -> Path:
    path = Path(value).expanduser()
    beside = [seen[-1].parent] if seen else []
    for root in (Path.cwd(), *beside, *FLAG_ROOTS):
        if (root / path).is_file():
            return (root / path).resolve()
    known = sorted({str(f.relative_to(r)) for r in FLAG_ROOTS for f in r.glob("flags/**/*.cfg")})
    near = difflib.get_close_matches(value, known, 1, 0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--flagfile={value}: no such file.{hint}")


def usage(cls: type, prog: str, about: str) -> str:
    """The text of --help."""
    width = min(100, int(os.environ.get("COLUMNS", "100")))
    kinds = configs.kinds(cls)
    group, sections = "", {}
    for field in dataclasses.fields(cls):
        meta = field.metadata
        group = meta["group"] or group
        shown = "|".join(meta["choices"]) or kinds[field.name].__name__
        head = f"  --{field.name}={shown}"
        tail = "" if field.default is None else f" (default: {field.default})"
        text = textwrap.wrap(meta["help"] + tail, width - 6)
        sections.setdefault(group, []).extend([head, *(f"      {line}" for line in text)])
    lines = [f"usage: {prog} [--flagfile=FILE] [--NAME=VALUE …]", "", about]
    for group in sorted(sections, key=lambda name: name in SHOWN_LAST):
        lines += ["", group, *sections[group]]
    return "\n".join(lines)
