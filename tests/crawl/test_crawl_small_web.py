"""What one crawl of the small web brings home, and what it leaves alone."""

from __future__ import annotations

import gzip
from itertools import pairwise

import pytest
from crawling import Crawled
from fastwarc.warc import ArchiveIterator, WarcRecordType
from northern import prose
from site_servers import page
from small_web import HIDDEN, WANTED

from normistral.corpus import read_documents
from normistral.corpus.crawl.report import FATES, report_tables
from normistral.recipe import SourceSettings


def test_all_that_is_wanted_comes_home_and_nothing_else(crawled: Crawled) -> None:
    for host, wanted in WANTED.items():
        kept = {path for path in crawled.kept_of(host) if not path.startswith("/deeper/")}
        assert kept == wanted, host


def test_no_private_address_is_contacted_by_name_number_redirect_or_literal(crawled: Crawled) -> None:
    assert crawled.web.canary_visits == []
    fates = crawled.fates()
    refused = {url for url, fate in fates.items() if fate == "private_address"}
    assert len(refused) == 6, refused
    assert fates["http://good.test/to-canary"] == "redirect"


def test_robots_txt_is_asked_for_first_and_once_and_obeyed(crawled: Crawled) -> None:
    first: dict[str, str] = {}
    for visit in crawled.web.visits:
        first.setdefault(visit.host, visit.path)
    assert set(first.values()) == {"/robots.txt"}
    counts = crawled.web.counts()
    assert counts["good.test", "/robots.txt"] == 1
    assert not [path for path in crawled.web.pages_of("good.test") if path.startswith("/private")]
    assert crawled.fates()["http://good.test/private/page"] == "robots_disallowed"


def test_a_host_whose_robots_txt_fails_is_not_visited(crawled: Crawled) -> None:
    assert crawled.web.pages_of("down.test") == []
    assert crawled.fates()["http://down.test/"] == "no_robots"


def test_a_crawl_delay_is_kept(crawled: Crawled) -> None:
    visits = [visit.at for visit in crawled.web.visits if visit.host == "polite.test"]
    assert len(visits) == 4
    assert min(later - earlier for earlier, later in list(pairwise(visits))[1:]) > 0.49


def test_the_user_agent_says_whom_to_write_to(crawled: Crawled) -> None:
    agents = {visit.agent for visit in crawled.web.visits}
    assert len(agents) == 1
    assert agents.pop().endswith("(+https://example.org/crawl)")


def test_no_page_is_fetched_twice_but_those_that_failed(crawled: Crawled) -> None:
    twice = {key for key, count in crawled.web.counts().items() if count > 1}
    assert twice == {("good.test", "/slow"), ("good.test", "/error"), ("down.test", "/robots.txt")}


def test_sessions_campaigns_and_fragments_are_no_pages_of_their_own(crawled: Crawled) -> None:
    assert not [path for path in crawled.web.pages_of("good.test") if "sid=" in path or "utm" in path]


def test_directives_of_a_page_are_obeyed(crawled: Crawled) -> None:
    fates = crawled.fates()
    assert fates["http://good.test/noindex"] == fates["http://good.test/noindex-header"] == "noindex"
    assert fates["http://good.test/noindex-other"] == "kept"
    assert fates["http://good.test/reserved"] == "reserved"
    assert HIDDEN not in crawled.web.pages_of("good.test")


@pytest.mark.parametrize(
    ("path", "fate"),
    [
        ("/bomb", "too_large"),
        ("/huge", "too_large"),
        ("/huge-chunks", "too_large"),
        ("/slow", "timeout"),
        ("/document", "no_html"),
        ("/broken-gzip", "unreadable"),
        ("/error", "http_500"),
        ("/short", "short"),
        ("/loop-1", "redirect"),
        ("/loop-2", "redirect"),
        ("/double", "duplicate"),
        ("/chain/5", "redirect"),
    ],
)
def test_each_kind_of_page_that_is_not_kept_says_why(path: str, fate: str, crawled: Crawled) -> None:
    assert crawled.fates()[f"http://good.test{path}"] == fate


def test_redirects_without_end_end(crawled: Crawled) -> None:
    assert "/chain/6" not in crawled.web.pages_of("good.test")


def test_a_picture_is_never_asked_for(crawled: Crawled) -> None:
    assert "/picture.png" not in crawled.web.pages_of("good.test")


def test_calendars_and_growing_paths_cost_no_more_than_their_share(crawled: Crawled) -> None:
    pages = crawled.web.pages_of("good.test")
    calendar = [path for path in pages if path.startswith("/calendar")]
    patience, kept, min_share = 6, 1, 0.05
    assert len(calendar) == patience + kept / min_share
    assert max(path.count("/a/") for path in pages if path.startswith("/deeper")) <= 2


def test_a_mirror_and_a_host_in_sibling_languages_are_given_up(crawled: Crawled) -> None:
    hosts = {host["name"].partition(":")[0]: host for host in crawled.report["hosts"]}
    for name in ("mirror.test", "sibling.test"):
        assert (hosts[name]["fetched"], hosts[name]["kept"], hosts[name]["closed"]) == (6, 0, "given_up")


def test_made_up_hosts_of_one_domain_are_bounded(crawled: Crawled) -> None:
    visited = {visit.host for visit in crawled.web.visits if visit.host.endswith(".many.test")}
    assert len(visited) == 5


def test_links_are_followed_one_page_outside_the_language_but_not_two(crawled: Crawled) -> None:
    visited = crawled.web.pages_of("norsk.test")
    assert "/one-away" in visited
    assert "/two-away" not in visited


def test_text_of_wrongly_declared_pages_is_whole(crawled: Crawled) -> None:
    texts = {document.url.rpartition("/")[2]: document.text for document in crawled.documents()}
    for path in ("wrong-charset", "no-charset", "utf8-as-latin1"):
        assert "á" in texts[path], path
        assert "Ã" not in texts[path], path
        assert "�" not in texts[path], path


def test_documents_carry_where_they_come_from(crawled: Crawled) -> None:
    documents = {document.url.rpartition("/")[2]: document for document in crawled.documents()}
    licensed = documents["licensed"]
    assert licensed.licence == "CC-BY-4.0"
    assert licensed.date == "2019-02-06"
    assert licensed.id == licensed.url == crawled.web.url("good.test", "/licensed")
    assert licensed.language_score == pytest.approx(0.9)
    assert licensed.steps == ("extract*", "page", "language")
    assert {document.source for document in documents.values()} == {"web"}
    assert documents["a3"].licence == "unknown"


def test_the_archive_holds_the_kept_pages_with_their_digests(crawled: Crawled) -> None:
    (path,) = (crawled.folder / "warc").iterdir()
    addresses = {}
    for record in ArchiveIterator(path.open("rb"), record_types=WarcRecordType.response):
        addresses[record.headers["WARC-Target-URI"]] = record.headers["WARC-IP-Address"]
        assert record.verify_payload_digest()
    for record in ArchiveIterator(path.open("rb"), parse_http=False):
        assert record.verify_block_digest()
    kept = {document.url for document in crawled.documents()}
    assert set(addresses) == kept - {crawled.web.url("good.test", "/noarchive")}
    assert set(addresses.values()) == {"127.0.1.1"}


def test_the_archive_is_whole_gzip(crawled: Crawled) -> None:
    (path,) = (crawled.folder / "warc").iterdir()
    with gzip.open(path) as file:
        assert file.read(8) == b"WARC/1.0"
        while file.read(1 << 20):
            pass


def test_the_documents_are_a_source_of_a_corpus(crawled: Crawled) -> None:
    from normistral.corpus.sources import list_files, read_file

    source = SourceSettings(
        name="crawl", path=str(crawled.folder / "documents" / "*.parquet"), language="sme", licence="unknown"
    )
    read = [
        document
        for file in list_files(source, "", crawled.folder)
        for document in read_file(source, file, crawled.folder)
    ]
    assert {document.id for document in read} == {document.id for document in crawled.documents()}
    assert not [document for document in read if document.dropped]


def test_the_report_adds_up(crawled: Crawled) -> None:
    report = crawled.report
    assert report["kept"] == len(crawled.documents()) == report["fates"]["kept"]
    assert report["fetched"] == sum(host["fetched"] for host in report["hosts"])
    assert report["words"] == sum(len(document.text.split()) for document in crawled.documents())
    assert report["ended"] == "nothing is left to fetch"
    known = {fate for fate in report["fates"] if not fate.startswith("http_")}
    assert known <= set(FATES) | {"no_text"}


def test_the_report_is_shown_as_tables(crawled: Crawled) -> None:
    from normistral.corpus.crawl.report import CrawlReport, HostCounts

    fields = {name: value for name, value in crawled.report.items() if name in CrawlReport.__slots__}
    report = CrawlReport(**fields | {"hosts": [HostCounts(**host) for host in fields["hosts"]]})
    for title, header, rows, _ in report_tables(report):
        assert rows, title
        assert {len(row) for row in rows} == {len(header)}, title


def test_a_finished_crawl_has_nothing_more_to_do(crawled: Crawled) -> None:
    before = len(crawled.web.visits)
    files = {path: path.read_bytes() for path in (crawled.folder / "documents").iterdir()}
    code, told = crawled.run("workers=0")
    assert code == 0, told
    assert len(crawled.web.visits) == before
    assert {path: path.read_bytes() for path in (crawled.folder / "documents").iterdir()} == files
    assert len(list(read_documents(next(iter(files))))) == crawled.report["kept"]


def test_hosts_that_did_not_answer_are_tried_again_when_asked_to(crawled: Crawled) -> None:
    asked = len(crawled.web.visits)
    crawled.web.hosts["down.test"] = lambda path: page("U", prose("sme", "up")) if path == "/" else None
    code, told = crawled.run("--retry", "workers=0")
    assert code == 0, told
    assert crawled.fates()["http://down.test/"] == "kept"
    assert crawled.web.url("down.test") in {document.url for document in crawled.documents()}
    again = {(visit.host, visit.path) for visit in crawled.web.visits[asked:]}
    expected = {
        ("down.test", "/robots.txt"),
        ("down.test", "/"),
        ("good.test", "/slow"),
        ("good.test", "/error"),
    }
    assert again == expected
