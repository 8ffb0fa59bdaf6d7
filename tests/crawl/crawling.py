"""Start a crawl of a little web in a process of its own, and look at what it left."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from site_servers import ALLOWED_NETWORK, CANARY_ADDRESS, SITE_ADDRESS, Web

from normistral.corpus import Document, read_documents

DRIVER = Path(__file__).with_name("drive.py")
SECONDS = 120


def crawl_settings(web: Web, *seeds: str, **changed: Any) -> dict[str, Any]:
    """Settings for a little web: impatient, and at home on its addresses alone."""
    settings: dict[str, Any] = {
        "name": "web",
        "language": "sme",
        "contact": "https://example.org/crawl",
        "seeds": {"urls": list(seeds)},
        "budget": {"patience": 6, "domain_hosts": 5},
        "politeness": {
            "delay": 0.0,
            "max_delay": 0.2,
            "timeout": 1.0,
            "retries": 1,
            "retry_seconds": 0.1,
            "max_failures": 2,
        },
        "page": {"max_bytes": 1_000_000},
        "network": {
            "ports": [80, web.port, web.canary_port],
            "allow_networks": [ALLOWED_NETWORK],
            "resolve": dict.fromkeys(web.hosts, SITE_ADDRESS) | {"private.test": CANARY_ADDRESS},
        },
    }
    for section, values in changed.items():
        settings[section] = settings.get(section, {}) | values if isinstance(values, dict) else values
    return settings


@dataclass(frozen=True)
class Crawled:
    """A folder that a crawl worked in."""

    folder: Path
    web: Web
    settings: dict[str, Any]

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        written = self.folder.parent / f"{self.folder.name}.yaml"
        written.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        command = [sys.executable, str(DRIVER), str(written), str(self.folder), *overrides]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *overrides: str) -> tuple[int, str]:
        process = self.start(*overrides)
        _, told = process.communicate(timeout=SECONDS)
        return process.returncode, told

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text(encoding="utf-8")))

    def documents(self) -> list[Document]:
        files = sorted((self.folder / "documents").glob("*.parquet"))
        return [document for file in files for document in read_documents(file)]

    def kept_of(self, host: str) -> set[str]:
        start = self.web.url(host, "")
        return {
            document.url.removeprefix(start)
            for document in self.documents()
            if document.url.startswith(start)
        }

    def fates(self) -> dict[str, str]:
        """Fate of each URL, by URL without the port."""
        with sqlite3.connect(self.folder / "crawl.sqlite") as database:
            rows = database.execute("SELECT url, coalesce(fate, 'waiting') FROM urls").fetchall()
        return {url.replace(f":{self.web.port}", ""): fate for url, fate in rows}
