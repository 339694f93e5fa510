"""A gallery of queries and their neighbours as one HTML file, which opens offline."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

import simsiam_tf
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.features.query_list import Queries
from simsiam_tf.html_report.picture_files import file_picture, picture_reader
from simsiam_tf.html_report.sections import data_uri
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

TEMPLATE = "neighbours_page.html.j2"
MAX_PICTURES = 4000  # on a page, repeated ones included; a page of more would be slow on a phone
SIDE = 160  # pixels of a thumbnail's longer side


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A picture of the page. picture: its number in the page's list; None where it cannot be read.

    link: number of the query on the page that is the same image; None for others.
    """

    name: str
    picture: int | None
    cosine: float | None = None
    link: int | None = None


def write_page(
    path: Path,
    embeddings: Embeddings,
    queries: Queries,
    cosines: np.ndarray,
    rows: np.ndarray,
    images: str | None = None,
) -> str:
    """Writes the page; returns a line that says what it holds. A picture that cannot be read is its name.

    Args:
        queries: M images. cosines, rows: [M, k], of their neighbours, the nearest first; a row of −1 is none.
        images: folder or specification of the embedded images; where the embeddings say they were when None.

    Raises:
        UserError: `images` cannot be opened, or the file cannot be written.
    """
    shown = min(len(rows), max(1, MAX_PICTURES // (1 + rows.shape[1])))
    read = picture_reader(images or embeddings.about.get("data"), embeddings.about, bool(images))
    pictures, numbers, unread = [], {}, []

    def number_of(key: str, name: str, is_file: bool) -> int | None:
        if key not in numbers:
            pixels = file_picture(key, embeddings.about) if is_file else read(name)
            if pixels is None:
                unread.append(name)
            numbers[key] = None if pixels is None else len(pictures)
            pictures.extend([] if pixels is None else [_thumbnail(pixels)])
        return numbers[key]

    link_of = {int(row): number for number, row in enumerate(queries.rows[:shown]) if row >= 0}
    groups = []
    for number in progress.bar(range(shown), "pictures", unit="query", leave=False):
        name, file = str(queries.names[number]), queries.files.get(number)
        group = [Thumbnail(name, number_of(file or f"\0{name}", name, file is not None))]
        for row, cosine in zip(rows[number], cosines[number], strict=True):
            if row >= 0:
                name = str(embeddings.names[row])
                link = link_of.get(int(row))
                picture = number_of(f"\0{name}", name, False)
                group.append(Thumbnail(name, picture, float(cosine), None if link == number else link))
        groups.append(group)
    try:
        atomic_write_text(path, _render(embeddings, groups, pictures, len(rows), len(unread)))
    except OSError as error:
        raise UserError(f"page={path}: cannot be written ({error.strerror}).") from error
    if unread:
        print(
            f"{len(unread)} of {len(numbers)} pictures cannot be read and are shown as names, such as "
            f"{printable_text(unread[0])}. Where they moved, pass --images=FOLDER.",
            file=sys.stderr,
        )
    first = f" (the first of {len(rows)})" if shown < len(rows) else ""
    size = path.stat().st_size / 1e6
    counts = f"{counted(shown, 'query', 'queries')}{first}, {counted(len(pictures), 'picture')}"
    return f"{path}: {counts}, {size:.1f} MB, opens in any browser"


def _thumbnail(pixels: np.ndarray) -> str:
    """A data URI of uint8 [H, W, 3]."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    small = max(pixels.shape[:2]) < SIDE // 2  # JPEG would blur it
    image.save(buffer, "PNG" if small else "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/png" if small else "image/jpeg")


def _render(
    embeddings: Embeddings, groups: list[list[Thumbnail]], pictures: list[str], queries: int, unread: int
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True,
        finalize=lambda value: printable_text(value) if type(value) is str else value,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        data=str(embeddings.about.get("data") or "embeddings"), count=len(embeddings.names),
        groups=groups, pictures=pictures, queries=queries, unread=unread, version=simsiam_tf.__version__,
    )  # fmt: skip
