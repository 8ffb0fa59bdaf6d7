"""The step `language`: documents that are not in their source's language are dropped, or relabelled.

A document is judged by a sample of its words (see `corpus/language_id/`). Rules, in this order:

    script           too few letters in the script that the source's language names
    short            too few words to judge, and `short_documents: drop`
    low_score        no language is likely enough
    other_language   another language is likelier
    mixed            too much of it is in other languages
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.language_id import Judgement, LanguageVotes
from normistral.corpus.language_id.codes import NOTHING_READ, one_code
from normistral.corpus.language_id.scripts import script_share
from normistral.corpus.steps.step import Step
from normistral.languages import PROGRAM_TEXT
from normistral.recipe.language_id import LanguageIdSettings


class LanguageIdentification(Step):
    """Keeps what is in the source's language, and sets `language_score`."""

    name = "language"

    def __init__(self, settings: LanguageIdSettings, language: str, languages: tuple[str, ...]) -> None:
        """Prepare to judge the documents of one source.

        Args:
            settings: engines and limits.
            language: what the source says: ISO 639-3, with a script where it matters.
            languages: those of all sources of the recipe: where relabelled documents may go.

        Raises:
            UserError: if an engine is not installed, or no engine knows the language.
        """
        super().__init__()
        self._settings = settings
        self._language = language
        self._by_code = {one_code(other): other for other in (*languages, language)}
        others = set(languages) - {PROGRAM_TEXT} if settings.on_mismatch == "relabel" else set()
        self._votes = LanguageVotes(settings, (language,), others)

    def judge(self, document: Document) -> Document | Dropped:
        """The document with its score, or why it is dropped."""
        return self.judge_batch([document])[0]

    def judge_batch(self, documents: Sequence[Document]) -> list[Document | Dropped]:
        """`judge` for each of several documents, much faster than one by one."""
        texts = [document.text for document in documents]
        judgements = self._votes.judge(texts, self._language)
        return [
            self._verdict(document, judgement)
            for document, judgement in zip(documents, judgements, strict=True)
        ]

    @cached_property
    def _script(self) -> str:
        return self._language.partition("_")[2]

    def _verdict(self, document: Document, judgement: Judgement) -> Document | Dropped:
        settings = self._settings
        if self._script:
            share = script_share(document.text, self._script)
            if share < settings.min_script:
                return self.drop(
                    "script",
                    f"{share:.0%} of letters in {self._script}, at least {settings.min_script:.0%} wanted",
                )
        if judgement.language == NOTHING_READ:
            if settings.short_documents == "keep":
                return document
            return self.drop("short", f"fewer than {settings.min_characters} characters of words")
        if judgement.score < settings.min_score:
            return self.drop("low_score", f"{judgement}; at least {settings.min_score:g} wanted")
        language = self._language
        if judgement.language != one_code(language):
            other = self._by_code.get(judgement.language)
            if settings.on_mismatch == "drop" or other is None:
                return self.drop("other_language", f"{judgement.language} ({judgement})")
            language = other
        if judgement.minority > settings.max_minority:
            found = ", ".join(f"{code} {share:.0%}" for code, share in judgement.others[:3])
            return self.drop("mixed", f"{found} of the words; at most {settings.max_minority:.0%} wanted")
        return replace(document, language=language, language_score=judgement.score)
