"""The swap builds every row from the base's own rows, in both matrices, and leaves all else as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_swap import (
    NEW_VOCABULARY,
    PADDED_ROWS,
    base_tokenizer,
    new_tokenizer,
    reference_pieces,
    save_base,
    save_new,
)
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from normistral.errors import UserError
from normistral.swap import Alignment, mean_rows, swap_vocabulary
from normistral.weights import read_config, read_tensor, tensor_names

EMBEDDINGS, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"


def reference_rows(table_VD: Tensor) -> Tensor:
    """Every new row in float64, one at a time."""
    table_VD = table_VD.double()
    pieces = reference_pieces(base_tokenizer(), new_tokenizer())
    pieces |= {0: [1], 1: [3], 2: [0], 3: [2]}
    rows = []
    for token_id in range(NEW_VOCABULARY):
        chosen = pieces.get(token_id) or list(range(len(table_VD)))
        rows.append(torch.stack([table_VD[base_id] for base_id in chosen]).mean(0))
    return torch.stack(rows)


def swap(tmp_path: Path, tied: bool, dtype: torch.dtype = torch.float32, mask: bool = False) -> Path:
    save_base(tmp_path / "base", tied, dtype, mask)
    save_new(tmp_path / "tokenizer")
    swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("tied", [True, False])
def test_rows_equal_a_slow_reference_in_float64(tmp_path: Path, tied: bool) -> None:
    output = swap(tmp_path, tied)
    for name in (EMBEDDINGS,) if tied else (EMBEDDINGS, LM_HEAD):
        expected = reference_rows(read_tensor(tmp_path / "base", name))
        found = read_tensor(output, name)
        assert found.shape == (NEW_VOCABULARY, 32)
        assert (found.double() - expected).abs().max() < 1e-6, name


def test_input_embeddings_and_head_are_built_from_their_own_matrices(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=False)
    assert not torch.allclose(read_tensor(output, EMBEDDINGS), read_tensor(output, LM_HEAD), atol=0.1)


def test_a_tied_model_has_one_matrix_before_and_after(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=True)
    assert LM_HEAD not in tensor_names(output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_exact_matches_keep_their_row_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    output = swap(tmp_path, tied=False, dtype=dtype)
    base_ids, new_ids = base_tokenizer().get_vocab(), new_tokenizer().get_vocab()
    shared = [(new_ids[token], base_ids[token]) for token in new_ids if token in base_ids]
    assert len(shared) > 100
    new, old = (torch.tensor(ids) for ids in zip(*shared, strict=True))
    for name in (EMBEDDINGS, LM_HEAD):
        found, source = read_tensor(output, name), read_tensor(tmp_path / "base", name)
        assert found.dtype == dtype
        assert torch.equal(found[new], source[old])


def test_means_are_taken_in_float32_and_rounded_once(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=True, dtype=torch.bfloat16)
    expected = reference_rows(read_tensor(tmp_path / "base", EMBEDDINGS))
    agreeing = (read_tensor(output, EMBEDDINGS) == expected.bfloat16()).float().mean()
    assert agreeing > 0.99


def test_no_row_is_read_that_was_already_rewritten(tmp_path: Path) -> None:
    """The released code of NorMistral rewrites the table that it reads; here that gives other rows."""
    output = swap(tmp_path, tied=True)
    source = read_tensor(tmp_path / "base", EMBEDDINGS)
    in_place = source.clone()
    pieces = reference_pieces(base_tokenizer(), new_tokenizer())
    for token_id in range(16, PADDED_ROWS):
        if pieces[token_id]:
            in_place[token_id] = in_place[pieces[token_id]].mean(0)
    found = read_tensor(output, EMBEDDINGS)[16:PADDED_ROWS]
    assert (found - in_place[16:]).abs().max() > 0.1, "this case could not tell the two apart"
    assert (found - reference_rows(source)[16:PADDED_ROWS]).abs().max() < 1e-6


def test_the_base_is_left_as_it_was(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tied=False)
    save_new(tmp_path / "tokenizer")
    before = {file: file.read_bytes() for file in (tmp_path / "base").iterdir()}
    swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", tmp_path / "out")
    assert before == {file: file.read_bytes() for file in (tmp_path / "base").iterdir()}


@pytest.mark.parametrize("tied", [True, False])
def test_every_other_tensor_is_the_same_bytes(tmp_path: Path, tied: bool) -> None:
    output = swap(tmp_path, tied, torch.bfloat16)
    names = set(tensor_names(tmp_path / "base"))
    assert set(tensor_names(output)) == names
    for name in names - {EMBEDDINGS, LM_HEAD}:
        assert torch.equal(read_tensor(output, name), read_tensor(tmp_path / "base", name)), name


def test_the_special_tokens_start_from_those_that_do_the_same(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=True)
    new, old = read_tensor(output, EMBEDDINGS), read_tensor(tmp_path / "base", EMBEDDINGS)
    assert torch.equal(new[:4], old[[1, 3, 0, 2]])  # unk, bos, eos, pad of the base
    for reserved in range(4, 16):
        assert torch.allclose(new[reserved], old.mean(0), atol=1e-6)


def test_a_mask_token_of_the_base_is_taken_over(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=True, mask=True)
    new, old = read_tensor(output, EMBEDDINGS), read_tensor(tmp_path / "base", EMBEDDINGS)
    assert torch.equal(new[4], old[4])


def test_the_config_changes_in_what_the_vocabulary_decides(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=False, dtype=torch.bfloat16)
    before, after = read_config(tmp_path / "base"), read_config(output)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed == {"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"}
    assert after["vocab_size"] == NEW_VOCABULARY
    assert (after["bos_token_id"], after["eos_token_id"], after["pad_token_id"]) == (1, 2, 3)
    assert after["dtype"] == "bfloat16"


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_the_swapped_folder(tmp_path: Path, tied: bool) -> None:
    output = swap(tmp_path, tied)
    model = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    ids = tokenizer("Hovedstaden i Norge", return_tensors="pt").input_ids
    assert ids[0].tolist() == new_tokenizer().encode("Hovedstaden i Norge").ids
    assert model(ids).logits.shape == (1, ids.shape[1], NEW_VOCABULARY)


@pytest.mark.parametrize("tied", [True, False])
def test_the_report_counts_what_was_done(tmp_path: Path, tied: bool) -> None:
    model = save_base(tmp_path / "base", tied)
    save_new(tmp_path / "tokenizer")
    report = swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", tmp_path / "out")
    assert report.vocabulary == NEW_VOCABULARY
    assert report.base_vocabulary == PADDED_ROWS
    assert report.tied == tied
    assert report.head_rows == (0 if tied else NEW_VOCABULARY)
    assert report.parameters_before == model.num_parameters()
    tables = 1 if tied else 2
    assert report.parameters_after == model.num_parameters() + tables * 32 * (NEW_VOCABULARY - PADDED_ROWS)
    assert 0.5 < report.exact_match_share < 1
    assert 1 < report.mean_pieces < 3


def test_the_same_call_makes_the_same_bytes(tmp_path: Path) -> None:
    output = swap(tmp_path, tied=False)
    first = {file.name: file.read_bytes() for file in output.iterdir()}
    swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", output)
    assert first == {file.name: file.read_bytes() for file in output.iterdir()}


def test_rows_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    table_VD = torch.randn(50, 8)
    pieces = tuple(tuple(torch.randint(0, 50, (n % 5,)).tolist()) for n in range(100))
    alignment = Alignment(base_tokenizer(), new_tokenizer(), pieces, frozenset())
    whole = mean_rows(table_VD, alignment)
    monkeypatch.setattr("normistral.swap.mean.CHUNK_TOKENS", 7)
    assert torch.allclose(mean_rows(table_VD, alignment), whole, atol=1e-6)


def test_a_tokenizer_with_more_tokens_than_rows_is_refused() -> None:
    alignment = Alignment(base_tokenizer(), new_tokenizer(), ((60,),), frozenset())
    with pytest.raises(UserError, match="id 60 and its weights only 50 rows"):
        mean_rows(torch.zeros(50, 8), alignment)


def test_a_base_without_safetensors_is_refused(tmp_path: Path) -> None:
    save_base(tmp_path / "base")
    save_new(tmp_path / "tokenizer")
    for file in (tmp_path / "base").glob("*safetensors*"):
        file.rename(file.with_name(file.name + ".bin"))
    with pytest.raises(UserError, match=r"has no model\.safetensors.*only pickled weights"):
        swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["base", ".", "tokenizer"])
def test_no_input_is_overwritten(tmp_path: Path, output: str) -> None:
    save_base(tmp_path / "base")
    save_new(tmp_path / "tokenizer")
    with pytest.raises(UserError, match=r"would overwrite|holds other things"):
        swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", tmp_path / output)
    assert load_file(next((tmp_path / "base").glob("*.safetensors")))
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    save_base(tmp_path / "base")
    save_new(tmp_path / "tokenizer")
    base, tokenizer, output = (tmp_path / name for name in ("base", "tokenizer", "out"))
    with pytest.raises(UserError, match=r"swap\.method is 'magic': expected one of mean"):
        swap_vocabulary(base, tokenizer, output, method="magic")
    with pytest.raises(UserError, match="nowhere does not exist"):
        swap_vocabulary(tmp_path / "nowhere", tokenizer, output)
    with pytest.raises(UserError, match="nowhere does not exist"):
        swap_vocabulary(base, tmp_path / "nowhere", output)
    with pytest.raises(UserError, match=r"no special token is its mask .* tokenizer\.mode is extend or keep"):
        swap_vocabulary(base, base, output)
    config = json.loads((base / "config.json").read_text()) | {"model_type": "gpt_neox"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="architecture 'gpt_neox'"):
        swap_vocabulary(base, tokenizer, output)
    config |= {"model_type": "llama", "tie_word_embeddings": False}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no tensor lm_head\.weight"):
        swap_vocabulary(base, tokenizer, output)
