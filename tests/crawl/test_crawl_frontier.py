"""What is fetched next, how far a host may go, and what a reopened frontier remembers."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.corpus.crawl.frontier import Frontier
from normistral.corpus.crawl.records import Fetch, Link, Outcome, saving
from normistral.errors import UserError
from normistral.recipe.crawl import CrawlSettings

LATER = 1e12


def crawl_of(**changed: Any) -> CrawlSettings:
    given = {"name": "t", "language": "sme", "contact": "a@b.no", "seeds": {"urls": ["https://x.no"]}}
    return CrawlSettings.model_validate(given | changed)


def frontier_of(database: sqlite3.Connection | None = None, **changed: Any) -> Frontier:
    return Frontier(database or sqlite3.connect(":memory:"), crawl_of(**changed))


def drain(frontier: Frontier, fate: str = "kept", at_most: int = 10_000) -> list[str]:
    """Fetch, one by one, all that is there; every page has the same fate."""
    urls = []
    while len(urls) < at_most and (fetch := frontier.take(LATER)):
        urls.append(fetch.link.url)
        frontier.finish(fetch, Outcome(fate, status=200))
    return urls


def test_fewest_misses_come_first_then_the_nearest_then_the_surest() -> None:
    frontier = frontier_of()
    links = [
        Link("http://a.no/", 1, 1, 0.0),
        Link("http://b.no/", 0, 3, 0.9),
        Link("http://c.no/", 0, 2, 0.5),
        Link("http://d.no/", 0, 2, 0.9),
        Link("http://e.no/", 0, 2, 0.9),
    ]
    frontier.add(links)
    assert drain(frontier) == [f"http://{letter}.no/" for letter in "decba"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Link,
            st.integers(0, 30).map(lambda number: f"http://h{number % 4}.no/p{'x' * number}"),
            st.integers(0, 1),
            st.integers(0, 5),
            st.sampled_from([0.0, 0.5, 1.0]),
        ),
        max_size=40,
    )
)
def test_each_url_comes_once_by_the_best_way_to_it(links: list[Link]) -> None:
    frontier = frontier_of(follow={"max_segment_repeats": 9})
    frontier.add(links)
    best: dict[str, tuple[int, int, float]] = {}
    for link in links:
        way = (link.misses, link.depth, -link.score)
        best[link.url] = min(best.get(link.url, way), way)
    came = drain(frontier)
    assert sorted(came) == sorted(best)
    assert [best[url] for url in came] == sorted(best.values())


def test_a_host_is_fetched_from_once_at_a_time() -> None:
    frontier = frontier_of()
    frontier.add([Link("http://a.no/1"), Link("http://a.no/x/1"), Link("http://b.no/1")])
    first, second = frontier.take(0.0), frontier.take(0.0)
    assert first is not None
    assert second is not None
    assert {first.link.url, second.link.url} == {"http://a.no/1", "http://b.no/1"}
    assert frontier.take(0.0) is None
    frontier.finish(first, Outcome("kept", status=200))
    third = frontier.take(0.0)
    assert third is not None
    assert third.link.url == "http://a.no/x/1"


def test_a_ready_host_goes_before_one_that_rests_and_a_blocked_one_is_left_alone() -> None:
    frontier = frontier_of()
    frontier.add(
        [
            Link(f"http://{host}.no/{letter}", depth=depth)
            for depth, host in enumerate("abc")
            for letter in "xy"
        ]
    )
    for until, blocked in ((50.0, 0.0), (90.0, 90.0)):
        fetch = taken(frontier, 0.0)
        frontier.finish(fetch, Outcome("kept", status=200), ready_at=until, blocked_until=blocked)
    assert [taken(frontier, 1.0).link.url for _ in range(2)] == ["http://c.no/x", "http://a.no/y"]
    assert frontier.take(89.0) is None
    assert frontier.has_waiting()
    assert taken(frontier, 91.0).link.url == "http://b.no/y"


def taken(frontier: Frontier, now: float) -> Fetch:
    fetch = frontier.take(now)
    assert fetch is not None
    return fetch


@pytest.mark.parametrize(("kept", "fetched"), [(0, 4), (1, 8), (3, 16)])
def test_a_host_goes_on_as_long_as_it_gives_enough(kept: int, fetched: int) -> None:
    frontier = frontier_of(budget={"patience": 4, "min_share": 0.25})
    frontier.add([Link(f"http://a.no/{'x' * number}") for number in range(1, 100)])
    assert len(drain(frontier, at_most=kept)) == kept
    assert kept + len(drain(frontier, "other_language")) == fetched
    assert not frontier.has_waiting()
    (host,) = frontier.hosts()
    assert frontier.why_closed(host) == "given_up"


def test_a_pattern_that_gives_nothing_is_given_up_and_its_host_goes_on() -> None:
    frontier = frontier_of(budget={"patience": 4, "min_share": 0.25})
    frontier.add([Link("http://a.no/good", depth=9)] + [Link(f"http://a.no/cal/{day}") for day in range(50)])
    frontier.add([Link(f"http://a.no/{'x' * number}", depth=5) for number in range(1, 3)])
    for _ in range(3):
        frontier.finish(taken(frontier, LATER), Outcome("short", status=200))
    host = next(iter(frontier.hosts()))
    host.kept, host.fetched = 10, 13
    frontier.finish(taken(frontier, LATER), Outcome("short", status=200))
    assert drain(frontier) == ["http://a.no/x", "http://a.no/xx", "http://a.no/good"]
    assert frontier.add([Link("http://a.no/cal/99")]) == 0


def test_redirects_and_urls_never_asked_for_cost_a_host_nothing() -> None:
    frontier = frontier_of(budget={"patience": 3})
    frontier.add([Link(f"http://a.no/{'x' * number}") for number in range(1, 11)])
    for outcome in [Outcome("redirect", status=302)] * 4 + [
        Outcome("robots_disallowed", is_fetched=False)
    ] * 4:
        frontier.finish(taken(frontier, LATER), outcome)
    assert len(drain(frontier, "short")) == 2


@pytest.mark.parametrize(
    ("budget", "expected"),
    [({"pages": 7}, 7), ({"bytes": 250}, 3), ({"host_pages": 5}, 5), ({"host_bytes": 150}, 2)],
)
def test_budgets_end_it(budget: dict[str, int], expected: int) -> None:
    frontier = frontier_of(budget=budget)
    frontier.add([Link(f"http://a.no/{'x' * number}") for number in range(1, 30)])
    count = 0
    while fetch := frontier.take(LATER):
        count += 1
        frontier.finish(fetch, Outcome("kept", status=200, bytes=100))
    assert count == expected
    assert not frontier.has_waiting()


def test_fetches_under_way_count_against_the_budget_of_pages() -> None:
    frontier = frontier_of(budget={"pages": 2})
    frontier.add([Link(f"http://{letter}.no/") for letter in "abcd"])
    assert [frontier.take(0.0) is not None for _ in range(4)] == [True, True, False, False]


def test_a_host_that_fails_again_and_again_is_left_but_tried_in_the_next_sitting() -> None:
    database = sqlite3.connect(":memory:")
    frontier = frontier_of(database, politeness={"max_failures": 3})
    frontier.add([Link(f"http://a.no/{'x' * number}") for number in range(1, 9)])
    failure = Outcome("no_connection", is_failure=True)
    for _ in range(2):
        frontier.finish(taken(frontier, LATER), failure)
    frontier.finish(taken(frontier, LATER), Outcome("kept", status=200))
    for _ in range(3):
        frontier.finish(taken(frontier, LATER), failure)
    assert frontier.take(LATER) is None
    assert frontier.why_closed(next(iter(frontier.hosts()))) == "unreachable"
    assert len(drain(frontier_of(database))) == 2


def test_a_url_is_tried_again_when_its_time_has_come_and_no_earlier() -> None:
    frontier = frontier_of()
    frontier.add([Link("http://a.no/x"), Link("http://a.no/y", depth=1)])
    first = taken(frontier, 10.0)
    frontier.finish(first, Outcome("http_500", status=500), ready_at=11.0, retry_at=70.0)
    assert taken(frontier, 12.0).link.url == "http://a.no/y"
    database_says_waiting = frontier.has_waiting()
    assert database_says_waiting


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["kept", "short", "redirect"]), min_size=1, max_size=20), st.integers(0, 20))
def test_a_reopened_frontier_goes_on_as_if_nothing_had_happened(fates: list[str], closed_after: int) -> None:
    links = [Link(f"http://h{number % 3}.no/{'x' * number}", depth=number % 5) for number in range(1, 21)]
    ways = []
    for is_closed in (False, True):
        database = sqlite3.connect(":memory:")
        frontier = frontier_of(database)
        frontier.add(links)
        urls = []
        for number, fate in enumerate(fates):
            if is_closed and number == closed_after:
                frontier.take(LATER)  # under way when the process is killed
                database.commit()
                frontier = frontier_of(database)
            fetch = taken(frontier, LATER)
            urls.append(fetch.link.url)
            frontier.finish(fetch, Outcome(fate, status=200, bytes=10))
        ways.append(
            (
                urls,
                frontier.totals.fetched,
                frontier.totals.kept,
                frontier.totals.bytes,
                frontier.count_waiting(),
            )
        )
    assert ways[0] == ways[1]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (Link("http://a.no/", misses=2), "too_far_from_the_language"),
        (Link("http://a.no/", depth=31), "too_deep"),
        (Link("http://a.no/", redirects=6), "too_many_redirects"),
        (Link("http://a.no/x.pdf"), "no_page"),
        (Link("http://a.no/a/a/a/"), "endless"),
        (Link("http://se.wikipedia.org/"), "skipped_host"),
        (Link("http://a.no:8080/"), "port"),
    ],
)
def test_links_that_are_not_followed_are_counted_by_rule(link: Link, reason: str) -> None:
    database = sqlite3.connect(":memory:")
    frontier = frontier_of(database)
    assert frontier.add([link, link]) == 0
    assert database.execute("SELECT * FROM not_followed").fetchall() == [(reason, 2)]


def test_a_full_disk_is_one_sentence_and_leaves_the_crawl_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "crawl.sqlite"
    database = sqlite3.connect(path)
    frontier = frontier_of(database)
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages + 2}")
    with (
        pytest.raises(UserError, match=r"no disk space left while writing .*crawl\.sqlite"),
        saving(database, path),
    ):
        frontier.add([Link(f"http://h{number}.no/{'x' * 500}") for number in range(100)])
    assert frontier_of(sqlite3.connect(path)).count_waiting() == 0
