"""Text of others is shown, and never obeyed."""

import pytest

from simsiam_tf.runtime.display_text import as_text, printable_text


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
