"""Which language a document is in, by one vote or two, and how much of it is in other languages.

    text ─► sample ─► first engine ─► (a language that needs two votes? ─► second engine) ─► language, score
                └───► segments ─► the same votes ─► share of words in each other language

Why two votes: an engine that does not know Lule or Skolt Sámi takes them for Northern Sámi, and is sure of
it. Where the second engine finds a language that the first doesn't know, its word alone counts; otherwise the
probabilities of both are averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from normistral.corpus.language_id.codes import NOTHING_READ, names_language, one_code
from normistral.corpus.language_id.identifier import Identifier, Ranking, sorted_by_probability
from normistral.corpus.language_id.naive_bayes import py3langid
from normistral.corpus.language_id.sample import Sample, sample_document
from normistral.corpus.language_id.served import ServedIdentifier
from normistral.errors import UserError
from normistral.recipe.language_id import LanguageIdSettings

MIN_SEGMENT_CHARACTERS = 60
"""Shorter segments are not asked for their language: a name or a heading would decide."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the votes say of one document."""

    language: str
    """ISO 639-3; `und` if the document is too short."""
    score: float = 0.0
    """How sure that is, 0 to 1."""
    votes: tuple[tuple[str, Ranking], ...] = ()
    """The engines' names and rankings, for the detail of a table."""
    others: tuple[tuple[str, float], ...] = ()
    """Other languages and the share of the document's words in them, largest first."""

    @property
    def minority(self) -> float:
        """Share of the words in other languages, 0 to 1."""
        return sum(share for _, share in self.others)

    def __str__(self) -> str:
        return "; ".join(
            f"{name}: " + ", ".join(f"{code} {score:.2f}" for code, score in ranking[:2])
            for name, ranking in self.votes
        )


TOO_SHORT = Judgement(NOTHING_READ)


@dataclass(frozen=True, slots=True)
class _Found:
    language: str
    score: float
    votes: tuple[tuple[str, Ranking], ...]


class LanguageVotes:
    """The engines of a recipe's settings; each is loaded or started on first use."""

    def __init__(
        self, settings: LanguageIdSettings, languages: Collection[str], others: Collection[str] = ()
    ) -> None:
        """Choose the engines.

        Args:
            settings: engines and limits.
            languages: what documents are said, or wanted, to be in.
            others: what else they may turn out to be in and be wanted for. Where one of either needs two
                votes, the second engine has to be there.

        Raises:
            UserError: if an engine is needed and not installed, or none knows one of `languages`.
        """
        self._settings = settings
        self._first = _engine(settings.engine, settings)
        self._both_for = frozenset(one_code(language) for language in settings.second_vote_for)
        self._second: Identifier | None = None
        wanted = {one_code(language) for language in (*languages, *others)}
        if settings.second_vote not in ("off", settings.engine) and self._needs_second(wanted):
            try:
                self._second = _engine(settings.second_vote, settings)
            except UserError as error:
                needy = ", ".join(sorted(code for code in wanted if self._needs_second({code})))
                raise UserError(
                    f"{error}. It gives the second vote on documents in {needy}; or do without by "
                    "language_id.second_vote: off, and take sibling languages into the bargain"
                ) from error
        for language in languages:
            self._check_known(one_code(language))

    def _needs_second(self, languages: set[str]) -> bool:
        return any(
            language in self._both_for or not _knows(self._first, language)
            for language in languages - {NOTHING_READ}
        )

    def _check_known(self, language: str) -> None:
        if _knows(self._first, language) or (self._second and _knows(self._second, language)):
            return
        names = " nor ".join(engine.name for engine in (self._first, self._second) if engine)
        raise UserError(
            f"language identification: {names} does not know '{language}'; give a fastText model that does "
            "(language_id.engine: fasttext), or switch language_id off in the profile of its sources"
        )

    def judge(self, texts: Sequence[str], expected: str | None = None) -> list[Judgement]:
        """The language of each text, in order.

        Args:
            texts: documents.
            expected: the language that they are said to be in; None: not known.
        """
        expected = one_code(expected) if expected else None
        samples = [sample_document(text, self._settings.sample_characters) for text in texts]
        is_asked = [self._is_asked(sample, expected) for sample in samples]
        asked = [sample for sample, is_it in zip(samples, is_asked, strict=True) if is_it]
        found = self._vote([sample.text for sample in asked], expected)
        others = self._minorities(asked, found)
        judged = iter(map(self._judgement, asked, found, others, [expected] * len(asked)))
        return [next(judged) if is_it else TOO_SHORT for is_it in is_asked]

    def _is_asked(self, sample: Sample, expected: str | None) -> bool:
        # a short document can only be found not to be what it is said to be
        least = MIN_SEGMENT_CHARACTERS if expected else self._settings.min_characters
        return len(sample.text) >= min(least, self._settings.min_characters)

    def _judgement(
        self, sample: Sample, found: _Found, others: tuple[tuple[str, float], ...], expected: str | None
    ) -> Judgement:
        is_short = len(sample.text) < self._settings.min_characters
        if is_short and (found.language == expected or found.score < self._settings.sure_score):
            return TOO_SHORT
        return Judgement(found.language, found.score, found.votes, others)

    def _minorities(self, samples: list[Sample], found: list[_Found]) -> list[tuple[tuple[str, float], ...]]:
        """For each sample the shares of its words that are in other languages than the one found."""
        by_language: dict[str, list[int]] = {}
        for index, vote in enumerate(found):
            by_language.setdefault(vote.language, []).append(index)
        shares: list[tuple[tuple[str, float], ...]] = [()] * len(samples)
        for language, indices in by_language.items():
            segments = [samples[index].segments for index in indices]
            asked = [part for parts in segments for part in parts if len(part) >= MIN_SEGMENT_CHARACTERS]
            votes = iter(self._vote(asked, language))
            for index, parts in zip(indices, segments, strict=True):
                characters: Counter[str] = Counter()
                for part in parts:
                    if len(part) >= MIN_SEGMENT_CHARACTERS:
                        vote = next(votes)
                        if vote.language != language and vote.score >= self._settings.sure_score:
                            characters[vote.language] += len(part)
                total = sum(map(len, parts))
                shares[index] = tuple(
                    (code, count / total) for code, count in sorted_by_probability(characters)
                )
        return shares

    def _vote(self, texts: list[str], expected: str | None) -> list[_Found]:
        """One vote for each text, or two where its language needs them."""
        first = self._first.identify(texts)
        needs = [
            index
            for index, ranking in enumerate(first)
            if self._second and self._needs_second({ranking[0][0]} | ({expected} if expected else set()))
        ]
        second = self._second.identify([texts[index] for index in needs]) if self._second and needs else []
        found = [self._found(ranking, expected, ((self._first.name, ranking),)) for ranking in first]
        for index, ranking in zip(needs, second, strict=True):
            found[index] = self._both(first[index], ranking, expected)
        return found

    def _both(self, first: Ranking, second: Ranking, expected: str | None) -> _Found:
        assert self._second is not None
        votes = ((self._first.name, first), (self._second.name, second))
        best = second[0][0]
        if best == NOTHING_READ:
            ranking = first
        elif not _knows(self._first, best):
            ranking = second
        else:
            mean: dict[str, float] = {}
            for code, score in (*first, *second):
                mean[code] = mean.get(code, 0.0) + score / 2
            ranking = sorted_by_probability(mean)
        return self._found(ranking, expected, votes)

    def _found(
        self, ranking: Ranking, expected: str | None, votes: tuple[tuple[str, Ranking], ...]
    ) -> _Found:
        """The best of a ranking; the language expected, if the best is that or hardly any better."""
        language, score = ranking[0]
        if expected:
            own = sum((share for code, share in ranking if names_language(code, expected)), 0.0)
            if own >= score or score - own < self._settings.min_lead:
                language, score = expected, own
        return _Found(language, round(score, 4), votes)


def _knows(engine: Identifier, language: str) -> bool:
    known = engine.known
    return language in known or any(names_language(code, language) for code in known)


def _engine(name: str, settings: LanguageIdSettings) -> Identifier:
    if name == "py3langid":
        return py3langid()
    model = Path(settings.model) if name == "fasttext" and settings.model else None
    return ServedIdentifier(name, model, settings.model_sha256 if model else None)
