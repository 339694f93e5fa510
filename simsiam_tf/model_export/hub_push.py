"""Uploads a folder that `write_hub_folder` wrote to a repository of the Hugging Face Hub, in one commit."""

from __future__ import annotations

import contextlib
import json
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

    Files of an earlier upload that the folder lacks are removed by the same commit; those that others
    put there stay.

    Args:
        repository: USER/NAME.
        private: create it as private.

    Raises:
        UserError: nobody is logged in, no right, no network, a header that the Hub refuses, or a public
            repository where a private one is asked for. The folder is complete, and the repository as before.
    """
    huggingface_hub = hub.import_library(f"push={repository}")
    api = huggingface_hub.HfApi()
    size = sum(file.stat().st_size for file in folder.iterdir())
    try:
        with hub.quiet_library(), progress.announced(f"uploading {size / 1e6:.1f} MB to {repository}"):
            url = _upload(huggingface_hub, api, folder, repository, private)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises errors of three HTTP libraries
        is_card = isinstance(error, ValueError) and not hasattr(error, "response")
        reason = f"the Hub refuses its {README} ({_card_problems(str(error))})." if is_card else None
        raise UserError(
            f"push={repository}: not uploaded: {reason or hub.failure(error)} {folder} is complete; to push "
            f"it again: hf upload {repository} {shlex.quote(str(folder))}"
        ) from error
    return url


def _card_problems(answer: str) -> str:
    """What the Hub says of a header, from JSON where it answers so."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = "; ".join(error["message"] for error in json.loads(answer)["errors"])
    return one_line(answer)[:200]


def _upload(huggingface_hub: Any, api: Any, folder: Path, repository: str, private: bool) -> str:
    huggingface_hub.ModelCard.load(folder / README).validate()
    url = api.create_repo(repository, private=private, exist_ok=True)
    if private and not api.model_info(repository).private:
        raise UserError(
            f"push={repository}: the repository exists, and is public. Make it private in its settings "
            "first, or leave out `private`."
        )
    api.upload_folder(
        repo_id=repository, folder_path=folder, allow_patterns=list(CONTENT), delete_patterns=list(CONTENT),
        commit_message=f"Export of simsiam_tf {simsiam_tf.__version__}",
    )  # fmt: skip
    return str(url)
