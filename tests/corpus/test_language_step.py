from __future__ import annotations

import importlib.util
import pickle
from dataclasses import replace
from typing import Any

import pytest
from language_samples import ENG, NNO, NOB, SME, SRP_CYRILLIC, SRP_LATIN, needs_heliport
from pydantic import ValidationError

from normistral.corpus.documents import Document
from normistral.corpus.language_id import LanguageVotes, votes
from normistral.corpus.language_id.identifier import Ranking
from normistral.corpus.steps.language import LanguageIdentification
from normistral.errors import UserError
from normistral.recipe.language_id import LanguageIdSettings

LULE_SAMI = (
    "Mån lev riegádam Jåhkåmåhken ja bajássjaddam boatsojsujttárij gaskan. Dálla mån årov Bådådjon gånnå lev "
    "åhpadiddjen. Sámegiella le muv iednegiella, ja muv máná ságasti dav juohkka biejve sijdan ja skåvlån.\n"
)


class Fixed:
    """An engine that answers by what a text begins with."""

    def __init__(self, name: str, known: set[str], answers: dict[str, Ranking]) -> None:
        self.name = name
        self.known = frozenset(known)
        self.asked: list[str] = []
        self._answers = answers

    def identify(self, texts: list[str]) -> list[Ranking]:
        self.asked += texts
        return [self._answers[text.split()[0]] for text in texts]


def document(text: str, number: int = 0, language: str = "nob") -> Document:
    return Document(str(number), text, "letters", language, "prose", "CC0-1.0")


def step(language: str = "nob", languages: tuple[str, ...] = (), **settings: Any) -> LanguageIdentification:
    return LanguageIdentification(LanguageIdSettings(**settings), language, languages or (language,))


def fate(judged: Document) -> str:
    return judged.dropped.rule if judged.dropped else judged.language


def fates(judge: LanguageIdentification, *texts: str) -> list[str]:
    documents = [document(text, row, judge._language) for row, text in enumerate(texts)]
    return [fate(judged) for judged in judge.apply(documents)]


def with_engines(monkeypatch: pytest.MonkeyPatch, first: Fixed, second: Fixed) -> None:
    engines = {"py3langid": first, "heliport": second}
    monkeypatch.setattr(votes, "_engine", lambda name, settings: engines[name])


def test_documents_in_the_language_are_kept_with_their_score_and_others_dropped() -> None:
    judge = step()
    kept, nynorsk, english = judge.apply([document(NOB), document(NNO), document(ENG)])
    assert kept == replace(document(NOB), language_score=kept.language_score, steps=("language",))
    assert kept.language_score is not None
    assert kept.language_score > 0.95
    assert nynorsk.dropped is not None
    assert nynorsk.dropped.rule == "other_language"
    assert nynorsk.dropped.detail.startswith("nno (py3langid: nno 0.9")
    assert english.dropped is not None
    assert english.dropped.detail.startswith("eng (")
    assert judge.counts.dropped == {"other_language": 2}


def test_one_by_one_and_together_are_the_same() -> None:
    documents = [document(text) for text in (NOB, NNO, ENG, NOB + ENG, "Hei!", NOB[:210])]
    together = step().judge_batch(documents)
    assert [step().judge(one) for one in documents] == together


def test_relabelled_documents_go_to_languages_of_the_recipe_alone() -> None:
    judge = step("nob", ("nob", "nno", "code"), on_mismatch="relabel")
    assert fates(judge, NNO, ENG, NOB) == ["nno", "other_language", "nob"]


def test_a_document_partly_in_another_language_is_mixed() -> None:
    mixed = NOB + ENG
    assert fates(step(), mixed) == ["mixed"]
    assert fates(step(max_minority=0.6), mixed) == ["nob"]
    assert fates(step(), NOB * 3 + ENG) == ["nob"]
    (judged,) = step().apply([document(mixed)])
    assert judged.dropped is not None
    assert judged.dropped.detail.startswith("eng ")


def test_nynorsk_passages_in_bokmaal_are_seen_by_lines() -> None:
    nynorsk = (
        "Ho veit ikkje korleis dei tenkjer å gjere det, men ho håpar at nokon av dei høyrer på kva foreldra "
        "seier om vegen til skulen, som er lang og mørk for dei minste borna.\n"
    )
    (judged,) = step(max_minority=0.2).apply([document(NOB + nynorsk)])
    assert judged.dropped is not None
    assert judged.dropped.rule == "mixed"
    assert judged.dropped.detail.startswith("nno ")


def test_a_passage_inside_a_long_paragraph_counts_too() -> None:
    paragraph = " ".join([NOB, NOB, ENG, ENG, NOB]).replace("\n", " ")
    assert fates(step(max_minority=0.3), paragraph) == ["mixed"]


def test_short_documents_are_trusted_unless_another_language_is_sure() -> None:
    english = "The building costs too much to keep, and the children will be better off in the new school."
    assert fates(step(), "Hei på deg!", "12 34", "", english) == ["nob", "nob", "nob", "other_language"]
    assert fates(step(short_documents="drop"), "Hei på deg!", "", english) == [
        "short",
        "short",
        "other_language",
    ]


def test_short_means_few_words_not_few_characters() -> None:
    addresses = "https://example.no/index.php?id=1234 " * 30
    (judged,) = step().apply([document(addresses + "Se lenkene.")])
    assert judged.dropped is None
    assert judged.language_score is None


def test_names_and_lists_do_not_outweigh_the_source() -> None:
    names = "Til stede: Kari Hansen, Ola Nilsen, Per Olsen, Berit Larsen, Anne Johansen, Nils Persen. " * 3
    found = LanguageVotes(LanguageIdSettings(), ("dan",)).judge([names], "dan")[0]
    assert found.language == "dan"
    assert LanguageVotes(LanguageIdSettings(), ("dan",)).judge([names])[0].language != "dan"


def test_a_language_that_is_hardly_likely_is_dropped_by_score(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"own": [("nob", 0.2), ("dan", 0.1)], "other": [("eng", 0.25), ("nob", 0.01)]}
    with_engines(
        monkeypatch, Fixed("py3langid", {"nob", "dan", "eng"}, answers), Fixed("heliport", set(), {})
    )
    texts = ["own " * 60, "other " * 60]
    assert fates(step(), *texts) == ["low_score", "low_score"]
    assert fates(step(min_score=0.0), *texts) == ["nob", "other_language"]


def test_a_script_that_the_language_names_is_looked_at() -> None:
    assert fates(step("srp_Cyrl"), SRP_CYRILLIC, SRP_LATIN) == ["srp_Cyrl", "script"]


def test_a_macrolanguage_and_its_standard_are_the_same_language() -> None:
    estonian = (
        "Linnavolikogu otsustas eile, et vana koolimaja jõe ääres lammutatakse. Vanemad ei ole rahul ja mitu "
        "neist ütlevad, et nad kavatsevad kaevata. Linnapea arvab, et hoone ülalpidamine on liiga kallis ja "
        "et lastel on uues koolis parem.\n"
    )
    for code in ("est", "ekk"):
        (judged,) = step(code).apply([document(estonian, language=code)])
        assert (judged.dropped, judged.language) == (None, code)


@needs_heliport
def test_lule_sami_passes_as_northern_sami_only_without_the_second_vote() -> None:
    assert fates(step("sme", second_vote="off"), SME, LULE_SAMI)[1] != "other_language"
    judge = step("sme")
    kept, sibling = judge.apply([document(SME, language="sme"), document(LULE_SAMI, language="sme")])
    assert kept.dropped is None
    assert sibling.dropped is not None
    assert sibling.dropped.detail.startswith("smj (py3langid: sme ")
    assert "heliport: smj " in sibling.dropped.detail


@needs_heliport
def test_a_language_that_only_the_second_engine_knows_is_judged_by_it() -> None:
    judged = list(step("smj").apply([document(LULE_SAMI, language="smj"), document(SME, language="smj")]))
    assert [fate(one) for one in judged] == ["smj", "other_language"]


@needs_heliport
def test_a_northern_sami_document_of_another_source_needs_both_votes_before_it_is_relabelled() -> None:
    judge = step("nob", ("nob", "sme"), on_mismatch="relabel")
    assert fates(judge, SME, LULE_SAMI) == ["sme", "other_language"]


def test_without_heliport_a_sami_source_is_refused_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"pip install 'normistral\[heliport\]'.*documents in sme.*second_vote: off"
    ):
        step("sme")
    with pytest.raises(UserError, match="documents in smj"):
        step("smj")
    with pytest.raises(UserError, match="documents in sme"):
        step("nob", ("nob", "sme"), on_mismatch="relabel")
    assert fates(step("nob", ("nob", "sme")), NOB, SME) == ["nob", "other_language"]
    assert fates(step("sme", second_vote="off"), SME) == ["sme"]


def test_a_language_that_no_engine_knows_is_refused() -> None:
    with pytest.raises(UserError, match="py3langid does not know 'qaa'.*switch language_id off"):
        step("qaa", second_vote="off")
    with pytest.raises(UserError, match="does not know 'code'"):
        step("code", second_vote="off")


def test_engines_that_differ_are_averaged_but_a_language_new_to_the_first_is_the_seconds_to_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Fixed(
        "py3langid",
        {"sme", "fin", "nob"},
        {word: [("sme", 0.9), ("fin", 0.1)] for word in ("agreed", "doubted", "denied", "sibling", "blank")}
        | {"finnish": [("fin", 1.0)]},
    )
    second = Fixed(
        "heliport",
        {"sme", "smj", "fin", "nob"},
        {
            "agreed": [("sme", 0.7), ("smj", 0.3)],
            "doubted": [("fin", 0.6), ("sme", 0.4)],
            "denied": [("nob", 1.0)],
            "sibling": [("smj", 0.8), ("sme", 0.2)],
            "blank": [("und", 0.0)],
        },
    )
    with_engines(monkeypatch, first, second)
    both = LanguageVotes(LanguageIdSettings(), ("sme",))
    texts = [f"{word} " * 60 for word in ("agreed", "doubted", "denied", "sibling", "blank", "finnish")]
    found = [(one.language, one.score) for one in both.judge(texts)]
    assert found == [("sme", 0.8), ("sme", 0.65), ("nob", 0.5), ("smj", 0.8), ("sme", 0.9), ("fin", 1.0)]
    assert not any(text.startswith("finnish") for text in second.asked)
    assert both.judge(texts[2:3], "sme")[0].language == "sme"  # 0.45 against 0.5: the source decides


def test_a_second_vote_can_be_asked_for_other_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Fixed("py3langid", {"nob", "sme"}, {"lule": [("nob", 0.8), ("sme", 0.2)]})
    second = Fixed("heliport", {"nob", "smj", "sme"}, {"lule": [("smj", 1.0)]})
    with_engines(monkeypatch, first, second)
    text = "lule " * 60
    assert LanguageVotes(LanguageIdSettings(), ("nob",)).judge([text], "nob")[0].language == "nob"
    asked = LanguageVotes(LanguageIdSettings(second_vote_for=("nob",)), ("nob",))
    assert asked.judge([text], "nob")[0].language == "smj"


def test_documents_without_a_source_are_judged_from_their_least_length_on() -> None:
    judge = LanguageVotes(LanguageIdSettings(second_vote="off"), ("nob",)).judge
    assert [one.language for one in judge([NOB, NOB[:150], "Hei"])] == ["nob", "und", "und"]


def test_a_step_can_be_sent_to_another_process() -> None:
    assert fates(pickle.loads(pickle.dumps(step())), NOB, ENG) == ["nob", "other_language"]


def test_a_fasttext_engine_needs_its_model() -> None:
    with pytest.raises(ValidationError, match=r"give its path in language_id\.model"):
        LanguageIdSettings(engine="fasttext")
    assert LanguageIdSettings(engine="fasttext", enabled=False).model is None
