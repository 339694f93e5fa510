"""Jinja2's environment of the package's pages: all text is escaped, and printable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


def page_environment(folder: Path) -> Any:
    """A jinja2.Environment with the templates of a folder, and `base.css`, the style that pages share.

    Raises:
        UserError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UserError("a page needs jinja2: pip install 'simsiam-tf[viz]'.") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable_text(value) if type(value) is str else value,
    )
