"""MinHash signatures and band keys: how often similar texts meet, and what may not change it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import zstandard
from dedup_corpora import some_words

from normistral.corpus.dedup import signatures as module
from normistral.corpus.dedup import words as words_module
from normistral.corpus.dedup.signatures import band_keys, signatures, similarity
from normistral.corpus.dedup.words import ngrams_of, words_of
from normistral.recipe import DedupSettings

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
SETTINGS = DedupSettings()


def edited(words: list[str], share: float, seed: int, other: list[str]) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(other) if generator.random() < share else word for word in words)


def jaccard(left: str, right: str) -> float:
    a, b = (set(ngrams_of(words_of([text]).hashes, SETTINGS.ngram_words).tolist()) for text in (left, right))
    return len(a & b) / len(a | b)


def met(left: list[str], right: list[str]) -> np.ndarray:
    """Which pairs have an equal band."""
    (a, _), (b, _) = (signatures(texts, SETTINGS) for texts in (left, right))
    return (band_keys(a, SETTINGS).keys == band_keys(b, SETTINGS).keys).any(axis=1)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1])
def test_pairs_meet_as_often_as_the_bands_promise(share: float) -> None:
    vocabulary = some_words(5000, seed=1)
    originals = [random.Random(seed).choices(vocabulary, k=150) for seed in range(600)]
    left = [" ".join(words) for words in originals]
    right = [edited(words, share, seed, vocabulary) for seed, words in enumerate(originals)]
    similar = np.array([jaccard(*pair) for pair in zip(left, right, strict=True)])
    expected = 1 - (1 - similar**SETTINGS.rows_per_band) ** SETTINGS.bands
    error = np.sqrt((expected * (1 - expected)).sum()) / len(left)
    assert abs(met(left, right).mean() - expected.mean()) <= 4 * error


def test_similarity_is_estimated_without_bias() -> None:
    vocabulary = some_words(5000, seed=1)
    originals = [random.Random(seed).choices(vocabulary, k=150) for seed in range(400)]
    left = [" ".join(words) for words in originals]
    right = [edited(words, 0.05, seed, vocabulary) for seed, words in enumerate(originals)]
    (a, _), (b, _) = (signatures(texts, SETTINGS) for texts in (left, right))
    estimates = similarity(a.astype(np.uint8), b.astype(np.uint8))
    exact = np.array([jaccard(*pair) for pair in zip(left, right, strict=True)])
    assert abs((estimates - exact).mean()) < 0.01
    assert np.abs(estimates - exact).mean() < 0.06


def test_texts_signed_together_have_the_signatures_that_they_have_alone() -> None:
    vocabulary = some_words(50, seed=1)
    texts = [" ".join(random.Random(seed).choices(vocabulary, k=seed)) for seed in range(12)]
    together, signed = signatures(texts, SETTINGS)
    assert signed.tolist() == list(range(5, 12))
    alone = [signatures([text], SETTINGS)[0][0] for text in texts[5:]]
    assert np.array_equal(together, np.array(alone))


def test_a_long_text_has_the_signature_that_it_has_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(random.Random(1).choices(some_words(300, seed=1), k=3000))
    whole, _ = signatures([text], SETTINGS)
    monkeypatch.setattr(module, "SLICE_CHARACTERS", 1000)
    monkeypatch.setattr(words_module, "SLICE_CHARACTERS", 1000)
    sliced, signed = signatures(["kort tekst", text, ""], SETTINGS)
    assert signed.tolist() == [1]
    assert np.array_equal(sliced, whole)


def test_very_long_texts_are_known_by_the_same_share_of_ngrams(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = some_words(5000, seed=1)
    words = random.Random(1).choices(vocabulary, k=20_000)
    text, copy = " ".join(words), edited(words, 0.002, 1, vocabulary)
    monkeypatch.setattr(module, "SLICE_CHARACTERS", 10_000)
    monkeypatch.setattr(words_module, "SLICE_CHARACTERS", 10_000)
    monkeypatch.setattr(module, "MAX_NGRAMS", 2_000)
    (a, _), (b, _) = (signatures([each], SETTINGS) for each in (text, copy))
    assert abs((a == b).mean() - jaccard(text, copy)) < 0.1


def test_bands_with_the_same_values_in_another_place_have_another_key() -> None:
    rows = np.tile(np.arange(SETTINGS.rows_per_band, dtype=np.uint32), (1, SETTINGS.bands))
    keys, checks = band_keys(rows, SETTINGS)
    assert len(np.unique(keys)) == len(np.unique(checks)) == SETTINGS.bands
    swapped = rows.copy()
    swapped[:, :2] = swapped[:, 1::-1]
    assert (band_keys(swapped, SETTINGS).keys != keys).tolist() == [[True, *[False] * (SETTINGS.bands - 1)]]


def test_signatures_are_the_same_on_every_machine() -> None:
    rows, _ = signatures(["Čáhci lea buoremus, dadjá áhkku. 12 000 kroner!"], SETTINGS)
    keys, checks = band_keys(rows, SETTINGS)
    assert rows[0, :3].tolist() == [3415425801, 918887551, 3425958967]
    assert keys[0, :2].tolist() == [12152609821434129773, 11734787120792273469]
    assert checks[0, :2].tolist() == [109218768, 3151466205]


@pytest.mark.skipif(not CORPORA.exists(), reason="needs the shared corpora")
def test_real_texts_with_a_few_words_changed_are_found() -> None:
    texts = []
    for language in ("nob", "sme", "fao"):
        with zstandard.open(CORPORA / f"{language}.valid.jsonl.zst", "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in file]
    originals = [text.split()[:300] for text in texts if len(text.split()) >= 50][:400]
    vocabulary = [word for words in originals for word in words]
    found = [
        met(
            [" ".join(words) for words in originals],
            [edited(words, share, seed, vocabulary) for seed, words in enumerate(originals)],
        ).mean()
        for share in (0.0, 0.01, 0.02)
    ]
    assert found[0] == 1
    assert found[1] > 0.97
    assert found[2] > 0.87
