"""One crawl of the small web, looked at by many tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crawling import Crawled, crawl_settings
from small_web import small_web


@pytest.fixture(scope="session")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crawled]:
    with small_web() as web:
        settings = crawl_settings(web, web.url("good.test"))
        crawl = Crawled(tmp_path_factory.mktemp("crawl") / "web", web, settings)
        code, told = crawl.run()
        assert code == 0, told
        yield crawl
