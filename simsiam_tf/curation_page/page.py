"""The page of a curated set: one HTML file that opens offline, above some thousand pictures with a folder."""

from __future__ import annotations

from pathlib import Path

import simsiam_tf
from simsiam_tf.curation_page.content import CurationContent
from simsiam_tf.curation_page.state import (
    MAX_PICTURES,
    MAX_POINTS,
    choose_rows,
    packed_text,
    page_state,
    script_json,
)
from simsiam_tf.curation_page.thumbnails import (
    folder_name,
    inline_thumbnails,
    remove_other_thumbnails,
    write_thumbnails,
)
from simsiam_tf.html_report.templates import page_environment
from simsiam_tf.runtime.atomic_files import atomic_file, check_no_links, check_writable
from simsiam_tf.runtime.errors import UserError

HERE = Path(__file__).parent
TEMPLATE = "page.html.j2"
SCRIPTS = (
    "unpack.js",
    "state.js",
    "lists.js",
    "tiles.js",
    "map.js",
    "colours.js",
    "panel.js",
    "galleries.js",
    "start.js",
)
INLINE = 5_000  # pictures whose thumbnails are in the page itself


def write_page(
    content: CurationContent,
    out: Path | str,
    max_points: int = MAX_POINTS,
    max_pictures: int = MAX_PICTURES,
    inline: int = INLINE,
    seed: int = 0,
) -> Path:
    """Writes the page, and returns its path.

    Args:
        content: what it shows.
        out: the HTML file; an earlier one is replaced once the new one is complete.
        max_points: pictures on the map; of more, a random sample by `seed`, and the page says so.
        max_pictures: as in `choose_rows`.
        inline: pictures up to which thumbnails are in the page; of more, they are files in the folder
            PAGE_thumbnails beside it.

    Raises:
        UserError: Jinja2 or plotly are missing, or a file cannot be written.
    """
    out = Path(out).expanduser()
    environment, plotly = page_environment(HERE), plotly_script()
    from markupsafe import Markup  # of Jinja2

    check_writable(out)
    check_no_links(out.parent, (), (folder_name(out),))
    shown = choose_rows(content, max_points, max_pictures, seed)
    state = page_state(content, shown)
    pictures = content.thumbnail, shown.rows
    try:
        if len(shown.rows) <= inline:
            state["thumbnails"] = inline_thumbnails(*pictures)
        else:
            state["thumbnails"] = write_thumbnails(*pictures, out)
        text = environment.get_template(TEMPLATE).render(
            content=content,
            mapped=int(shown.mapped.sum()),
            state=Markup(packed_text(script_json(state))),
            plotly=Markup(packed_text(plotly)),
            script=Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)),
            version=simsiam_tf.__version__,
        )
        with atomic_file(out) as file:
            file.write(text.encode("utf-8"))
        remove_other_thumbnails(out, state["thumbnails"]["folder"])
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror}).") from error
    return out


def plotly_script() -> str:
    """The text of plotly.js. Raises UserError where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("a page with a map needs plotly: pip install 'simsiam-tf[viz]'.") from error
    return get_plotlyjs()
