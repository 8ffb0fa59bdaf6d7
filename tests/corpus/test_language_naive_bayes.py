from __future__ import annotations

import pickle
from array import array
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language_samples import ENG, NNO, NOB, SME, SRP_CYRILLIC
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from normistral.corpus.language_id.identifier import Ranking, by_code
from normistral.corpus.language_id.naive_bayes import Automaton, Py3langid, py3langid


@lru_cache
def load_package() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@pytest.fixture
def package() -> LanguageIdentifier:
    return load_package()


def assert_same(found: list[Ranking], package: LanguageIdentifier, texts: list[str]) -> None:
    for text, own in zip(texts, found, strict=True):
        theirs = by_code(package.rank(text))
        for code, score in own:
            assert score == pytest.approx(theirs[code], abs=1e-3)


def test_prose_gets_the_answers_of_the_package(package: LanguageIdentifier) -> None:
    texts = [NOB, NNO, SME * 40, ENG.upper(), SRP_CYRILLIC, "", "12", "a", NOB[:7], SME[:50]]
    assert_same(py3langid().identify(texts), package, texts)
    assert [found[0][0] for found in py3langid().identify(texts[:5])] == ["nob", "nno", "sme", "eng", "srp"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=300), max_size=6))
def test_any_text_gets_the_answers_of_the_package(texts: list[str]) -> None:
    assert_same(py3langid().identify(texts), load_package(), texts)


@settings(deadline=None, max_examples=30)
@given(st.permutations([NOB, NNO[:90], SME * 9, ENG[:33], "", "æøå"]), st.integers(0, 6))
def test_a_text_gets_the_same_answer_to_the_bit_in_any_company(texts: list[str], cut: int) -> None:
    together = py3langid().identify(texts)
    assert together == py3langid().identify(texts[:cut]) + py3langid().identify(texts[cut:])


def test_more_text_than_fits_a_group_is_answered_in_order() -> None:
    texts = [NOB * 900, SME * 900, ENG * 900, NNO]
    assert [found[0][0] for found in py3langid().identify(texts)] == ["nob", "sme", "eng", "nno"]


def test_halves_of_a_pair_are_no_obstacle() -> None:
    assert py3langid().identify([NOB + "\ud800"])[0][0][0] == "nob"


def test_a_copy_for_another_process_carries_no_model() -> None:
    assert len(pickle.dumps(py3langid())) < 200


def test_another_automaton_is_not_trusted_and_the_package_asked_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = py3langid().identify([NOB, SME])
    original = Automaton.__init__

    def shifted(self: Automaton, package: LanguageIdentifier) -> None:
        original(self, package)
        self._prior = self._prior[::-1].copy()

    monkeypatch.setattr(Automaton, "__init__", shifted)
    identifier = Py3langid()
    assert identifier._automaton is None
    for own, other in zip(fast, identifier.identify([NOB, SME]), strict=True):
        assert [code for code, _ in own[:2]] == [code for code, _ in other[:2]]


def test_an_automaton_that_uses_the_parting_byte_is_refused(package: LanguageIdentifier) -> None:
    class Other:
        tk_nextmove = array("I", [1] * 256)
        tk_row = array("H", [0, 0])

    with pytest.raises(ValueError, match="does not lead back"):
        Automaton(Other())
