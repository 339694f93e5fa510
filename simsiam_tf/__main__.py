"""python -m simsiam_tf: lists the commands, a line each."""

from __future__ import annotations

import ast
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
    """Prints the list; returns the exit status: 0, or 2 for any argument but --help and -h."""
    about_commands = commands()
    width = max(map(len, about_commands))
    print("Commands, each with --help:\n")
    for name, line in about_commands.items():
        print(f"  python -m simsiam_tf.{name:{width}}  {line}")
    return 0 if set(sys.argv[1:]) <= {"--help", "-h"} else 2


if __name__ == "__main__":
    sys.exit(main())
