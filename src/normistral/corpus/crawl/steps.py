"""The steps that a fetched page goes through: the same ones as in a corpus, and a least length."""

from __future__ import annotations

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.extract import ExtractText
from normistral.corpus.steps.language import LanguageIdentification
from normistral.corpus.steps.step import Step
from normistral.recipe.crawl import CrawlSettings


class MinCharacters(Step):
    """Drops what has less text than a limit."""

    name = "page"

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def judge(self, document: Document) -> Document | Dropped:
        """The document, or why it is dropped."""
        length = len(document.text)
        return self.drop("short", f"{length} characters") if length < self._limit else document


def extraction_steps(settings: CrawlSettings) -> list[Step]:
    """From a page to enough text."""
    return [ExtractText(settings.page.extract), MinCharacters(settings.page.min_characters)]


def page_steps(settings: CrawlSettings) -> list[Step]:
    """Extraction, a least length, language identification: what decides whether a page is kept.

    Raises:
        UserError: if a language engine is not installed or does not know the language.
    """
    steps = extraction_steps(settings)
    if settings.page.language_id.enabled:
        # A page too short to judge says nothing of its language, and here no source vouches for it.
        judged = settings.page.language_id.model_copy(update={"short_documents": "drop"})
        steps.append(LanguageIdentification(judged, settings.language, (settings.language,)))
    return steps
