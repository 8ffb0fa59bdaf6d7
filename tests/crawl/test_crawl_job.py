"""What the failures of many hosts come to, told to a job without any network."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from northern import quick_steps
from scrapy.exceptions import CannotResolveHostError, DownloadTimeoutError

from normistral.corpus.crawl.job import FAILURES_WITHOUT_NETWORK, Job
from normistral.corpus.crawl.records import Link, Outcome
from normistral.corpus.crawl.workers import Readers
from normistral.errors import UserError
from normistral.recipe.crawl import CrawlSettings

LATER = 1e12


class Told:
    """A bar, and a list of what went wrong."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def advance(self, count: float = 1, note: str = "") -> None:
        return


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def job(tmp_path: Path, told: Told) -> Iterator[Job]:
    settings = CrawlSettings.model_validate(
        {
            **{"name": "t", "language": "sme", "contact": "a@b.no", "seeds": {"urls": ["http://x.no"]}},
            "workers": 0,
            "politeness": {"max_failures": 1},
        }
    )
    database = sqlite3.connect(tmp_path / "crawl.sqlite")
    one = Job(settings, tmp_path, database, Readers(settings, quick_steps), told, told.errors.append)
    one.frontier.add([Link(f"http://h{number}.no/") for number in range(3 * FAILURES_WITHOUT_NETWORK)])
    yield one
    one.close()


def fail(job: Job, error: BaseException, times: int) -> None:
    for _ in range(times):
        fetch = job.frontier.take(LATER)
        assert fetch is not None
        job.on_failure(SimpleNamespace(request=SimpleNamespace(meta={"fetch": fetch}), value=error))


@pytest.mark.parametrize("error", [CannotResolveHostError("no such name"), DownloadTimeoutError("30 s")])
def test_where_no_host_ever_answers_it_is_this_machine(error: Exception, job: Job, told: Told) -> None:
    fail(job, error, FAILURES_WITHOUT_NETWORK - 1)
    assert told.errors == []
    fail(job, error, 1)
    assert [type(each) for each in told.errors] == [UserError]
    assert "off the network?" in str(told.errors[0])


def test_dead_hosts_beside_living_ones_are_no_reason_to_stop(job: Job, told: Told) -> None:
    living: Any = job.frontier.take(LATER)
    job.frontier.finish(living, Outcome("kept", status=200, bytes=1000))
    fail(job, CannotResolveHostError("gone"), 2 * FAILURES_WITHOUT_NETWORK)
    assert told.errors == []
