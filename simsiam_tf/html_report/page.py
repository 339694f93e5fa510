"""The HTML page of a run: its sections, rendered by the template and written as one file."""

from __future__ import annotations

from pathlib import Path

import simsiam_tf
from simsiam_tf.data import Source, open_source
from simsiam_tf.html_report import gallery
from simsiam_tf.html_report import history as histories
from simsiam_tf.html_report.history import History
from simsiam_tf.html_report.sections import Section
from simsiam_tf.html_report.templates import page_environment
from simsiam_tf.html_report.tensorboard_projector import write_projector
from simsiam_tf.html_report.transfer_sections import TransferHistory, transfer_sections
from simsiam_tf.pretrained.backbone_file import card_entries
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import atomic_write_text, check_writable
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

TEMPLATE = "page.html.j2"


def write_report(
    workdir: Path | str,
    out: Path | str | None = None,
    data: str | None = None,
    images: int = 2000,
    neighbours: int = 7,
    seed: int = 0,
    tensorboard: bool = True,
    **options,
) -> Path:
    """Writes the report of a pre-training or of transfer as one HTML file, and returns its path.

    Args:
        workdir: folder of the run, which may still go on. The arguments after `out` are for a pre-training.
        out: the file; WORKDIR/report.html when None.
        data: specification of the images to show and embed; the training images when None.
        images, neighbours: numbers of images to embed, and of neighbours to show for an image.
        seed: seed of all random choices.
        tensorboard: whether to write the embeddings for TensorBoard's projector, too, to WORKDIR/tb.
        **options: arguments of `data.open_source`, such as data_dir.

    Raises:
        UserError: the folder has no such run, `data` is given for transfer or cannot be opened, or a file
            cannot be written.
    """
    workdir = Path(workdir).expanduser()
    out = Path(out).expanduser() if out else workdir / "report.html"
    history = histories.read_history(workdir)
    check_writable(out)
    if isinstance(history, TransferHistory):
        if data:
            fix = "has no effect on transfer, whose pictures the run has made. Leave it out."
            raise UserError(f"data={data}: {fix}")
        sections = transfer_sections(history)
        return _write_page(out, history, [*sections, histories.configuration_section(history)])
    sections = [histories.outcome_section(history)]
    if history.records:
        sections.append(histories.curves_section(history))
    if not history.card:
        sections[0].text.append("No backbone was exported yet, so this page has no images.")
    else:
        logdir = workdir / "tb" if tensorboard else None
        if logdir:
            advice = "Pass tensorboard=false, which leaves TensorBoard's copy out."
            check_writable(logdir / "projector", "", advice, folders=True)
        pretrained = open_pretrained(str(workdir))
        try:
            spec = data or history.config["data"]
            source = open_source(spec, "train", **pretrained.options_for(spec, options))
        except UserError as error:
            if data:
                raise
            reason = f"Left out, because the images could not be opened: {error}"
            sections.append(Section("Images", [reason]))
        else:
            sections += _image_sections(pretrained, source, images, neighbours, seed, logdir)
    results = histories.results_section(history)
    sections += [*([results] if results else []), histories.configuration_section(history)]
    return _write_page(out, history, sections)


def _write_page(out: Path, history: History | TransferHistory, sections: list[Section]) -> Path:
    try:
        atomic_write_text(out, render_page(history, sections))
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror}).") from error
    return out


def _image_sections(
    pretrained: Pretrained, source: Source, images: int, neighbours: int, seed: int, logdir: Path | None
) -> list[Section]:
    progress.say(f"features of {counted(min(images, source.size), 'image')} of {source.name}")
    sample = gallery.draw_sample(pretrained, source, images, seed)
    progress.say("PCA, t-SNE, neighbours, saliency")
    trained = card_entries(pretrained.card, "configuration").get("epochs") != 0
    sections = [gallery.views_section(pretrained, source, seed)] if trained else []
    if len(sample.ids) >= 4:
        sections.append(gallery.projection_section(sample, seed))
        sections.append(gallery.neighbours_section(sample, neighbours, seed))
        sections.append(gallery.spectrum_section(sample))
    sections.append(gallery.saliency_section(pretrained, source, seed))
    if logdir:
        write_projector(sample, logdir)
    return sections


def render_page(history: History | TransferHistory, sections: list[Section]) -> str:
    """The page's HTML, in which all text is escaped.

    The verdict is the first text of sections[0], and is taken out of it.
    """
    template = page_environment(Path(__file__).parent).get_template(TEMPLATE)
    return template.render(
        title=history.title,
        subtitle=history.subtitle,
        verdict=sections[0].text.pop(0),
        healthy=history.healthy,
        sections=sections,
        version=simsiam_tf.__version__,
    )
