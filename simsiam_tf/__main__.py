"""python -m simsiam_tf: lists the commands, a line each; with a command and its options, runs it."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent


def commands() -> dict[str, str]:
    """Returns command → what it does: its docstring's first line after the colon. Imports no command."""
    about = {}
    for path in sorted(PACKAGE.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        usage, _, line = docstring.partition("\n")[0].partition(": ")
        if not path.stem.startswith("_") and usage.startswith(f"python -m simsiam_tf.{path.stem}"):
            about[path.stem] = line
    return about


def main() -> int:
    """Runs the command that argv begins with, or prints the list; returns the exit status.

    It is 2 where argv begins with anything but a command, --help or -h.
    """
    about_commands = commands()
    command, *options = sys.argv[1:] or ["--help"]
    if command in about_commands:
        sys.argv[:] = [command, *options]
        return importlib.import_module(f"simsiam_tf.{command}").main()
    width = max(map(len, about_commands))
    if command not in ("--help", "-h"):
        print(f"simsiam_tf: {command!r}: no such command.\n", file=sys.stderr)
    print("Commands, each with --help:\n")
    for name, line in about_commands.items():
        print(f"  python -m simsiam_tf.{name:{width}}  {line}")
    return 0 if command in ("--help", "-h") else 2


if __name__ == "__main__":
    sys.exit(main())
