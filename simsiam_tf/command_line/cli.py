"""Command lines: argv → configuration → one call; errors are reported in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from simsiam_tf import config as configs
from simsiam_tf.command_line.help_text import usage
from simsiam_tf.config.backbones import check_stored_networks
from simsiam_tf.config.places import check_folders
from simsiam_tf.runtime import cores, malloc, progress, signals, terminal
from simsiam_tf.runtime.atomic_files import UNWRITABLE
from simsiam_tf.runtime.errors import UserError, as_flags, file_failure, nearest

LOADING = "loading TensorFlow, which takes some seconds"
PACKAGE = Path(__file__).resolve().parents[1]
# Flagfiles lie beside the package in a checkout and within it in an installed wheel.
FLAG_ROOTS = (PACKAGE.parent, PACKAGE / "flagfiles")
_DEFINE = {
    str: flags.DEFINE_string, int: flags.DEFINE_integer,
    float: flags.DEFINE_float, bool: flags.DEFINE_boolean,
}  # fmt: skip


def run_command(cls: type, call: Callable[[Any], int | None], prog: str, description: str, argv=None) -> int:
    """Parses argv (sys.argv by default) into a `cls` and runs `call`; returns the exit status.

    0: done. 2: an error for the user to fix, named in one line on stderr. 75: interrupted by SIGTERM or
    SIGINT, or ended by the loss of another worker; checkpoints are kept. Any other status is that of `call`.
    Where stdout cannot be written, the status is 2 for commands that write no files, and unchanged for
    others.

    prog: name of the command, for messages. description: text of its help.
    """
    process_ends = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # warnings about metadata, on which no pixel depends
    with terminal.safe_streams(process_ends) as out:
        if any(arg in ("--help", "-h", "--helpfull", "--helpshort", "-help") for arg in argv):
            print(usage(cls, prog, description))
            status, in_files = 0, False
        else:
            status, in_files = _run(cls, call, prog, argv, process_ends)
        out.flush()
        problem = out.problem()
        if problem:
            print(f"{prog}: stdout cannot be written ({problem}).", file=sys.stderr)
    return status or (2 if problem and not in_files else 0)


def _run(
    cls: type, call: Callable[[Any], int | None], prog: str, argv: list[str], process_ends: bool
) -> tuple[int, bool]:
    """Returns (exit status, whether it stays the same if stdout cannot be written)."""

    leaving = threading.Lock()

    def leave(number: int, frame: Any) -> None:
        """Ends the process at once, without waiting for threads of libraries."""
        if not leaving.acquire(blocking=False):  # another thread is at it
            return
        line = f"{prog}: interrupted by {signal.Signals(number).name}. {signals.way_to_go_on(prog)}\n"
        with contextlib.suppress(OSError):
            os.write(_terminal, line.encode())
        os._exit(signals.INTERRUPTED)

    config = None
    try:
        # A signal after the command's end must not change its status.
        handled = signals.handle_signals(leave, signal.SIG_IGN if process_ends else None, at_once=True)
        with handled, signals.watch_signals() if process_ends else contextlib.nullcontext():
            config = parse(cls, argv)
            check_stored_networks(config)
            check_folders(config)
            if process_ends:
                cores.limit_libraries()  # none of them is loaded yet
                line = f"{prog}: {_out_of_memory(config)}\n".encode()
                malloc.end_when_exhausted(lambda: os.write(_terminal, line), UserError.status)
            writes_files = hasattr(config, "out") or hasattr(config, "workdir")
            status = call(config) or 0
            if status == signals.INTERRUPTED and not sys.stdout.isatty():  # the summary says it there
                print(f"{prog}: interrupted. {signals.way_to_go_on(prog)}", file=sys.stderr)
            return status, writes_files and not getattr(config, "dry_run", False)
    except UserError as error:
        status, line = error.status, as_flags(str(error), (*configs.field_types(cls), "flagfile"))
    except Exception as error:
        status, line = 2, _system_error(error, config)
        if line is None:
            raise
    print(f"{prog}: {' '.join(line.split())}", file=sys.stderr)
    return status, True


def _system_error(error: Exception, config: Any) -> str | None:
    """The message for an uncaught error of memory or files; None for any other, which is a bug."""
    exhausted = type(error).__name__ == "ResourceExhaustedError"  # of TensorFlow, which may not be loaded
    if isinstance(error, MemoryError) or (exhausted and "No space left" not in str(error)):
        return _out_of_memory(config)
    if isinstance(error, OSError) and error.strerror:
        file = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        unwritable = error.errno in UNWRITABLE
        fix = " Make room or choose another place, then rerun." if unwritable else ""
        return f"{file}{error.strerror}.{fix}"
    failure = file_failure(error) if hasattr(error, "node_def") else None  # an error of TensorFlow's graph
    return failure and f"{failure}. Rerun the same command."


def _out_of_memory(config: Any) -> str:
    batch = getattr(config, "batch_size", None)
    fix = f"a smaller --batch_size than {batch}" if batch else "it where more memory is free"
    return f"there is not enough memory. Try {fix}."


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Imports heavy libraries, with the garbage collector paused, and looks for devices.

    A line on stderr says so; what the libraries write there is kept back.

    Imports leave half a million objects, which the collector would visit again and again. They are frozen
    after the first imports: the collector skips frozen objects. Raises UserError if memory does not suffice.
    """
    first, collects = "keras" not in sys.modules, gc.isenabled()
    if first:
        progress.say(LOADING)
    gc.disable()
    try:
        with silence_stderr():
            yield
            import tensorflow as tf

            tf.config.list_physical_devices()  # now, since TensorFlow complains where there is no GPU
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
    """Keeps back the messages of libraries on stderr within the block; shows them if the block fails.

    TensorFlow's native code prints half a dozen lines that no setting turns off.
    """
    global _terminal
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    _terminal = os.dup(2)
    with open(os.memfd_create("stderr"), "w+b", buffering=0) as kept:
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


def parse(cls: type, argv: list[str]) -> Any:
    """Parses arguments, without the program's name, into a validated configuration, or raises UserError."""
    values = flags.FlagValues()
    types = configs.field_types(cls)
    for field in dataclasses.fields(cls):
        _DEFINE[types[field.name]](field.name, field.default, field.metadata["help"], flag_values=values)
    bare = {f"--{f.name}": f.metadata["bare"] for f in dataclasses.fields(cls) if f.metadata["bare"]}
    args = [f"{arg}={bare[arg]}" if arg in bare else arg for arg in expand_flagfiles(argv)]
    try:
        rest = values(["", *args], known_only=False)
    except flags.UnrecognizedFlagError as error:
        hint = nearest(f"--{error.flagname}", [f"--{name}" for name in types])
        raise UserError(f"--{error.flagname}: no such flag.{hint} See --help.") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest[1:]:
        raise UserError(f"{rest[1]!r}: stray argument. Every value belongs to a flag: --NAME=VALUE.")
    config = cls(**{name: values[name].value for name in types})
    typed = _names(argv, types)
    if getattr(config, "recipe", "none") != "none":
        given = sorted(_names(expand_flagfiles(argv), types) & set(types))
        config = dataclasses.replace(config, given=",".join([*filter(None, [config.given]), *given]))
    return configs.drop_inapplicable(config, typed).validate()


def _names(argv: list[str], types: Iterable[str]) -> set[str]:
    """The names of the flags in a list of arguments."""
    names = {arg.lstrip("-").partition("=")[0] for arg in argv if arg.startswith("-")}
    return {name if name in types else name.removeprefix("no") for name in names}  # --nooverwrite


def expand_flagfiles(argv: list[str], outer: tuple[Path, ...] = ()) -> list[str]:
    """Replaces every --flagfile=FILE by the flags in the file. Of a flag given twice, the last counts.

    A relative path is looked up in the working folder, beside the flagfile that names it, and among the
    flagfiles of the package ("flags/quickstart.cfg").

    outer: the flagfiles that hold these arguments, the innermost last.
    """
    expanded: list[str] = []
    pending = list(argv)
    while pending:
        arg = pending.pop(0)
        name, equals, value = arg.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            expanded.append(arg)
            continue
        if not equals and not pending:
            raise UserError("--flagfile: names no file. Try --flagfile=flags/quickstart.cfg.")
        path = _find_flagfile(value if equals else pending.pop(0), outer)
        try:
            text = path.read_text("utf-8", "surrogateescape")  # names of files need not be valid UTF-8
        except OSError as error:
            raise UserError(f"--flagfile={path}: cannot be read ({error.strerror}).") from error
        lines = [line.strip() for line in text.splitlines()]
        args = [line for line in lines if line and not line.startswith("#")]
        stray = next((line for line in args if not line.startswith("-")), None)
        if stray:
            raise UserError(
                f"{path}: {stray[:80]!r} is not a flag. Write --NAME=VALUE, or # before a comment."
            )
        expanded += _relocated(path, expand_flagfiles(args, (*outer, path)))
    return expanded


def _find_flagfile(value: str, outer: tuple[Path, ...]) -> Path:
    path = Path(value).expanduser()
    for folder in (Path.cwd(), *(file.parent for file in outer[-1:]), *FLAG_ROOTS):
        if (folder / path).is_file():
            if (folder / path).resolve() in outer:
                raise UserError(f"--flagfile={value}: includes itself.")
            return (folder / path).resolve()
    known = sorted(
        {str(file.relative_to(root)) for root in FLAG_ROOTS for file in root.glob("flags/**/*.cfg")}
    )
    raise UserError(f"--flagfile={value}: no such file.{nearest(value, sorted(known))}")


def _relocated(path: Path, argv: list[str]) -> list[str]:
    """Sets --workdir in the flagfile of a work folder to the place where the folder is now."""
    folder, flag = path.parent, "--workdir="
    if path.name != "config.flags" or not any((folder / n).exists() for n in ("config.json", "checkpoints")):
        return argv
    former = next((arg.removeprefix(flag) for arg in argv if arg.startswith(flag)), None)
    with contextlib.suppress(OSError):
        if former is None or os.path.samefile(Path(former).expanduser(), folder):
            return argv
    print(
        f"{path}: was written for {flag}{former}; the run goes on in {folder}, where it is", file=sys.stderr
    )
    return [f"{flag}{folder}" if arg.startswith(flag) else arg for arg in argv]
