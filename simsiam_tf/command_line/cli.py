"""Command lines: argv → configuration → one call; errors are reported in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from simsiam_tf import config as configs
from simsiam_tf.command_line.help_text import usage
from simsiam_tf.runtime import malloc, signals, terminal
from simsiam_tf.runtime.errors import UserError, as_flags

PACKAGE = Path(__file__).resolve().parents[1]
# Flagfiles lie beside the package in a checkout and within it in an installed wheel.
FLAG_ROOTS = (PACKAGE.parent, PACKAGE / "flagfiles")
_DEFINE = {
    str: flags.DEFINE_string, int: flags.DEFINE_integer,
    float: flags.DEFINE_float, bool: flags.DEFINE_boolean,
}  # fmt: skip


def run_command(cls: type, call: Callable[[Any], int | None], prog: str, about: str, argv=None) -> int:
    """Parses argv (sys.argv by default) into a `cls` and runs `call`; returns the exit status.

    0: done. 2: an error for the user to fix, named in one line on stderr. 75: ended by SIGTERM or SIGINT;
    checkpoints are kept. Any other status is that of `call`. If stdout cannot be written, the status changes
    only for commands that write no files.
    """
    last = argv is None  # the process ends after the command
    argv = list(sys.argv[1:] if argv is None else argv)
    with terminal.safe_streams(afterwards=last) as out:
        status, in_files = _run(cls, call, prog, about, argv, last)
        out.flush()
        trouble = terminal.stream_problem(out)
        if trouble:
            print(f"{prog}: stdout cannot be written ({trouble}).", file=sys.stderr)
    return status or (2 if trouble and not in_files else 0)


def _run(
    cls: type, call: Callable[[Any], int | None], prog: str, about: str, argv: list[str], last: bool
) -> tuple[int, bool]:
    """Returns (the exit status, whether files hold the result)."""
    if any(a in ("--help", "-h", "--helpfull", "--helpshort", "-help") for a in argv):
        print(usage(cls, prog, about))
        return 0, False

    def leave(number: int, frame: Any) -> None:
        """Ends the process at once, without waiting for threads of libraries."""
        line = f"{prog}: ended by {signal.Signals(number).name}. Rerun the same command to go on.\n"
        with contextlib.suppress(OSError):
            os.write(_terminal, line.encode())
        os._exit(signals.INTERRUPTED)

    config = None
    try:
        # A signal after the command's end must not change its status.
        with signals.handle_signals(leave, signal.SIG_IGN if last else None):
            config = parse(cls, argv)
            if last:
                line = f"{prog}: {_out_of_memory(config)}\n".encode()
                malloc.end_when_exhausted(lambda: os.write(_terminal, line), UserError.status)
            return call(config) or 0, _in_files(config)
    except UserError as error:
        status, line = error.status, as_flags(str(error), (*configs.field_types(cls), "flagfile"))
    except Exception as error:
        status, line = 2, _system_error(error, config)
        if line is None:
            raise
    print(f"{prog}: {' '.join(line.split())}", file=sys.stderr)
    return status, True


def _in_files(config: Any) -> bool:
    """Returns whether a command writes its result to files, so that what it prints may be lost."""
    names = {field.name for field in dataclasses.fields(config)}
    return bool(names & {"out", "workdir"}) and not getattr(config, "dry_run", False)


def _system_error(error: Exception, config: Any) -> str | None:
    """Writes the message for an uncaught error of memory or files; None for any other, which is a bug."""
    exhausted = type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's, which may not be loaded
    full = "No space left" in str(error)
    if isinstance(error, MemoryError) or (exhausted and not full):
        return _out_of_memory(config)
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        place = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
        return f"{where}{error.strerror}.{' Make room or choose another place, then rerun.' * place}"
    return None


def _out_of_memory(config: Any) -> str:
    """Writes the message for exhausted memory."""
    batch = getattr(config, "batch_size", None)
    smaller = f"a smaller --batch_size than {batch}" if batch else "it where more memory is free"
    return f"there is not enough memory. Try {smaller}."


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Imports heavy libraries silently, with the garbage collector paused.

    Imports leave half a million objects, which the collector would visit again and again; it skips frozen
    ones.

    Raises:
        UserError: memory does not suffice.
    """
    first, collects = "keras" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        with silence_stderr():
            yield
        if first:
            gc.freeze()
    except (ImportError, MemoryError) as error:
        scarce = ("cannot allocate memory", "failed to map segment")
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in scarce):
            raise UserError(
                "there is not enough memory to load TensorFlow. Free some, or raise the limit (ulimit -v)."
            ) from error
        raise
    finally:
        if collects:
            gc.enable()


_terminal = 2  # the descriptor of the user's stderr, also during `silence_stderr`


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Keeps back the messages of libraries on stderr within the block; shows them if it fails.

    TensorFlow's native code prints half a dozen lines that no setting turns off.
    """
    global _terminal
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    _terminal = os.dup(2)
    with _memory_file() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            with contextlib.suppress(OSError):
                os.write(_terminal, kept.read())
            raise
        finally:
            os.dup2(_terminal, 2)
            os.close(_terminal)
            _terminal = 2


def _memory_file() -> Any:
    """Opens a file in memory; on systems other than Linux, a temporary file."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("stderr"), "w+b", buffering=0)
    return tempfile.TemporaryFile()


def parse(cls: type, argv: list[str]) -> Any:
    """Parses arguments, without the program's name, into a validated configuration.

    Raises:
        UserError: unknown flag or value, positional argument, missing flagfile, or a value that
            `validate` refuses.
    """
    values = flags.FlagValues()
    kinds = configs.field_types(cls)
    for field in dataclasses.fields(cls):
        _DEFINE[kinds[field.name]](field.name, field.default, field.metadata["help"], flag_values=values)
    try:
        rest = values(["", *expand_flagfiles(argv)], known_only=False)
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
    return configs.drop_inapplicable(config, typed).validate()


def expand_flagfiles(argv: list[str], seen: tuple[Path, ...] = ()) -> list[str]:
    """Replaces every --flagfile by its lines; later flags win.

    A relative path is looked up in the working folder, beside the flagfile that names it,
    and among the flagfiles of the package ("flags/quickstart.cfg").
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
            text = path.read_text("utf-8", "surrogateescape")  # names of files need not be valid UTF-8
        except OSError as error:
            raise UserError(f"--flagfile={value}: {path} cannot be read ({error.strerror}).") from error
        lines = [line.strip() for line in text.splitlines()]
        args = [line for line in lines if line and not line.startswith("#")]
        stray = next((line for line in args if not line.startswith("-")), None)
        if stray and not stray.isprintable():
            raise UserError(f"--flagfile={value}: {path} is no text.")
        if stray:
            raise UserError(f"{path}: {stray!r} is no flag. Write --NAME=VALUE, or # before a comment.")
        expanded += _relocated(path, expand_flagfiles(args, (*seen, path)))
    return expanded


def _relocated(path: Path, argv: list[str]) -> list[str]:
    """Sets --workdir in the flagfile of a work folder to the place where the folder is now."""
    here, flag = path.parent, "--workdir="
    if path.name != "config.flags" or not any((here / n).exists() for n in ("config.json", "checkpoints")):
        return argv
    former = next((arg.removeprefix(flag) for arg in argv if arg.startswith(flag)), None)
    with contextlib.suppress(OSError):
        if former is None or os.path.samefile(Path(former).expanduser(), here):
            return argv
    print(f"{path}: was written for {flag}{former}; the run goes on in {here}, where it is", file=sys.stderr)
    return [f"{flag}{here}" if arg.startswith(flag) else arg for arg in argv]


def _find(value: str, seen: tuple[Path, ...]) -> Path:
    path = Path(value).expanduser()
    beside = [seen[-1].parent] if seen else []
    for root in (Path.cwd(), *beside, *FLAG_ROOTS):
        if (root / path).is_file():
            return (root / path).resolve()
    flagfiles = sorted({str(f.relative_to(r)) for r in FLAG_ROOTS for f in r.glob("flags/**/*.cfg")})
    near = difflib.get_close_matches(value, flagfiles, 1, 0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--flagfile={value}: no such file.{hint}")
