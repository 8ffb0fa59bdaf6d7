"""Articles of Bokmålsordboka come out as a dictionary reads, in the order of their numbers."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from normistral.corpus.sources.bokmaalsordboka import count_articles, read_articles
from normistral.errors import UserError

SCHEMA = """
CREATE TABLE articles (article_id TEXT PRIMARY KEY, lemma TEXT, all_lemmas TEXT, word_class TEXT, gender TEXT,
    inflection_table JSON, etymology TEXT);
CREATE TABLE definitions (id INTEGER PRIMARY KEY, article_id TEXT, content TEXT);
CREATE TABLE examples (id INTEGER PRIMARY KEY, article_id TEXT, definition_id INTEGER, quote TEXT,
    explanation TEXT);
"""


def paradigms(word_class: str, *rows: list[str]) -> str:
    return json.dumps(
        [
            {"word_class": word_class, "inflections": [{"form": form, "tags": []} for form in row]}
            for row in rows
        ]
    )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A few articles as the real database holds them, in a path with characters that a URI must escape."""
    path = tmp_path / "øre? #1%.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO articles VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                ("33", "", "", "EXPR", "", "[]", ""),
                ("34", "av sted | avsted", "av sted | avsted", "EXPR", "", "[]", ""),
                ("100", "våpenhjelp", "våpenhjelp", "NOUN", "Masc", "[]", ""),
                (
                    "24627",
                    "hus",
                    "hus",
                    "NOUN",
                    "Neuter",
                    paradigms("NOUN", ["hus", "huset", "hus", "husa"], ["hus", "huset", "hus", "husene"]),
                    "norr. hús | av",
                ),
                ("9", "a", "A | a", "", "", paradigms("SYM", ["a"]), None),
                (
                    "31",
                    "[gå|fly]  i strupen på",
                    "[gå | fly] i strupen på",
                    "EXPR",
                    "",
                    paradigms("EXPR", ["[gå|fly] i strupen på"]),
                    "",
                ),
                (
                    "32",
                    "sol",
                    "sol | soll",
                    "NOUN | ADJ",
                    "Fem | Masc",
                    paradigms("NOUN", ["solen", "sola"]),
                    "",
                ),
            ],
        )
        connection.executemany(
            "INSERT INTO definitions VALUES (?, ?, ?)",
            [
                (5, "24627", "bygning  (med tak) ; jamfør $ : hytte"),
                (3, "24627", ":"),
                (8, "24627", "hjem; brukt som adverb:"),
                (9, "9", "symbol for måleenheten ar, målestokk 1 : 100"),
                (10, "31", ": gå til angrep på"),
                (11, "32", "stjerne"),
                (12, "33", "forklaring uten oppslagsord"),
                (13, "34", "bort"),
            ],
        )
        connection.executemany(
            "INSERT INTO examples VALUES (?, ?, ?, ?, ?)",
            [
                (2, "24627", 5, "bygge hus ", "se $"),
                (1, "24627", 5, "ha hus", "eie"),
                (3, "24627", 5, "bygge hus", ""),
                (4, "24627", 3, "holde hus", ""),
            ],
        )
    return path


def test_articles_read_like_a_dictionary(database: Path) -> None:
    articles = dict(read_articles(database))
    assert articles["24627"] == (
        "hus (substantiv, intetkjønn)\n"
        "Opphav: norr. hús\n"
        "- holde hus\n"
        "1. bygning (med tak); jamfør: hytte\n"
        "- ha hus (eie)\n"
        "- bygge hus\n"
        "2. hjem"
    )
    assert articles["9"] == "a, A (symbol)\nsymbol for måleenheten ar, målestokk 1 : 100"
    assert articles["31"] == "gå eller fly i strupen på (uttrykk)\ngå til angrep på"
    assert articles["34"] == "av sted, avsted (uttrykk)\nbort"
    assert articles["32"] == ("sol, soll (substantiv eller adjektiv, hankjønn eller hunkjønn)\nstjerne")


def test_articles_come_in_the_order_of_their_numbers_and_empty_ones_are_empty(database: Path) -> None:
    articles = list(read_articles(database))
    assert [article_id for article_id, _ in articles] == ["9", "31", "32", "33", "34", "100", "24627"]
    assert [article_id for article_id, text in articles if not text] == ["33", "100"]
    assert count_articles(database) == 7


def test_a_file_that_is_no_such_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "articles.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=f"{path} is not the database of Bokmålsordboka"):
        list(read_articles(path))
    with pytest.raises(UserError, match="is not the database of Bokmålsordboka"):
        count_articles(tmp_path / "absent.db")
