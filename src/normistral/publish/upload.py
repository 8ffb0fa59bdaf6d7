"""Put a published folder on the Hugging Face Hub, when somebody asks for it.

An upload that was interrupted goes on when it is asked for again: what is there already is not sent again.
Files of an earlier version that the folder no longer has are taken out.
"""

from __future__ import annotations

import re
from pathlib import Path

from normistral.corpus.messages import first_line
from normistral.errors import UserError
from normistral.publish.corpus_data import DATA

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def upload_data_set(folder: Path, repository: str, private: bool = True) -> str:
    """Upload a data set folder.

    Args:
        folder: as `publish_corpus` writes it.
        repository: `ORG/NAME`; made if it is not there.
        private: whether a new repository can be seen by its owners alone.

    Returns:
        The data set's address.

    Raises:
        UserError: if `repository` is no hub id, the extra `hub` is missing, nobody is logged in, or the hub
            cannot be reached or refuses; the folder stays whole.
    """
    check_hub_id(repository)
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError("uploading needs huggingface_hub: pip install 'normistral[hub]'") from error
    try:
        hub = HfApi()
        url = hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            delete_patterns=f"{DATA}/*",
            commit_message=f"Upload {folder.name} with normistral",
        )
    except Exception as error:
        # The hub's own errors are OSErrors; those of the library below it, which changes its name, are not.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise UserError(
            f"{folder} is written, but could not be uploaded to {repository} ({first_line(error)}); log in "
            "with `hf auth login`, see that the network is there, and run the same command again"
        ) from error
    return str(url)


def check_hub_id(repository: str) -> None:
    """Refuse what names no repository of the hub.

    Raises:
        UserError: if it is not `ORG/NAME`.
    """
    if not HUB_ID.fullmatch(repository):
        raise UserError(f"'{repository}' is no repository of the hub; write ORG/NAME")
