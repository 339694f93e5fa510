"""Uploads a folder that `write_hub_folder` wrote to a repository of the Hugging Face Hub, in one commit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import simsiam_tf
from simsiam_tf.model_export.hub_folder import CONTENT, README
from simsiam_tf.pretrained import hub
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError


def check_login(repository: str) -> None:
    """Raises UserError where nobody is logged in, or the Hub cannot be reached. Call it before long work."""
    huggingface_hub = hub.import_library(f"push={repository}")
    try:
        with hub.quiet_library():
            huggingface_hub.HfApi().whoami()
    except Exception as error:  # noqa: BLE001 - the library raises errors of three HTTP libraries
        raise UserError(f"push={repository}: {hub.failure(error)}") from error


def push_folder(folder: Path, repository: str, private: bool = False) -> str:
    """Uploads the folder in one commit, to a repository that is created if it is missing; returns its URL.

    The same commit removes the repository's files of the names in `CONTENT` that the folder lacks. Files of
    other names stay.

    Args:
        folder: a folder that `write_hub_folder` wrote.
        repository: USER/NAME.
        private: create it as private.

    Raises:
        UserError: nobody is logged in, no right, no network, a header that the Hub refuses, or a public
            repository where a private one is asked for. The folder is complete, and the repository has the
            files that it had before.
    """
    huggingface_hub = hub.import_library(f"push={repository}")
    size = sum(file.stat().st_size for file in folder.iterdir())
    try:
        with hub.quiet_library(), progress.announced(f"uploading {size / 1e6:.1f} MB to {repository}"):
            return _upload(huggingface_hub.HfApi(), folder, repository, private)
    except Exception as error:  # noqa: BLE001 - the library raises errors of three HTTP libraries
        reason = str(error) if isinstance(error, _Refused) else hub.failure(error)
        raise UserError(
            f"push={repository}: not uploaded: {reason} {folder} is complete; to push it again: hf upload "
            f"{repository} {shlex.quote(str(folder))}"
        ) from error


class _Refused(ValueError):
    """Says why a folder must not be uploaded, and what to do."""


def _upload(api: Any, folder: Path, repository: str, private: bool) -> str:
    _check_header(api, folder / README)
    url = api.create_repo(repository, private=private, exist_ok=True)
    if private and not api.model_info(repository).private:
        raise _Refused(
            "the repository exists, and is public. Make it private in its settings first, or leave out "
            "`private`."
        )
    api.upload_folder(
        repo_id=repository, folder_path=folder, allow_patterns=list(CONTENT), delete_patterns=list(CONTENT),
        commit_message=f"Export of simsiam_tf {simsiam_tf.__version__}",
    )  # fmt: skip
    return str(url)


def _check_header(api: Any, page: Path) -> None:
    """Has the Hub check the header of a model card. Raises _Refused where it finds an error."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    # NOTE: not ModelCard.validate: before huggingface_hub 2 it asks huggingface.co in spite of HF_ENDPOINT.
    content = {"repoType": "model", "content": page.read_text(encoding="utf-8")}
    answer = get_session().post(f"{api.endpoint}/api/validate-yaml", json=content)
    if answer.status_code == 400:
        errors = answer.json().get("errors", [])
        problems = "; ".join(one_line(error.get("message", "")) for error in errors)[:200]
        raise _Refused(f"the Hub refuses its {page.name} ({problems}).")
    hf_raise_for_status(answer)
