"""Exact and near duplicates over all documents of a corpus, by tasks that run anywhere."""

from normistral.corpus.dedup.deduplicate import deduplicate
from normistral.corpus.dedup.keys import KEYS_METHOD, KeyWriter
from normistral.corpus.dedup.stars import RunPhase
from normistral.corpus.dedup.verdicts import Verdict, read_verdicts

__all__ = ["KEYS_METHOD", "KeyWriter", "RunPhase", "Verdict", "deduplicate", "read_verdicts"]
