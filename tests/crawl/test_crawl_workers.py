"""A page that hangs its reader, or ends it, costs no more than itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from normistral.corpus.crawl.page import RawPage
from normistral.corpus.crawl.workers import Readers
from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.errors import UserError
from normistral.recipe.crawl import CrawlSettings


class Trouble(Step):
    """Does what the page says."""

    name = "trouble"

    def judge(self, document: Document) -> Document | Dropped:
        if "hang" in document.text:
            time.sleep(60)
        if "crash" in document.text:
            os._exit(1)
        return document


def troubled_steps(settings: CrawlSettings) -> Sequence[Step]:
    return [Trouble()]


def refused_steps(settings: CrawlSettings) -> Sequence[Step]:
    raise UserError("no model")


def crawl_of(**changed: Any) -> CrawlSettings:
    given = {"name": "t", "language": "sme", "contact": "a@b.no", "seeds": {"urls": ["https://x.no"]}}
    return CrawlSettings.model_validate(given | changed)


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    some = Readers(crawl_of(page={"max_seconds": 1.0}), troubled_steps)
    yield some
    some.close()


@pytest.mark.parametrize(
    ("body", "rule"), [(b"fine", None), (b"hang", "too_slow"), (b"crash", "crashed"), (b"fine again", None)]
)
def test_trouble_is_told_and_the_next_page_is_read(body: bytes, rule: str | None, readers: Readers) -> None:
    dropped = readers.read(RawPage("http://x.no/", body)).document.dropped
    assert (dropped.rule if dropped else None) == rule


def test_what_keeps_a_reader_from_starting_is_raised_at_once() -> None:
    with pytest.raises(UserError, match="no model"):
        Readers(crawl_of(), refused_steps)
