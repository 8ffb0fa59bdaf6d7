"""Every method's rows: what they promise on small vocabularies, tied and untied."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_swap import NORWEGIAN, base_tokenizer, new_tokenizer, save_base, save_new
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from normistral.errors import UserError
from normistral.model import AttentionLayout
from normistral.recipe import SwapSettings
from normistral.swap import METHODS, Alignment, SwapInput, SwapReport, align, mean_rows, swap_vocabulary
from normistral.swap.calibration import calibrate, token_shares
from normistral.swap.composition import composed_rows, composition_flops, known_compositions
from normistral.swap.distillation import pair_up
from normistral.swap.focus import focused_rows, sparsemax
from normistral.swap.run_model import load_body, windows
from normistral.swap.token_vectors import token_vectors
from normistral.tokenizer import TokenRoles, find_roles
from normistral.weights import read_config, read_tensor
from normistral.weights.model_folder import EMBEDDINGS, LM_HEAD

TEXTS = {"nob": NORWEGIAN * 20}
WITH_TEXT = ("focus", "calibrated", "distilled")
QUICK = SwapSettings(calibration_tokens=200, distillation_tokens=3000, distillation_learning_rate=1e-2)


def swap(
    tmp_path: Path, method: str, tied: bool = True, dtype: torch.dtype = torch.float32, seed: int = 1
) -> tuple[Path, SwapReport]:
    base, tokenizer, output = (tmp_path / name for name in ("base", "tokenizer", f"out-{method}-{seed}"))
    if not base.exists():
        save_base(base, tied, dtype)
        save_new(tokenizer)
    report = swap_vocabulary(base, tokenizer, output, method, texts=TEXTS, settings=QUICK, seed=seed)
    return output, report


def ids_of_both() -> tuple[Tensor, Tensor, Tensor]:
    """New and base ids of equal ordinary tokens, and new ids of tokens that the base has only in pieces."""
    base, new = base_tokenizer().get_vocab(), new_tokenizer().get_vocab()
    shared = sorted((new[token], base[token]) for token in new if token in base and new[token] >= 16)
    others = sorted(new[token] for token in new if token not in base and new[token] >= 16)
    both = torch.tensor(shared)
    return both[:, 0], both[:, 1], torch.tensor(others)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_makes_both_tables_and_nothing_else(tmp_path: Path, method: str, tied: bool) -> None:
    output, report = swap(tmp_path, method, tied)
    before = {n: t for f in (tmp_path / "base").glob("*.safetensors") for n, t in load_file(f).items()}
    after = {n: t for f in output.glob("*.safetensors") for n, t in load_file(f).items()}
    assert set(before) == set(after)
    assert report.method == method
    for name, tensor in after.items():
        if name in (EMBEDDINGS, LM_HEAD):
            assert tensor.shape == (new_tokenizer().get_vocab_size(), 32)
            assert tensor.isfinite().all()
            assert tensor.dtype == before[name].dtype
        else:
            assert torch.equal(tensor, before[name]), name
    if not tied:
        assert not torch.allclose(after[EMBEDDINGS], after[LM_HEAD], atol=0.1)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_same_call_of_every_method_makes_the_same_bytes(tmp_path: Path, method: str) -> None:
    output, first = swap(tmp_path, method, tied=False)
    bytes_of = {file.name: file.read_bytes() for file in output.iterdir()}
    _, second = swap(tmp_path, method, tied=False)
    assert bytes_of == {file.name: file.read_bytes() for file in output.iterdir()}
    assert first == second


@pytest.mark.parametrize("method", ["composition", "focus", "random"])
def test_tokens_that_the_base_has_keep_their_rows_to_the_bit(tmp_path: Path, method: str) -> None:
    output, _ = swap(tmp_path, method, tied=False, dtype=torch.bfloat16)
    new, old, others = ids_of_both()
    for name in (EMBEDDINGS, LM_HEAD):
        found, source = read_tensor(output, name), read_tensor(tmp_path / "base", name)
        assert torch.equal(found[new], source[old])
        assert torch.equal(found[:4], source[[1, 3, 0, 2]]), "special tokens by their roles"
        assert len(others) > 0


@pytest.mark.parametrize("method", WITH_TEXT)
def test_methods_that_learn_from_text_ask_for_it_and_say_what_they_read(tmp_path: Path, method: str) -> None:
    _, report = swap(tmp_path, method)
    assert report.text_bytes == sum(len(text.encode()) for text in TEXTS["nob"])
    assert report.flops > 0
    assert (report.model_tokens > 0) == (method != "focus")
    with pytest.raises(UserError, match=f"'{method}' learns from text and got none"):
        swap_vocabulary(tmp_path / "base", tmp_path / "tokenizer", tmp_path / "without", method)
    assert not (tmp_path / "without").exists()


def test_random_rows_depend_on_the_seed_and_lie_where_the_bases_lie(tmp_path: Path) -> None:
    first, _ = swap(tmp_path, "random", seed=1)
    second, _ = swap(tmp_path, "random", seed=2)
    _, _, others = ids_of_both()
    one, two = (read_tensor(folder, EMBEDDINGS)[others] for folder in (first, second))
    source = read_tensor(tmp_path / "base", EMBEDDINGS)
    assert not torch.equal(one, two)
    drawn = torch.cat([one, two])
    assert drawn.std() == pytest.approx(source.std().item(), rel=0.3)


# --- composition
# ------------------------------------------------------------------------------------------------------


def additive_base(size: int) -> Tokenizer:
    """A byte-level BPE of two-letter and four-letter tokens."""
    letters = [chr(code) for code in range(ord("A"), ord("z") + 1) if chr(code).isalpha()]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    pairs = [(a, b) for a in letters for b in letters if a != b]
    doubles = pairs[:: max(1, len(pairs) // size)][:size]
    for left, right in doubles:
        vocabulary[left + right] = len(vocabulary)
        merges.append((left, right))
    for (a, b), (c, d) in zip(doubles, reversed(doubles), strict=True):
        if a + b != c + d:
            vocabulary[a + b + c + d] = len(vocabulary)
            merges.append((a + b, c + d))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_the_bases_tokens_are_taken_apart_into_what_they_spell() -> None:
    base = base_tokenizer()
    spelt = {token_id: token for token, token_id in base.get_vocab().items()}
    found = known_compositions(base)
    assert len(found[2]) > 30
    for count, examples in found.items():
        for example in examples:
            assert len(example.pieces) == count
            assert "".join(spelt[piece] for piece in example.pieces) == spelt[example.token]


def test_composition_learns_what_a_mean_cannot_say() -> None:
    """Rows that are the first piece's, turned, plus half the last's: known for some, predicted for others."""
    base, width = additive_base(600), 8
    generator = torch.Generator().manual_seed(0)
    turn_DD = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    examples = known_compositions(base)
    table_VD = torch.randn(base.get_vocab_size(), width, generator=generator)
    pair_of = {example.token: example.pieces for example in examples[2]}
    for token, (left, right) in sorted(pair_of.items()):  # parts come before wholes
        table_VD[token] = table_VD[left] @ turn_DD + 0.5 * table_VD[right]
    held = dict(list(pair_of.items())[::10])
    examples = {
        count: [example for example in some if example.token not in held] for count, some in examples.items()
    }
    alignment = Alignment(base, base, tuple(held.values()), frozenset(), frozenset())
    truth_WD = table_VD[list(held)]
    composed = (composed_rows(table_VD, alignment, examples) - truth_WD).square().mean()
    averaged = (mean_rows(table_VD, alignment) - truth_WD).square().mean()
    assert composed < 0.2 * averaged
    assert composition_flops(alignment, examples, width) > 0


def test_a_vocabulary_too_small_to_learn_from_gives_means() -> None:
    table_VD = torch.randn(base_tokenizer().get_vocab_size(), 512)
    base, new = base_tokenizer(), new_tokenizer()
    alignment = align(base, new, find_roles(base, {}, {}, base.get_vocab_size()))
    examples = known_compositions(base)
    assert torch.equal(composed_rows(table_VD, alignment, examples), mean_rows(table_VD, alignment))


# --- focus
# ------------------------------------------------------------------------------------------------------------


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    scores = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    weights = sparsemax(scores)
    assert torch.allclose(weights.sum(1), torch.ones(50))
    assert (weights >= 0).all()
    assert (weights == 0).any()
    for _ in range(20):
        other = torch.rand(50, 7).pow(3)
        other /= other.sum(1, keepdim=True)
        assert ((weights - scores).square().sum(1) <= (other - scores).square().sum(1) + 1e-6).all()


def test_tokens_used_alike_get_vectors_alike() -> None:
    new = new_tokenizer()
    # Words of one token each: two that stand between the same others, and two that stand elsewhere.
    words = sorted(
        token.replace("Ġ", " ") for token in new.get_vocab() if token[0] == "Ġ" and token[1:].isascii()
    )
    left, one, two, right, other, last = [word for word in words if len(word) > 1][:6]
    texts = [left + one + right, left + two + right, other + last + other] * 20
    vectors, flops = token_vectors(texts, new, new.get_vocab_size(), 16, seed=0)
    lengths = vectors.norm(dim=1)
    assert ((lengths - 1).abs() < 1e-4).logical_or(lengths == 0).all()
    assert flops > 0
    of = {word: vectors[new.encode(word, add_special_tokens=False).ids[0]] for word in (one, two, last)}
    assert of[one] @ of[two] > of[one] @ of[last] + 0.5


def test_a_token_like_another_gets_its_row() -> None:
    base = base_tokenizer()
    pieces = ((5,), (6,), (5, 6), (7, 8))
    alignment = Alignment(base, base, pieces, frozenset({0, 1}), frozenset())
    table_VD = torch.randn(20, 4)
    vectors_WE = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    rows = focused_rows(table_VD, alignment, vectors_WE)
    assert torch.allclose(rows[2], table_VD[5])
    assert torch.allclose(rows[3], table_VD[[7, 8]].mean(0)), "no vector: the mean of its pieces"


# --- calibration and distillation
# -------------------------------------------------------------------------------------


def given_for(tmp_path: Path, tied: bool) -> tuple[SwapInput, dict[str, Tensor]]:
    save_base(tmp_path / "base", tied)
    save_new(tmp_path / "tokenizer")
    base, new, rows = base_tokenizer(), new_tokenizer(), read_tensor(tmp_path / "base", EMBEDDINGS).shape[0]
    base_roles = find_roles(base, {}, read_config(tmp_path / "base"), rows)
    given = SwapInput(
        base=tmp_path / "base",
        alignment=align(base, new, base_roles),
        base_roles=base_roles,
        roles=TokenRoles.of(tmp_path / "tokenizer"),
        tied=tied,
        settings=QUICK.model_copy(update={"calibration_step": 1.0}),
        seed=0,
        texts=TEXTS,
    )
    return given, {name: mean_rows(given.table(name), given.alignment) for name in given.tables}


@pytest.mark.parametrize("tied", [True, False])
def test_calibration_brings_expected_frequencies_near_the_texts(tmp_path: Path, tied: bool) -> None:
    given, tables = given_for(tmp_path, tied)
    before = calibrate(given, tables)
    shifted = tables | {given.head: before.applied(tables[given.head])}
    after = calibrate(given, shifted)
    assert after.divergence < 0.75 * before.divergence
    assert before.bias_W[:16].abs().max() == 0
    assert before.flops > 0
    if not tied:
        assert torch.equal(shifted[EMBEDDINGS], tables[EMBEDDINGS])


def test_token_shares_are_those_of_the_text() -> None:
    new = new_tokenizer()
    ids = new.encode(NORWEGIAN[0], add_special_tokens=False).ids
    shares = token_shares({"nob": [NORWEGIAN[0]] * 50}, new, new.get_vocab_size())
    assert shares.sum() == pytest.approx(1)
    assert shares.argmax() == max(set(ids), key=ids.count)
    assert (shares > 0).all()


def test_windows_share_the_tokens_out_by_bytes_and_say_where_tokens_end() -> None:
    new = new_tokenizer()
    texts = {"much": [NORWEGIAN[0]] * 60, "little": [NORWEGIAN[0]] * 20, "none": []}
    found = list(windows(texts, new, start_id=1, tokens=400, length=20))
    size = {name: sum(len(w.tokens) for w in found if w.source == name) for name in texts}
    assert size["much"] == pytest.approx(300, abs=20)
    assert size["little"] == pytest.approx(100, abs=20)
    for window in found:
        assert window.tokens[0] == 1
        assert len(window.tokens) == len(window.ends) <= 20
        assert new.decode(window.tokens[1:]).strip() == window.text[: window.ends[-1]].strip()


def test_one_long_document_gives_many_windows() -> None:
    found = list(windows({"book": ["".join(NORWEGIAN) * 10]}, new_tokenizer(), 1, tokens=300, length=32))
    assert sum(len(window.tokens) for window in found) == pytest.approx(300, abs=32)
    assert len({window.text for window in found}) > 3


def test_aligned_ends_spell_the_same_text() -> None:
    base, new = base_tokenizer(), new_tokenizer()
    base.normalizer = None  # this one lower-cases, which would hide what is compared
    found = list(windows({"nob": NORWEGIAN}, new, 1, tokens=200, length=40))
    for window, pair in zip(found, pair_up(found, base, 3), strict=True):
        assert pair.new == window.tokens
        assert pair.old[0] == 3
        assert len(pair.aligned) > 3
        for at_new, at_old in pair.aligned:
            spelt = [
                tokenizer.decode(list(ids[1 : at + 1])).strip()
                for tokenizer, ids, at in ((new, pair.new, at_new), (base, pair.old, at_old))
            ]
            assert spelt[0] == spelt[1]


@pytest.mark.parametrize("tied", [True, False])
def test_distillation_lowers_its_loss_and_leaves_the_base_alone(tmp_path: Path, tied: bool) -> None:
    save_base(tmp_path / "base", tied)
    save_new(tmp_path / "tokenizer")
    before = {file: file.read_bytes() for file in (tmp_path / "base").iterdir()}
    output, report = swap(tmp_path, "distilled", tied)
    assert len(report.losses) >= 3
    assert report.losses[-1] < 0.9 * report.losses[0]
    assert before == {file: file.read_bytes() for file in (tmp_path / "base").iterdir()}
    calibrated, _ = swap(tmp_path, "calibrated", tied)
    for name in (EMBEDDINGS,) if tied else (EMBEDDINGS, LM_HEAD):
        assert not torch.equal(read_tensor(output, name), read_tensor(calibrated, name))


def test_the_body_over_the_bases_own_tables_is_the_base(tmp_path: Path) -> None:
    reference = save_base(tmp_path / "base", tied=False)
    tables = {name: read_tensor(tmp_path / "base", name) for name in (EMBEDDINGS, LM_HEAD)}
    model = load_body(tmp_path / "base", tables, "cpu")
    tokens = torch.randint(0, 300, (2, 11), generator=torch.Generator().manual_seed(0))
    found = model(tokens, AttentionLayout.causal())
    assert torch.allclose(found, reference(tokens).logits, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_another_setting_or_text_begins_unfinished_work_anew(tmp_path: Path) -> None:
    output, _ = swap(tmp_path, "calibrated")
    first = read_tensor(output, EMBEDDINGS).clone()
    settings = QUICK.model_copy(update={"calibration_step": 0.1})
    again = swap_vocabulary(
        tmp_path / "base", tmp_path / "tokenizer", output, "calibrated", texts=TEXTS, settings=settings
    )
    assert not torch.equal(first, read_tensor(output, EMBEDDINGS))
    assert dataclasses.asdict(again)["method"] == "calibrated"
