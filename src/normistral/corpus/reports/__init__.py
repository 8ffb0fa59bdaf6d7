"""Looking into a built corpus: its figures, a sample of it, and the fate of one document."""

from normistral.corpus.reports.built import BuiltCorpus, find_corpus
from normistral.corpus.reports.sample import SampledDocument, sample_corpus
from normistral.corpus.reports.stats import (
    Amount,
    CorpusStats,
    GroupStats,
    SetStats,
    StepStats,
    corpus_stats,
    in_step_order,
    length_bins,
)
from normistral.corpus.reports.why import Account, account_of, find_fates, full_name

__all__ = [
    "Account",
    "Amount",
    "BuiltCorpus",
    "CorpusStats",
    "GroupStats",
    "SampledDocument",
    "SetStats",
    "StepStats",
    "account_of",
    "corpus_stats",
    "find_corpus",
    "find_fates",
    "full_name",
    "in_step_order",
    "length_bins",
    "sample_corpus",
]
