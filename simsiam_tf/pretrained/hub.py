"""Backbones of the Hugging Face Hub: hf://USER/NAME[@REVISION] → a folder in the cache of huggingface_hub.

The environment variables of huggingface_hub apply: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simsiam_tf.runtime import progress, terminal
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

PREFIX = "hf://"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # a license's name on the Hub
LOGIN = "set HF_TOKEN, or run: hf auth login"
NETWORKS = ("backbone", "projector", "predictor", "momentum_*")  # files that `backbone_file` may read
PLACES = ("", "export/")  # where they lie: in a folder that `export` wrote for the Hub; in a work folder
PATTERNS = [f"{place}{name}.{kind}" for place in PLACES for name in NETWORKS for kind in ("keras", "json")]
_REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
_LISTED = 8  # most files that a message names


def is_address(weights: str | Path) -> bool:
    """Whether weights are named by an address on the Hub instead of a path."""
    return isinstance(weights, str) and weights.startswith(PREFIX)


def is_repository(name: str) -> bool:
    """Whether a name has the form USER/NAME."""
    return re.fullmatch(_REPOSITORY, name, re.ASCII) is not None


def parse_address(address: str) -> tuple[str, str | None]:
    """("USER/NAME", the revision or None). Raises UserError for any other form."""
    match = re.fullmatch(rf"{PREFIX}({_REPOSITORY})(?:@((?!.*\.\.)\w[\w./-]*))?", address, re.ASCII)
    if match is None:
        raise UserError(
            f"weights={one_line(address)[:200]}: must be hf://USER/NAME, or hf://USER/NAME@REVISION for a "
            "branch, tag or commit."
        )
    return match[1], match[2]


def results_folder(address: str) -> Path:
    """runs/USER-NAME, for results on a backbone of the Hub; the backbone lies in huggingface_hub's cache."""
    return Path("runs") / parse_address(address)[0].replace("/", "-")


def pinned_address(address: str) -> str:
    """The address with a commit as its revision: the one to which `download` resolved the address."""
    return f"{PREFIX}{parse_address(address)[0]}@{download(address).name}"


@functools.cache  # so that a process keeps one revision, until `open_pretrained` clears this cache
def download(address: str) -> Path:
    """The folder of a repository's files that this package reads, downloaded where the cache lacks them.

    Where the Hub cannot be reached, the copy in the cache is used. A line on stderr says so, except with
    HF_HUB_OFFLINE.

    Raises:
        UserError: the address is of another form; huggingface_hub is missing; the repository or revision does
            not exist, or may not be read; the Hub cannot be reached and the cache has no copy; a file is
            incomplete; or the repository has no backbone.
    """
    repository, revision = parse_address(address)
    huggingface_hub = import_library(f"weights={address}")
    try:
        with quiet_library(), progress.announced(f"downloading {address}"):
            files, unreachable = _list_files(huggingface_hub, repository, revision)
            try:
                folder = huggingface_hub.snapshot_download(
                    repository, revision=revision, allow_patterns=PATTERNS, tqdm_class=_late_bar(),
                    local_files_only=unreachable is not None,
                )  # fmt: skip
            except huggingface_hub.errors.LocalEntryNotFoundError:
                if unreachable is None:
                    raise
                raise unreachable from None
    except Exception as error:  # noqa: BLE001 - the library raises errors of three HTTP libraries
        raise UserError(f"weights={address}: {failure(error, revision)}") from error
    if unreachable and not huggingface_hub.constants.HF_HUB_OFFLINE:
        progress.say(f"{address}: the Hub cannot be reached, so the copy in the cache is used")
    if not any((Path(folder) / place / "backbone.keras").is_file() for place in PLACES):
        raise UserError(f"weights={address}: {_without_backbone(files, repository)}")
    return Path(folder)


def _list_files(
    huggingface_hub: Any, repository: str, revision: str | None
) -> tuple[list[str], Exception | None]:
    """(names of a repository's files, the error if the Hub cannot be reached); ([], None) for a commit."""
    if re.fullmatch(r"[0-9a-f]{40}", revision or ""):  # a commit, which never changes, needs no request
        return [], None
    try:
        info = huggingface_hub.HfApi().model_info(repository, revision=revision)
    except Exception as error:
        if (_http_status(error) or 500) < 500:
            raise
        return [], error
    return sorted(file.rfilename for file in info.siblings or ()), None


def _late_bar() -> type:
    """huggingface_hub's progress bar, shown only after `progress.DELAY` seconds, as all bars here."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "delay": progress.DELAY})

        def refresh(self, *args: Any, **options: Any) -> bool | None:
            late = not self.disable and time.time() - self.start_t > progress.DELAY
            return super().refresh(*args, **options) if late else None

    return Bar


def import_library(subject: str) -> Any:
    """The module huggingface_hub. Raises UserError, which begins with `subject`, where it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{subject}: needs huggingface_hub: pip install 'simsiam-tf[hub]'.") from error
    return huggingface_hub


def failure(error: BaseException, revision: str | None = None) -> str:
    """An error of huggingface_hub as one line: what is wrong, and what to do."""
    from huggingface_hub import constants, errors

    root, status = _causes(error)[-1], _http_status(error)
    answer = next((e for e in _causes(error) if isinstance(e, errors.HfHubHTTPError)), None)
    reason = one_line(str(root) or type(root).__name__)[:150].rstrip(".")
    if isinstance(answer, errors.GatedRepoError):
        return f"its owners let in whom they accept. Ask for access on its page, then {LOGIN}."
    if isinstance(answer, errors.RevisionNotFoundError):
        return f"the repository has no branch, tag or commit {revision}. Leave it out for the newest."
    if isinstance(answer, errors.RepositoryNotFoundError):
        return f"no such repository, or a private one. Check the name; for a private one {LOGIN}."
    if status == 401 or isinstance(error, errors.LocalTokenNotFoundError):
        return f"{constants.ENDPOINT} does not know you. To log in, {LOGIN}."
    if status == 403:
        return f"your token has no right to this. Take one that has: {LOGIN}."
    if status is not None:
        return f"{constants.ENDPOINT} answered with status {status}. Try again later."
    if "Consistency check failed" in reason:
        return f"a file arrived incomplete ({reason}). Try again."
    return f"{constants.ENDPOINT} cannot be reached, or broke off ({reason}). Try again with a network."


def _http_status(error: BaseException) -> int | None:
    """The status with which the Hub answered; None where there was no answer."""
    responses = (getattr(cause, "response", None) for cause in _causes(error))
    return next((response.status_code for response in responses if response is not None), None)


def _causes(error: BaseException) -> list[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes


def _without_backbone(files: list[str], repository: str) -> str:
    """The message for a repository without a backbone: what it has instead, and what to do."""
    listed = ", ".join(map(one_line, files[:_LISTED])) + (", …" if len(files) > _LISTED else "")
    weights = next((f for f in files if f.endswith((".safetensors", ".pth", ".bin"))), None)
    fix = "Name a repository that `export` wrote"
    if weights is not None:
        fix += f"; a ResNet of PyTorch can be converted: hf download {repository} {one_line(weights)}, then "
        fix += "python -m simsiam_tf.convert"
    return f"has no backbone.keras of simsiam_tf, but {listed or 'other files'}. {fix}."


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Keeps warnings of huggingface_hub from stderr within the block; off a terminal, its bars, too."""
    from huggingface_hub import utils

    logger = logging.getLogger("huggingface_hub")
    handlers, propagate = logger.handlers, logger.propagate
    hides_bars = not terminal.stderr().isatty() and not utils.are_progress_bars_disabled()
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    if hides_bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        if hides_bars:
            utils.enable_progress_bars()
