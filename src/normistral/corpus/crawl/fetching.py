"""How Scrapy fetches for us: connections, timeouts, decompression and throttling are its; what is fetched,
when and whether at all is the frontier's and robots.txt's.

    frontier ─► FrontierScheduler ─► RobotsGate ─► downloader, one slot a host ─► KeepRaw ─► job
                                                          ▲ HostThrottle

Redirects and second attempts go through the frontier instead of Scrapy's middlewares, so that each address is
counted, looked up among those known, and survives a kill.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from scrapy import Request, Spider, signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.downloadermiddlewares.defaultheaders import DefaultHeadersMiddleware
from scrapy.downloadermiddlewares.downloadtimeout import DownloadTimeoutMiddleware
from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.downloadermiddlewares.useragent import UserAgentMiddleware
from scrapy.exceptions import StopDownload
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK

from normistral.corpus.crawl.answers import (
    HTML_TYPES,
    Disallowed,
    RobotsUnreachable,
    redirect_target,
    user_agent,
)
from normistral.corpus.crawl.archive import Answer
from normistral.corpus.crawl.job import Job
from normistral.corpus.crawl.robots import MAX_BYTES, MAX_REDIRECTS, Robots, rules_of_answer
from normistral.corpus.crawl.urls import host_of, port_of
from normistral.recipe.crawl import CrawlSettings

log = logging.getLogger(__name__)


def scrapy_settings(settings: CrawlSettings, log: Path) -> dict[str, Any]:
    """What Scrapy is told; everything that it would do by itself and is not named here is off.

    Args:
        settings: of the crawl.
        log: file for Scrapy's log.
    """
    manners = settings.politeness
    return {
        "SCHEDULER": FrontierScheduler,
        "DOWNLOADER_MIDDLEWARES_BASE": {
            RobotsGate: 100,
            DownloadTimeoutMiddleware: 350,
            DefaultHeadersMiddleware: 400,
            UserAgentMiddleware: 500,
            HttpCompressionMiddleware: 590,
            KeepRaw: 700,
        },
        "SPIDER_MIDDLEWARES_BASE": {},
        "EXTENSIONS_BASE": {HostThrottle: 0},
        "USER_AGENT": user_agent(settings),
        "DEFAULT_REQUEST_HEADERS": {
            "Accept": "text/html,application/xhtml+xml",
            "Accept-Language": f"{settings.language.partition('_')[0]},*;q=0.5",
        },
        "CONCURRENT_REQUESTS": manners.hosts_at_once,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "DOWNLOAD_DELAY": manners.delay,
        "DOWNLOAD_DELAY_JITTER": 0.0,  # it would go below what a host asks for
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": manners.delay,
        "AUTOTHROTTLE_MAX_DELAY": max(manners.max_delay, manners.delay),
        "AUTOTHROTTLE_TARGET_CONCURRENCY": 1.0,
        "DOWNLOAD_TIMEOUT": manners.timeout,
        "DOWNLOAD_MAXSIZE": settings.page.max_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "STATS_DUMP": False,
        "LOG_FILE": str(log),
        "LOG_LEVEL": "INFO",
    }


class FrontierScheduler(BaseScheduler):
    """Gives the engine what the frontier says is next."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @classmethod
    def from_crawler(cls, crawler: Any) -> FrontierScheduler:
        """Made by Scrapy."""
        return cls(crawler.spider.job)

    def open(self, spider: Spider) -> None:
        """Let the job see how long each host's pause is."""
        self._job.slots = spider.crawler.engine.downloader.slots

    def has_pending_requests(self) -> bool:
        """Whether there is anything left to fetch, now or later."""
        return self._job.frontier.has_waiting()

    def enqueue_request(self, request: Request) -> bool:
        """Nothing comes back this way: redirects and further attempts go through the frontier."""
        raise AssertionError(f"{request} was not made by the frontier")

    def next_request(self) -> Request | None:
        """The next request, if there is one now."""
        fetch = self._job.frontier.take(time.time())
        if fetch is None:
            return None
        return Request(
            fetch.link.url,
            callback=self._job.on_answer,
            errback=self._job.on_failure,
            dont_filter=True,
            meta={"fetch": fetch, "download_slot": host_of(fetch.link.url)},
        )


class PageSpider(Spider):
    """What Scrapy takes a crawl to be; it begins with nothing, since all comes from the frontier."""

    name = "pages"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    async def start(self) -> AsyncIterator[Any]:
        """No requests of its own."""
        nothing: tuple[Any, ...] = ()
        for item in nothing:
            yield item


class RobotsGate:
    """Lets through what robots.txt allows, and fetches it where it is not known or too old."""

    def __init__(self, crawler: Any) -> None:
        self._crawler = crawler
        self._job: Job = crawler.spider.job
        crawler.signals.connect(self._headers_received, signals.headers_received)

    @classmethod
    def from_crawler(cls, crawler: Any) -> RobotsGate:
        """Made by Scrapy."""
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        """Let a request through.

        Raises:
            Disallowed: if its URL is not to be fetched.
            RobotsUnreachable: if the host does not say.
        """
        if "fetch" not in request.meta:
            return
        host = host_of(request.url)
        robots = self._job.robots_of(host)
        if robots is None:
            scheme = request.url.partition(":")[0]
            robots = Robots(await self._ask(f"{scheme}://{host}/robots.txt"), self._job.settings.agent)
            self._job.remember_robots(host, robots)
        verdict = robots.verdict(request.url)
        if verdict == "disallowed":
            raise Disallowed(request.url)
        if verdict == "unreachable":
            raise RobotsUnreachable(request.url)

    async def _ask(self, url: str) -> str | None:
        for _ in range(MAX_REDIRECTS + 1):
            request = Request(
                url,
                callback=NO_CALLBACK,
                meta={
                    "download_slot": host_of(url),
                    "download_maxsize": 4 * MAX_BYTES,
                    "autothrottle_dont_adjust_delay": True,
                },
            )
            try:
                answer: Response = await self._crawler.engine.download_async(request)
            except Exception as error:  # whatever the reason: there is no answer
                log.info("%s: %s: %s", url, type(error).__name__, error)
                return None
            target = redirect_target(answer)
            if target is None:
                return rules_of_answer(answer.status, answer.body)
            if port_of(target) not in self._job.settings.network.ports:
                return ""
            url = target
        return ""

    def _headers_received(self, headers: Any, request: Request) -> None:
        """Break off what is no HTML before its body comes."""
        if "fetch" not in request.meta:
            return
        request.meta["is_heard"] = True
        kind = (headers.get(b"Content-Type") or b"").decode("latin-1").partition(";")[0].strip().lower()
        if kind and kind not in HTML_TYPES:
            request.meta["kind"] = kind
            raise StopDownload(fail=True)


class KeepRaw:
    """Keeps answers as they were transferred, before they are decompressed."""

    def process_response(self, request: Request, response: Response) -> Response:
        """Note the answer; Scrapy goes on with the same."""
        if "fetch" in request.meta:
            request.meta["answer"] = Answer(
                url=response.url,
                status=response.status,
                reason=http.client.responses.get(response.status, ""),
                protocol=response.protocol or "HTTP/1.1",
                headers=[
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, values in response.headers.items()
                    for value in values
                ],
                body=response.body,
                address=str(response.ip_address or ""),
                fetched_at=time.time(),
            )
        return response


class HostThrottle(AutoThrottle):
    """Scrapy's throttle, which never goes below what a host asks for."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._job: Job = crawler.spider.job
        crawler.signals.connect(self._reached_downloader, signals.request_reached_downloader)

    def _reached_downloader(self, request: Request, spider: Spider) -> None:
        key, slot = self._get_slot(request, spider)
        if slot is not None and key is not None:
            slot.delay = max(slot.delay, self._job.delays.get(key, 0.0))

    def _response_downloaded(self, response: Response, request: Request, spider: Spider) -> None:
        super()._response_downloaded(response, request, spider)
        self._reached_downloader(request, spider)
