"""Stream a data set of the Hugging Face Hub: `hub:ORG/NAME?config=nob&split=train`.

The `datasets` library is an extra: nobody needs it for local files and samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from normistral.corpus.messages import first_line, source_error
from normistral.recipe import SourceSettings

HUB_PREFIX = "hub:"
DEFAULT_SPLIT = "train"
OPTIONS = ("config", "split", "revision")


def read_hub_rows(source: SourceSettings, cache: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Stream the rows of a hub data set; nothing of it is kept but the library's own metadata.

    Args:
        source: its path names the data set.
        cache: folder for what can be fetched again.

    Yields:
        Where the row stands (for messages), an id for want of a better one, and the row's fields.

    Raises:
        UserError: if the path is misspelt, the library is missing, or the data set can't be reached.
    """
    name, options = parse_hub_path(source)
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise source_error(
            source,
            f"{source.path} needs the datasets library; install it with `pip install 'normistral[hub]'`, "
            "or download the data set and give its files as a glob",
        ) from error
    try:
        rows = load_dataset(
            name,
            options.get("config"),
            split=options.get("split", DEFAULT_SPLIT),
            revision=options.get("revision"),
            streaming=True,
            cache_dir=str(cache / "datasets"),
        )
        for number, fields in enumerate(rows, start=1):
            yield f"{source.path} row {number}", str(number), fields
    except Exception as error:  # the library and the network raise a dozen kinds
        raise source_error(
            source,
            f"{source.path} cannot be read from the hub ({type(error).__name__}: {first_line(error)}); check "
            "the name and the network, or download the data set and give its files as a glob",
        ) from error


def parse_hub_path(source: SourceSettings) -> tuple[str, dict[str, str]]:
    """Split `hub:ORG/NAME?config=…&split=…` into the name and its options.

    Raises:
        UserError: if it has another form.
    """
    name, _, query = source.path.removeprefix(HUB_PREFIX).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if name.count("/") != 1 or not all(name.split("/")) or not set(options) <= set(OPTIONS):
        raise source_error(
            source,
            f"{source.path} should look like hub:ORG/NAME?config=…&split=…&revision=… (options as needed)",
        )
    return name, options
