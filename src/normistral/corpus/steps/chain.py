"""Which steps the documents of a source go through, and in which order.

Repair comes before judgement, cheap judgement before dear, and personal data last, so that placeholders
mislead no rule. Deduplication, decontamination and the removal list come after all of these, for all sources
together.
"""

from __future__ import annotations

import re

from normistral.corpus.steps.encoding import RepairEncoding
from normistral.corpus.steps.extract import ExtractText
from normistral.corpus.steps.language import LanguageIdentification
from normistral.corpus.steps.length import LengthRules
from normistral.corpus.steps.lines import JoinLines
from normistral.corpus.steps.personal_data import ReplacePersonalData
from normistral.corpus.steps.quality import QualityRules
from normistral.corpus.steps.repetition import RepetitionRules
from normistral.corpus.steps.step import Step
from normistral.recipe import CorpusSettings, SourceSettings

STEP_ORDER = (
    *("read", "licence", "extract", "encoding", "lines", "length", "repetition", "quality", "language"),
    *("personal_data", "exact_dedup", "near_dedup", "removal", "decontamination"),
)
"""Names of all steps in the order in which documents meet them; reading is the first."""
PAGES = ("html", "warc")
NO_PAGES = re.compile(r"(sample|hub):|.*\.(jsonl|ndjson|parquet|txt|tmx|xml)(\.gz|\.zst)?$", re.IGNORECASE)
"""Paths whose documents are text already."""


def steps_for(settings: CorpusSettings, source: SourceSettings) -> list[Step]:
    """The steps of a source, new ones, in order; those that its profile switches off are left out.

    Args:
        settings: the recipe's `corpus` section.
        source: one of its sources, whose profile, language and kind decide.

    Raises:
        UserError: if a step needs what is not installed.
    """
    profile = settings.profile_of(source)
    language, kind = source.language, source.kind
    steps: list[Step] = [ExtractText(profile.extract)] if may_have_pages(source) else []
    steps.append(RepairEncoding(profile.encoding, language, kind))
    if kind != "code":
        steps.append(JoinLines(profile.lines, language, kind))
    if profile.length.enabled:
        steps.append(LengthRules(profile.length, language, kind))
    if profile.repetition.enabled:
        steps.append(RepetitionRules(profile.repetition, language, kind))
    if profile.quality.enabled:
        steps.append(QualityRules(profile.quality, language, kind))
    if profile.language_id.enabled:
        steps.append(LanguageIdentification(profile.language_id, language, settings.languages))
    if profile.personal_data.enabled:
        steps.append(ReplacePersonalData(profile.personal_data, language, kind))
    return steps


def may_have_pages(source: SourceSettings) -> bool:
    """Whether some of a source's documents may be HTML pages, as far as its settings tell."""
    if source.format is not None:
        return source.format in PAGES
    return NO_PAGES.match(source.path) is None
