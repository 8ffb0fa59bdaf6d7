"""Language identification: engines behind one interface, one vote or two, and a minority check."""

from normistral.corpus.language_id.votes import Judgement, LanguageVotes

__all__ = ["Judgement", "LanguageVotes"]
