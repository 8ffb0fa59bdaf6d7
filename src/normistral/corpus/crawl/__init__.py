"""A crawl of the web for one language: from seeds to kept documents, resumable at any time.

seeds ─► frontier ─► robots.txt ─► fetch ─► page: text, language ─► WARC, documents
             ▲────────────── links ──────────────┘
"""

from normistral.corpus.crawl.report import CrawlReport, report_tables
from normistral.corpus.crawl.run import crawl

__all__ = ["CrawlReport", "crawl", "report_tables"]
