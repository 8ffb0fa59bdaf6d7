"""Sentence embeddings: mean of bidirectional states, the same in sentence-transformers, nearest sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from normistral.errors import UserError
from normistral.inference import LoadedModel, embed, load, nearest, save_sentence_transformer

TEXTS = ["Oslo er hovedstaden i Norge.", "Hei", "En søt lundefugl flyr over de vakre norske fjorder."]


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_embedding_is_the_mean_of_the_bidirectional_states(tiny: LoadedModel, batch_size: int) -> None:
    vectors = embed(tiny, TEXTS, batch_size=batch_size, normalise=False)
    assert (vectors.shape, vectors.dtype) == ((3, 64), torch.float32)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([tiny.tokenizer(text).input_ids])
        with torch.inference_mode():
            states = tiny.model.model(ids, is_causal=False).last_hidden_state[0]
        torch.testing.assert_close(vector, states.mean(0), atol=1e-4, rtol=0)
    assert embed(tiny, TEXTS).norm(dim=-1).tolist() == pytest.approx([1.0] * 3)


def test_what_follows_a_word_is_seen_in_its_embedding_whatever_the_mode(tiny_model_folder: Path) -> None:
    causal, bidirectional = (
        load(tiny_model_folder, mode="causal"),
        load(tiny_model_folder, mode="bidirectional"),
    )
    assert torch.equal(embed(causal, TEXTS), embed(bidirectional, TEXTS))


def test_sentence_transformers_opens_the_folder_bidirectional_and_gives_the_same_vectors(
    tiny: LoadedModel, tiny_model_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "sentences"
    save_sentence_transformer(tiny_model_folder, folder)
    model = SentenceTransformer(str(folder), device="cpu")
    torch.testing.assert_close(torch.tensor(model.encode(TEXTS)), embed(tiny, TEXTS), atol=1e-5, rtol=0)
    # The trap: without `is_causal` in the config, the usual way of asking is silently ignored.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config.pop("is_causal") is False
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ignored = SentenceTransformer(str(folder), device="cpu", config_kwargs={"is_causal": False})
    difference = (torch.tensor(ignored.encode(TEXTS)) - embed(tiny, TEXTS)).abs().max()
    assert difference > 0.01, "sentence-transformers has learned to listen: simplify the docs"


def test_an_encoder_in_a_sentence_folder_needs_no_option(tiny_model_folder: Path, tmp_path: Path) -> None:
    save_sentence_transformer(tiny_model_folder, tmp_path / "sentences", normalise=False)
    assert AutoConfig.from_pretrained(tmp_path / "sentences").is_causal is False
    encoder = AutoModel.from_pretrained(tmp_path / "sentences")
    ids, changed = torch.tensor([[20, 21, 22]]), torch.tensor([[20, 21, 40]])
    with torch.inference_mode():
        assert not torch.equal(encoder(ids)[0][0, 0], encoder(changed)[0][0, 0])
    assert not (tmp_path / "sentences" / "2_Normalize").exists()


def test_the_nearest_sentence_to_a_sentence_is_itself(tiny: LoadedModel) -> None:
    vectors = embed(tiny, TEXTS)
    found = nearest(embed(tiny, [TEXTS[1]])[0], vectors, TEXTS, count=2)
    assert (found[0].text, found[0].number) == (TEXTS[1], 1)
    assert found[0].similarity == pytest.approx(1.0, abs=1e-4)
    assert found[0].similarity > found[1].similarity
    assert len(nearest(vectors[0], vectors, TEXTS, count=99)) == 3


def test_what_cannot_be_embedded_is_named(tiny: LoadedModel, tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^text 2: the text is empty"):
        embed(tiny, ["Oslo", " \n"])
    with pytest.raises(UserError, match="context 128"):
        embed(tiny, ["Oslo " * 200])
    assert embed(tiny, ["Oslo " * 200], truncate=True).shape == (1, 64)
    with pytest.raises(UserError, match="0 nearest"):
        nearest(torch.zeros(2), torch.zeros(1, 2), ["a"], count=0)
    with pytest.raises(UserError, match="exists already"):
        save_sentence_transformer(tiny_model_folder, tmp_path)
    with pytest.raises(UserError, match="no model folder"):
        save_sentence_transformer(tmp_path, tmp_path / "out")
