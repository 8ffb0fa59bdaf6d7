"""A crawl that is killed, stopped or runs into a full disk goes on, and fetches nothing twice that it has."""

from __future__ import annotations

import gzip
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawling import Crawled, crawl_settings
from fastwarc.warc import ArchiveIterator, WarcRecordType
from northern import prose
from site_servers import Answer, Reply, Web, page

PAGES = 30
HOSTS = ("one.test", "two.test", "three.test")


def chapters(name: str) -> Answer:
    """Some pages, all linked from the first; each takes a moment."""

    def answer(path: str) -> Reply | None:
        time.sleep(0.01)
        number = int(path[2:]) if path.startswith("/c") else 0
        if path != "/" and not 0 < number < PAGES:
            return None
        links = tuple(f"/c{other}" for other in range(1, PAGES)) if path == "/" else ()
        return page(path, prose("sme", f"{name} {path}"), links)

    return answer


HANGS_SECONDS = 60


def hangs(path: str) -> Reply | None:
    """A host that lets one wait."""
    if path != "/robots.txt":
        time.sleep(HANGS_SECONDS)
    return None


@pytest.fixture
def crawl(tmp_path: Path) -> Iterator[Crawled]:
    with Web({name: chapters(name) for name in HOSTS}) as web:
        settings = crawl_settings(web, *(web.url(name) for name in HOSTS), workers=0)
        yield Crawled(tmp_path / "web", web, settings)


def wait_for_visits(crawl: Crawled, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while len(crawl.web.visits) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def assert_whole(crawl: Crawled) -> None:
    """All pages are there once: in the documents, in the archive, in the database."""
    wanted = {
        crawl.web.url(name, path) for name in HOSTS for path in ["/", *(f"/c{n}" for n in range(1, PAGES))]
    }
    ids = [document.id for document in crawl.documents()]
    assert sorted(ids) == sorted(wanted)
    archived = []
    for path in sorted((crawl.folder / "warc").iterdir()):
        with gzip.open(path) as whole:
            while whole.read(1 << 20):
                pass
        for record in ArchiveIterator(path.open("rb"), record_types=WarcRecordType.response):
            assert record.verify_payload_digest()
            archived.append(record.headers["WARC-Target-URI"])
    assert sorted(archived) == sorted(wanted)
    assert crawl.report["kept"] == len(wanted)


def test_a_killed_crawl_goes_on_without_fetching_finished_pages_twice(crawl: Crawled) -> None:
    at_once = len(HOSTS)
    for kills, visits in enumerate((20, 60), start=1):
        process = crawl.start("archive.file_bytes=20000")
        wait_for_visits(crawl, visits, process)
        process.kill()
        process.communicate()
        twice = sum(count - 1 for (_, path), count in crawl.web.counts().items() if path != "/robots.txt")
        assert twice <= at_once * kills, "no more than was under way"
    code, told = crawl.run("archive.file_bytes=20000")
    assert code == 0, told
    assert_whole(crawl)
    assert len(list((crawl.folder / "warc").iterdir())) > 1
    robots = [visit for visit in crawl.web.visits if visit.path == "/robots.txt"]
    assert len(robots) == len(HOSTS), "robots.txt is remembered"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_a_crawl_at_once_in_order(crawl: Crawled, number: signal.Signals) -> None:
    crawl.web.hosts["one.test"] = hangs
    process = crawl.start("politeness.timeout=100")
    wait_for_visits(crawl, 20, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=HANGS_SECONDS - 5)
    assert process.returncode == 130, told
    kept = crawl.report["kept"]
    assert (
        told.strip().splitlines()[-1] == f"stopped: crawl web stopped after {kept} pages, {kept} of them kept"
    )
    assert len(crawl.documents()) == kept > 5
    crawl.web.hosts["one.test"] = chapters("one.test")
    code, told = crawl.run()
    assert code == 0, told
    assert_whole(crawl)


@pytest.mark.slow
def test_budgets_of_pages_are_exact_and_can_be_raised(crawl: Crawled) -> None:
    code, told = crawl.run("budget.pages=20")
    assert code == 0, told
    assert crawl.report["fetched"] == 20
    assert crawl.report["ended"] == "budget.pages (20) is spent"
    assert crawl.run()[0] == 0
    assert_whole(crawl)


@pytest.mark.slow
def test_a_lost_tail_of_the_archive_is_forgotten(crawl: Crawled) -> None:
    assert crawl.run("budget.pages=20")[0] == 0
    (path,) = (crawl.folder / "warc").iterdir()
    with path.open("r+b") as file:  # as after a power cut, when the database was faster on disk
        file.truncate(path.stat().st_size - 700)
    code, told = crawl.run("budget.pages=25")
    assert code == 0, told
    with gzip.open(path) as whole:
        while whole.read(1 << 20):
            pass
    records = list(ArchiveIterator(path.open("rb"), record_types=WarcRecordType.response))
    assert 23 <= len(records) < 25


@pytest.mark.slow
def test_two_crawls_in_one_folder_and_another_language_are_refused(crawl: Crawled) -> None:
    process = crawl.start("politeness.delay=30")
    wait_for_visits(crawl, 1, process)
    code, told = crawl.run()
    process.kill()
    process.communicate()
    assert code == 2
    assert "another process is crawling in" in told
    code, told = crawl.run("language=smj")
    assert code == 2
    assert "holds a crawl with language sme, not smj; give another --out" in told
