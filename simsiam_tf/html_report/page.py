"""The page: its sections gathered, put into the template, written whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

import simsiam_tf
from simsiam_tf.config import method_of
from simsiam_tf.data import open_source
from simsiam_tf.html_report import gallery, history, tensorboard_projector
from simsiam_tf.html_report.sections import Section
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text, check_writable
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

TEMPLATE = "page.html.j2"


def write(
    workdir: Path | str,
    out: Path | str | None = None,
    data: str | None = None,
    images: int = 2000,
    neighbours: int = 7,
    seed: int = 0,
    tensorboard: bool = True,
    say: Callable[[str], None] = lambda text: None,
    **options,
) -> Path:
    """Writes a pre-training's report: one HTML file that needs no other.

    Args:
        workdir: of the pre-training, which need not have ended.
        out: the file; WORKDIR/report.html when None.
        data: images to show and to embed; those it was trained on when None.
        images: how many are embedded.
        neighbours: shown of an image.
        seed: of whatever is drawn.
        tensorboard: also give TensorBoard's projector the embeddings, in WORKDIR/tb.
        say: called with a line for each long part.
        **options: of `data.open_source`, such as data_dir.

    Raises:
        UserError: no pre-training in the folder, no such data, or the file cannot be written.
    """
    workdir = Path(workdir).expanduser()
    out = Path(out).expanduser() if out else workdir / "report.html"
    told = history.read(workdir)
    check_writable(out)
    if told.card and tensorboard:
        advice = "Pass tensorboard=false, which leaves TensorBoard's copy out."
        check_writable(workdir / "tb" / "projector", "", advice, folders=True)
    sections = [history.outcome(told), history.curves(told)]
    if told.card:
        sections += _pictured(workdir, told, data, images, neighbours, seed, tensorboard, say, options)
    else:
        left = "No backbone was exported yet, so this page has no pictures of what it learned."
        sections[0].text.append(left)
    sections += [s for s in (history.results(told), history.configuration(told)) if s]
    text = render(told, sections)
    try:
        atomic_write_text(out, text)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror}).") from error
    return out


def _pictured(
    workdir: Path,
    told: history.History,
    data: str | None,
    images: int,
    neighbours: int,
    seed: int,
    tensorboard: bool,
    say: Callable[[str], None],
    options: dict,
) -> list[Section]:
    pretrained = open_pretrained(str(workdir))
    try:
        source = open_source(data or told.config["data"], "train", **options)
    except UserError as error:
        if data:
            raise
        return [Section("Images", [f"Left out, since the images are not at hand: {error}"])]
    say(f"features of {min(images, source.size)} images of {source.name}")
    known = gallery.sample(pretrained, source, images, seed)
    say("PCA, t-SNE, neighbours, saliency")
    sections = [gallery.views(pretrained, source, seed)]
    if len(known.ids) >= 4:
        sections += [gallery.planes(known, seed), gallery.neighbours(known, neighbours, seed)]
        sections.append(gallery.directions(known))
    sections.append(gallery.salient(pretrained, source, seed))
    if tensorboard:
        tensorboard_projector.write(known, workdir / "tb")
    return sections


def render(told: history.History, sections: list[Section]) -> str:
    """The page's HTML. Whatever names it holds are escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )
    found, config = told.diagnosis, told.config
    step = told.records[-1]["step"]
    state = "" if told.card else ", not ended"
    return environment.get_template(TEMPLATE).render(
        title=f"{method_of(config).title} on {config.get('data', '?')}",
        subtitle=f"{config.get('backbone', '?')}, {step} steps{state}, {told.workdir.name}",
        verdict=sections[0].text.pop(0),
        healthy=found.healthy,
        sections=sections,
        version=simsiam_tf.__version__,
    )


def _shown(value: Any) -> Any:
    """What the template puts into the page, before it is escaped."""
    return printable_text(value) if type(value) is str else value
