"""Run a crawl: open its folder, let Scrapy work on it, and leave it so that the same call goes on."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from normistral.corpus.crawl.report import CrawlReport
from normistral.errors import UserError
from normistral.languages import check_language
from normistral.recipe.crawl import CrawlSettings
from normistral.records import whole_file

if TYPE_CHECKING:
    from normistral.corpus.crawl.page import MakeSteps

FIXED = ("name", "language")
"""Settings that a crawl keeps for life; all others may change from one sitting to the next."""
MAY_PASS = ("no_connection", "timeout", "no_robots", "http_429", "http_5__")
"""Fates that another day may change; SQL patterns."""


def crawl(
    settings: CrawlSettings, folder: Path, retry: bool = False, make_steps: MakeSteps | None = None
) -> CrawlReport:
    """Begin a crawl in a folder, or go on with it, until nothing is left or a budget is spent.

    Scrapy's reactor runs in this process, which can run one only once.

    Args:
        settings: of the crawl; another name or language needs another folder.
        folder: for all that the crawl makes.
        retry: whether URLs are tried again that were given up for lack of a connection.
        make_steps: makes the steps that decide on a page; a function of a module, since it is called in
            other processes. None: `page_steps`.

    Returns:
        What it has come to so far; also in `report.json`.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, with everything finished so far on disk.
        UserError: if the settings don't fit the folder, Scrapy is missing, a seed file is broken, the disk is
            full, or the network is gone.
    """
    check_language(settings.language, "language")
    try:
        from normistral.corpus.crawl.session import run_session
        from normistral.corpus.crawl.steps import page_steps
    except ModuleNotFoundError as error:
        raise UserError(
            f"a crawl needs the package {error.name}; install the extra: pip install 'normistral[crawl]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), closing(_database(folder / "crawl.sqlite")) as database:
        _check_folder(settings, folder)
        if retry:
            _put_back(database)
        return run_session(settings, folder, database, make_steps or page_steps)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "crawl.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is crawling in {folder}; wait or give another --out") from None
        yield


def _database(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "PRAGMA synchronous = NORMAL"
        )  # a kill loses nothing; see `KeptPages.end_of_archive`
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path} is damaged or no crawl's database ({error}); give another --out, or delete the folder"
        ) from error
    return database


def _check_folder(settings: CrawlSettings, folder: Path) -> None:
    """Refuse a folder of another crawl, and keep the settings in it."""
    path = folder / "crawl.yaml"
    now = settings.model_dump(mode="json")
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in FIXED:
            if before.get(key) != now[key]:
                raise UserError(
                    f"{folder} holds a crawl with {key} {before.get(key)}, not {now[key]}; give another --out"
                )
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(now, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _put_back(database: sqlite3.Connection) -> None:
    """Make URLs wait again that were given up for reasons that may have passed."""
    chosen = " OR ".join("fate LIKE ?" for _ in MAY_PASS)
    with database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'urls'").fetchone():
            database.execute(
                f"UPDATE urls SET fate = NULL, tries = 0, not_before = 0 WHERE {chosen}",
                MAY_PASS,
            )
