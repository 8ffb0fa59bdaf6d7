"""Our crawl beside a plain Scrapy spider (CrawlSpider, trafilatura in the callback, JOBDIR) on a local web.

Two questions: how many pages a CPU-second (fetch, links, text, near-duplicates, WARC and database on our
side; fetch, links, text and JSON lines on Scrapy's), and what a SIGKILL in the middle costs: pages fetched a
second time, and pages that never come.

Usage: python benchmarks/corpus_crawl.py [--hosts 20] [--pages 50]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

NETWORK = "127.0.1.0/24"
SYLLABLES = [a + b for a in "bdfghjklmnprstv" for b in ("a", "e", "i", "o", "u", "á", "ea", "oa", "ie")]
OURS, SCRAPY = "normistral corpus crawl", "Scrapy CrawlSpider + JOBDIR"

SPIDER = """
import sys
import trafilatura
from scrapy.crawler import CrawlerProcess
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

class Pages(CrawlSpider):
    name = "pages"
    start_urls = sys.argv[2:]
    rules = (Rule(LinkExtractor(), callback="parse_page", follow=True),)
    def parse_start_url(self, response):
        return self.parse_page(response)
    def parse_page(self, response):
        text = trafilatura.extract(response.text, include_comments=False)
        if text:
            yield {"url": response.url, "text": text}

folder = sys.argv[1]
process = CrawlerProcess({
    "JOBDIR": folder + "/job", "ROBOTSTXT_OBEY": True, "CONCURRENT_REQUESTS": 32,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 1, "FEEDS": {folder + "/pages.jsonl": {"format": "jsonlines"}},
    "TELNETCONSOLE_ENABLED": False, "REMOTE_CONTROL_ENABLED": False, "LOG_FILE": folder + "/log",
    "LOG_LEVEL": "INFO", "USER_AGENT": "bench (+https://example.org)", "COOKIES_ENABLED": False,
    "SCHEDULER_PRIORITY_QUEUE": "scrapy.pqueues.DownloaderAwarePriorityQueue",
})
process.crawl(Pages)
process.start()
"""


class Site:
    """Hosts (by port) of pages that link to the next few and to the next host."""

    def __init__(self, hosts: int, pages: int) -> None:
        self.pages = pages
        self.visits: Counter[str] = Counter()
        self.servers = [
            ThreadingHTTPServer((f"127.0.1.{number + 1}", 0), self._handler()) for number in range(hosts)
        ]
        self.ports = [server.server_address[1] for server in self.servers]
        self._texts = {(port, page): made_up(port, page) for port in self.ports for page in range(pages)}
        for server in self.servers:
            server.daemon_threads = True
            server.handle_error = lambda *_: None  # a killed crawler hangs up
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def seeds(self) -> list[str]:
        return [f"http://{server.server_address[0]}:{server.server_address[1]}/p0" for server in self.servers]

    @property
    def fetched(self) -> int:
        return len(self.visits)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self) -> None:
                port = self.server.server_address[1]
                number = int(self.path[2:]) if self.path[:2] == "/p" else -1
                if 0 <= number < site.pages:
                    site.visits[f"{port}{self.path}"] += 1
                    body, status = site._texts[port, number].encode(), 200
                else:
                    body, status = b"", 404
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                return

        return Handler


def made_up(port: int, page: int) -> str:
    """About 8 kB of HTML: navigation, 60 sentences, links."""
    draw = random.Random(page * 100_003 + port)
    sentences = [
        " ".join("".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(12)).capitalize() + "."
        for _ in range(60)
    ]
    text = "".join(f"<p>{' '.join(sentences[at : at + 5])}</p>" for at in range(0, 60, 5))
    links = "".join(f'<li><a href="/p{other}">Page {other}</a></li>' for other in range(page + 1, page + 8))
    return (
        f"<html><head><title>p{page}</title></head><body><nav><ul><li><a href='/p0'>Home</a></li></ul></nav>"
        f"<main><article><h1>Page {page}</h1>{text}</article></main><footer><ul>{links}</ul></footer></body>"
    )


def command(what: str, site: Site, folder: Path) -> list[str]:
    """How a crawl of the site is started, or gone on with."""
    if what == SCRAPY:
        spider = folder / "spider.py"
        spider.write_text(SPIDER)
        return [sys.executable, str(spider), str(folder), *site.seeds()]
    settings = {
        "name": "bench",
        "language": "sme",
        "contact": "https://example.org",
        "seeds": {"urls": site.seeds()},
        "politeness": {"delay": 0.0, "max_delay": 0.001},
        "page": {"language_id": {"enabled": False}},
        "network": {"ports": site.ports, "allow_networks": [NETWORK]},
        "budget": {"domain_hosts": 1000},
    }
    path = folder / "crawl.yaml"
    path.write_text(yaml.safe_dump(settings))
    crawl = ["corpus", "crawl", str(path), "--out", str(folder / "crawl")]
    return [sys.executable, "-m", "normistral", *crawl]


def measured(what: str, hosts: int, pages: int) -> tuple[float, float]:
    """Wall and CPU seconds of one whole crawl, all its processes."""
    site = Site(hosts, pages)
    with tempfile.TemporaryDirectory() as folder:
        before, began = os.times(), time.monotonic()
        process = subprocess.Popen(
            command(what, site, Path(folder)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        process.wait()
        after = os.times()
        wall = time.monotonic() - began
    assert site.fetched == hosts * pages, (what, site.fetched)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def killed(what: str, hosts: int, pages: int) -> tuple[int, int]:
    """Pages fetched twice and never, where a crawl is killed at half its way and started again."""
    site = Site(hosts, pages)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command(what, site, Path(folder)), **quiet)
        while site.fetched < hosts * pages // 2 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(command(what, site, Path(folder)), check=False, **quiet)
    return sum(count - 1 for count in site.visits.values()), hosts * pages - site.fetched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    total = options.hosts * options.pages
    print(f"{options.hosts} hosts x {options.pages} pages of 8 kB, {options.rounds} rounds, medians")
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| crawler | pages/s | pages a CPU-s | after SIGKILL: fetched twice | never fetched |")
    print("|---|---|---|---|---|")
    for what in (OURS, SCRAPY):
        runs = [measured(what, options.hosts, options.pages) for _ in range(options.rounds)]
        wall, cpu = (statistics.median(run[place] for run in runs) for place in (0, 1))
        twice, never = killed(what, options.hosts, options.pages)
        print(f"| {what} | {total / wall:.0f} | {total / cpu:.0f} | {twice} | {never} |", flush=True)


if __name__ == "__main__":
    main()
