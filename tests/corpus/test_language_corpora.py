"""Figures on real text that is not part of the product; skipped where it is absent."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import zstandard
from language_samples import CORPORA, needs_corpora, needs_heliport

from normistral.corpus.language_id import Judgement, LanguageVotes
from normistral.recipe.language_id import LanguageIdSettings

LABELS = Path(__file__).with_name("language_labels.tsv")
LANGUAGES = ("nob", "nno", "sme", "dan", "swe", "isl", "fao", "eng")
SENTENCES_IN_A_DOCUMENT = 8

pytestmark = [needs_corpora, needs_heliport]


def labels_by_hand() -> dict[str, str]:
    lines = [line for line in LABELS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.split("\t") for line in lines)


def valid_documents(language: str) -> Iterator[tuple[str, str]]:
    with (CORPORA / f"{language}.valid.jsonl.zst").open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            row = json.loads(line)
            yield row["id"], row["text"]


def sibling_sentences() -> dict[str, list[str]]:
    by_language: dict[str, list[str]] = {}
    for line in (CORPORA / "sami-siblings.tsv").read_text(encoding="utf-8").splitlines():
        language, sentence = line.split("\t")
        by_language.setdefault(language, []).append(sentence)
    return by_language


def language_said(judgement: Judgement, source: str) -> str:
    return source if judgement.language == "und" else judgement.language


def test_98_of_100_documents_are_in_the_language_that_is_found() -> None:
    labels = labels_by_hand()
    seen: set[str] = set()
    wrong = []
    for source in LANGUAGES:
        rows = list(valid_documents(source))
        votes = LanguageVotes(LanguageIdSettings(), (source,))
        for (name, _), judgement in zip(rows, votes.judge([text for _, text in rows], source), strict=True):
            seen.add(name)
            if language_said(judgement, source) != labels.get(name, source):
                wrong.append((name, labels.get(name, source), str(judgement)))
    assert len(wrong) <= 0.02 * len(seen), wrong
    assert set(labels) <= seen
    assert sum(label not in name for name, label in labels.items()) > 50  # the corpus's own label was wrong


def test_sentences_of_sibling_languages_are_not_taken_for_northern_sami() -> None:
    votes = LanguageVotes(LanguageIdSettings(min_characters=1), ("sme",))
    for language, sentences in sibling_sentences().items():
        unknown, expected = votes.judge(sentences), votes.judge(sentences, "sme")
        for found in (unknown, expected):
            assert sum(one.language == "sme" for one in found) <= 0.02 * len(sentences), language
        assert sum(one.language == language for one in expected) >= 0.97 * len(sentences), language


def test_no_document_of_eight_such_sentences_is() -> None:
    votes = LanguageVotes(LanguageIdSettings(), ("sme",))
    for language, sentences in sibling_sentences().items():
        documents = [
            "\n".join(sentences[begin : begin + SENTENCES_IN_A_DOCUMENT])
            for begin in range(0, len(sentences), SENTENCES_IN_A_DOCUMENT)
        ]
        assert {one.language for one in votes.judge(documents, "sme")} == {language}


def test_northern_sami_sentences_still_are() -> None:
    pairs = (CORPORA / "nob-sme.valid.tsv").read_text(encoding="utf-8").splitlines()
    sentences = [pair.split("\t")[1] for pair in pairs]
    votes = LanguageVotes(LanguageIdSettings(min_characters=1), ("sme",))
    found = votes.judge(sentences, "sme")
    assert sum(one.language == "sme" for one in found) >= 0.98 * len(sentences)
