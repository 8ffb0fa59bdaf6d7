"""The sample sources that every Python carries, as they are on this machine, and the fetched one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from corpus_rows import make_source

from normistral.corpus.sources import read_source, source_size, source_state
from normistral.errors import UserError


def test_the_documentation_is_prose_in_topics_none_of_which_contains_another(tmp_path: Path) -> None:
    source = make_source("sample:python-docs", language="eng")
    topics = {document.id: document.text for document in read_source(source, tmp_path)}
    assert list(topics) == sorted(topics)
    assert len(topics) > 40
    assert sum(map(len, topics.values())) > 250_000
    assert "compound" in topics, "the chapter on compound statements"
    assert "try" not in topics, "a section of that chapter"
    paragraphs = [part for text in topics.values() for part in set(text.split("\n\n")) if len(part) > 200]
    assert len(paragraphs) - len(set(paragraphs)) < 0.02 * len(paragraphs)


def test_the_standard_library_is_code_without_tests_and_other_peoples_packages(tmp_path: Path) -> None:
    source = make_source("sample:python-stdlib", language="code", kind="code")
    files = {document.id: document.text for document in read_source(source, tmp_path)}
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py"} <= set(files)
    assert not [name for name in files if {"test", "tests", "site-packages"} & set(name.split("/"))]
    assert not [name for name in files if name.startswith(("pydoc_data/", "_sysconfigdata"))]
    assert all(not Path(name).is_absolute() for name in files)
    assert isinstance(ast.parse(files["argparse.py"]), ast.Module)


@pytest.mark.parametrize("name", ["python-docs", "python-stdlib"])
def test_samples_come_in_the_same_order_and_number_as_announced(name: str, tmp_path: Path) -> None:
    source = make_source(f"sample:{name}")
    told: list[float] = []
    first = [document.id for document in read_source(source, tmp_path, told.append)]
    assert first == [document.id for document in read_source(source, tmp_path)]
    assert source_size(source, tmp_path) == (len(first), "documents")
    assert sum(told) == len(first)
    assert source_state(source)["sample"].startswith("Python 3.")


def test_an_unknown_sample_and_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'sample:bokmaalsordboka'"):
        list(read_source(make_source("sample:bokmalsordboka"), tmp_path))
    with pytest.raises(UserError, match="sample:smollm2-135m is a model"):
        list(read_source(make_source("sample:smollm2-135m"), tmp_path))


@pytest.mark.slow
def test_the_dictionary_is_fetched_and_every_article_reads_clean(tmp_path: Path) -> None:
    source = make_source("sample:bokmaalsordboka")
    articles = {document.id: document.text for document in read_source(source, tmp_path)}
    assert len(articles) == 90_841
    assert 1_500 < sum(not text for text in articles.values()) < 2_000
    assert "fjord (substantiv, hankjønn)\n" in articles["15101"]
    assert sum(len(text.encode()) for text in articles.values()) > 11_000_000
    assert not [text for text in articles.values() if "$" in text or "  " in text or text != text.strip()]
