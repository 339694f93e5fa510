"""Text of others is shown, and never obeyed."""

import re
from pathlib import Path

import pytest

import simsiam_tf
from simsiam_tf.runtime.display_text import as_text, counted, printable_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café.jpg", "café.jpg"),
        ("caf\udce9", r"caf\xe9"),  # a byte of a name that is no UTF-8
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb", "a b"),
        ("\ud800x\udfff", r"\ud800x\udfff"),  # as JSON may hold them
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),  # joined emoji
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable_text(text) == shown
    as_text(text).encode()


def test_one_is_singular():
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert counted(1, "copy", "copies") == "1 copy" and counted(1234, "copy", "copies", ",") == "1,234 copies"


def test_no_message_has_a_fixed_plural_where_one_is_common():
    """Counts of what a user's folder has, such as 1 file or 1 channel, are written by `counted`."""
    bare = re.compile(r"\{[^{}]+\} (channels|queries(?! are)|pictures without|archives|epochs,|files passed)")
    for path in Path(simsiam_tf.__file__).parent.rglob("*.py"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if bare.search(line)]
        lines = [line for line in lines if "no {channels}" not in line]
        assert not lines, path.name
