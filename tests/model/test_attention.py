"""Every backend equals textbook attention in float64, forward and backward, wherever documents lie; none
leaks; and one that cannot run says so."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from normistral.errors import UserError
from normistral.model import AttentionBackend, AttentionLayout, Mistral, ModelConfig
from normistral.model.attention import attend
from normistral.model.attention import products as products_module
from normistral.model.attention import varlen as varlen_module
from normistral.model.attention.documents import DocumentSpans
from normistral.model.attention.layout import _say_once, choose_backend
from normistral.model.attention.products import ProductBlocks
from normistral.model.attention.sdpa import SdpaMask
from normistral.model.attention.varlen import VarlenDocuments
from normistral.recipe import RuntimeSettings

CPU = torch.device("cpu")


def visible(documents_BT: Tensor, bidirectional_B: Tensor) -> Tensor:
    """Who sees whom, [B, T, T], said once more in another way."""
    rows, length = documents_BT.shape
    mask_BTT = torch.zeros(rows, length, length, dtype=torch.bool)
    for row in range(rows):
        for query in range(length):
            for key in range(length):
                same = len(set(documents_BT[row, min(query, key) : max(query, key) + 1].tolist())) == 1
                mask_BTT[row, query, key] = same and (key <= query or bool(bidirectional_B[row]))
    return mask_BTT


def textbook(query: Tensor, key: Tensor, value: Tensor, mask_BTT: Tensor) -> Tensor:
    groups = query.size(1) // key.size(1)
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.einsum("bnqh,bnkh->bnqk", query, key) / query.size(-1) ** 0.5
    scores = scores.masked_fill(~mask_BTT[:, None], float("-inf"))
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("bnqk,bnkh->bnqh", weights, value)


def slow_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    key_boundaries: Tensor,
    longest: int,
    longest_key: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` computes on a GPU, one document after the other."""
    assert boundaries.dtype == torch.int32
    assert torch.equal(boundaries, key_boundaries)
    assert longest == longest_key
    assert enable_gqa == (query.size(1) != key.size(1))
    assert window_size in ((-1, -1), (-1, 0))
    ends = boundaries.tolist()
    assert ends[0] == 0
    assert ends[-1] == query.size(0) == key.size(0)
    mixed = []
    for first, end in pairwise(ends):
        assert 0 < end - first <= longest
        heads = [x[first:end].transpose(0, 1)[None] for x in (query, key, value)]
        triangle = torch.ones(1, end - first, end - first, dtype=torch.bool)
        triangle = triangle.tril() if window_size == (-1, 0) else triangle
        mixed.append(textbook(*heads, triangle)[0].transpose(0, 1))
    return torch.cat(mixed)


@pytest.fixture(autouse=True)
def slow_varlen_instead_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen_module, "varlen_attn", slow_varlen)


def prepared(backend: str, documents_BT: Tensor, bidirectional_B: Tensor, dtype: torch.dtype) -> Any:
    spans = DocumentSpans.of_documents(documents_BT, bidirectional_B)
    match backend:
        case "sdpa":
            return SdpaMask.of_spans(spans, CPU, dtype)
        case "products":
            return ProductBlocks.of_spans(spans, dtype)
        case _:
            return VarlenDocuments.of_spans(spans, CPU)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, int, int]:
    """Documents, modes, query heads, key-value heads and head width."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    packed = draw(st.booleans())
    documents_BT = torch.zeros(rows, length, dtype=torch.long)
    if packed:
        starts = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
        documents_BT = torch.tensor(starts).view(rows, length).long().cumsum(1) % 3
    bidirectional_B = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    if draw(st.booleans()):
        bidirectional_B = bidirectional_B.sort().values
    key_value_heads = draw(st.integers(1, 3))
    return (
        documents_BT,
        bidirectional_B,
        key_value_heads * draw(st.integers(1, 3)),
        key_value_heads,
        draw(st.sampled_from([4, 6, 16])),
    )


def heads_of(
    rows: int, length: int, heads: int, kv_heads: int, width: int, dtype: torch.dtype
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows * length + heads)
    return [
        # The heads of a position beside each other, as the projections leave them.
        torch.randn(rows, length, count, width, generator=generator, dtype=torch.float64)
        .to(dtype)
        .transpose(1, 2)
        .requires_grad_()
        for count in (heads, kv_heads, kv_heads)
    ]


def with_gradients(mixed: Tensor, heads: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, mixed.numel(), dtype=torch.float64).view(mixed.shape).to(mixed.dtype)
    return [mixed.detach(), *torch.autograd.grad((mixed * weights).sum(), heads)]


@pytest.mark.parametrize("backend", ["sdpa", "products", "varlen"])
@given(batch=batches(), block=st.sampled_from([3, 16, 64]), kept=st.booleans(), joined=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_output_and_gradients_equal_the_textbooks_in_float64(
    backend: str, batch: tuple[Tensor, Tensor, int, int, int], block: int, kept: bool, joined: bool
) -> None:
    documents_BT, bidirectional_B, query_heads, key_value_heads, width = batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products_module, "QUERIES", block)
        patch.setattr(products_module, "LONGEST_KEPT", 1024 if kept else 0)
        patch.setattr(products_module, "LONGEST_JOINED", 512 if joined else 0)
        heads = heads_of(*documents_BT.shape, query_heads, key_value_heads, width, torch.float64)
        layout = prepared(backend, documents_BT, bidirectional_B, torch.float64)
        ours = with_gradients(attend(*heads, layout), heads)
    exact = with_gradients(textbook(*heads, visible(documents_BT, bidirectional_B)), heads)
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("backend", ["sdpa", "products", "varlen"])
def test_in_lower_precision_it_is_as_exact_as_that_precision(
    backend: str, dtype: torch.dtype, tolerance: float
) -> None:
    documents_BT = (torch.arange(150) // torch.tensor([[150], [40], [61]])).long()
    bidirectional_B = torch.tensor([False, False, True])
    heads = heads_of(3, 150, 6, 2, 16, dtype)
    ours = with_gradients(attend(*heads, prepared(backend, documents_BT, bidirectional_B, dtype)), heads)
    doubles = [x.detach().double().requires_grad_() for x in heads]
    exact = with_gradients(textbook(*doubles, visible(documents_BT, bidirectional_B)), doubles)
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= tolerance * other.norm()


def test_one_document_sequences_need_no_mask() -> None:
    one_BT = torch.zeros(4, 9, dtype=torch.long)
    for modes in ([False] * 4, [True] * 4, [False, False, False, True]):
        mask = prepared("sdpa", one_BT, torch.tensor(modes), torch.float32)
        assert mask.bias_B1TT is None
        assert mask.causal_rows == modes.count(False)
    assert (
        prepared("sdpa", one_BT, torch.tensor([True, False, True, False]), torch.float32).bias_B1TT
        is not None
    )


def test_products_skip_what_nobody_sees() -> None:
    length = 512
    one_BT, no_B = torch.zeros(1, length, dtype=torch.long), torch.tensor([False])
    pairs = prepared("products", one_BT, no_B, torch.float32).kept.numel()
    assert length**2 / 2 <= pairs <= 0.57 * length**2
    packed_BT = torch.arange(length)[None] // 64
    assert prepared("products", packed_BT, no_B, torch.float32).kept.numel() == length * 64
    with torch.no_grad():
        assert prepared("products", packed_BT, no_B, torch.float32).kept.numel() == 0


def test_varlen_lays_causal_sequences_before_bidirectional_ones() -> None:
    documents_BT = torch.tensor([[0, 0, 1, 1, 1], [7, 7, 7, 7, 7], [1, 2, 2, 2, 3]])
    layout = prepared("varlen", documents_BT, torch.tensor([False, True, False]), torch.float64)
    assert layout.causal_S.tolist() == [0, 2, 5, 6, 9, 10]
    assert layout.both_ways_S.tolist() == [0, 5]
    assert layout.order_B.tolist() == [0, 2, 1]
    sorted_layout = prepared("varlen", documents_BT, torch.tensor([False, False, True]), torch.float64)
    assert sorted_layout.order_B is None


CONFIG = ModelConfig(96, 48, 80, 2, 4, 2, 16, 256, 1e4, None, 1e-5, tied=False)
LENGTH = 150


@pytest.fixture(scope="module")
def model() -> Mistral:
    torch.manual_seed(4)
    return Mistral(CONFIG)


def layouts() -> dict[str, AttentionLayout]:
    """Causal, sequences of one document and packed ones, two of them, of which the second is bidirectional in
    mixed batches; three documents begin at 0, 40 and 110."""
    one_BT = torch.zeros(2, LENGTH, dtype=torch.long)
    packed_BT = (torch.arange(LENGTH) >= 40).long() + (torch.arange(LENGTH) >= 110).long()
    packed_BT = packed_BT.expand(2, LENGTH)
    causal_B, mixed_B = torch.tensor([False, False]), torch.tensor([False, True])
    return {
        "plain": AttentionLayout.causal(),
        "one": AttentionLayout(one_BT, causal_B),
        "one mixed": AttentionLayout(one_BT, mixed_B),
        "packed": AttentionLayout(packed_BT, causal_B),
        "packed mixed": AttentionLayout(packed_BT, mixed_B),
        "packed unsorted": AttentionLayout(packed_BT.flip(0), mixed_B.flip(0)),
    }


@torch.no_grad()
@pytest.mark.parametrize("backend", ["sdpa", "products", "varlen"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", list(layouts()))
def test_no_logit_moves_that_must_not_and_all_do_that_must(
    model: Mistral, backend: Any, dtype: torch.dtype, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normistral.model.attention.layout.varlen_problem", lambda *_: None)
    layout = layouts()[case]
    model = model.to(dtype)
    documents_BT = layout.documents_BT
    bidirectional_B = layout.bidirectional_B
    layout = AttentionLayout(documents_BT, bidirectional_B, backend)
    if documents_BT is None or bidirectional_B is None:
        documents_BT, bidirectional_B = torch.zeros(2, LENGTH), torch.tensor([False, False])
    tokens_BT = torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    before_BTV = model(tokens_BT, layout)
    for place in (70, 128, LENGTH - 1):
        changed_BT = tokens_BT.clone()
        changed_BT[:, place] = (changed_BT[:, place] + 1) % 96
        moved_BT = (model(changed_BT, layout) - before_BTV).abs().amax(-1)
        same_BT = documents_BT == documents_BT[:, place, None]
        sees_BT = same_BT & ((torch.arange(LENGTH) >= place) | bidirectional_B[:, None])
        assert (moved_BT[~sees_BT] == 0).all()
        assert (moved_BT[sees_BT] > 0).all()


@torch.no_grad()
def test_backends_give_a_model_the_same_logits(model: Mistral, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normistral.model.attention.layout.varlen_problem", lambda *_: None)
    model = model.double()
    tokens_BT = torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    for layout in layouts().values():
        logits = [
            model(tokens_BT, AttentionLayout(layout.documents_BT, layout.bidirectional_B, backend))
            for backend in ("sdpa", "products", "varlen", "auto")
        ]
        for other in logits[1:]:
            torch.testing.assert_close(other, logits[0], atol=1e-11, rtol=1e-11)


def spans_of(length: int, packed: bool = False, bidirectional: bool = False) -> DocumentSpans:
    documents_BT = torch.arange(length)[None] // (length // 2 if packed else length)
    return DocumentSpans.of_documents(documents_BT, torch.tensor([bidirectional]))


@pytest.mark.parametrize(
    ("dtype", "spans", "chosen"),
    [
        (torch.bfloat16, spans_of(2048), "products"),
        (torch.bfloat16, spans_of(16, bidirectional=True), "products"),
        (torch.float32, spans_of(512), "products"),
        (torch.float32, spans_of(512, bidirectional=True), "sdpa"),
        (torch.float32, spans_of(2048), "sdpa"),
        (torch.float32, spans_of(2048, packed=True, bidirectional=True), "products"),
        (torch.float32, spans_of(16), "sdpa"),
        (torch.float64, spans_of(512), "sdpa"),
    ],
)
def test_on_a_cpu_auto_takes_what_was_measured_to_be_fastest(
    dtype: torch.dtype, spans: DocumentSpans, chosen: str
) -> None:
    assert choose_backend("auto", spans, CPU, dtype, 64) == chosen


@pytest.mark.parametrize(
    ("dtype", "length", "problem", "chosen"),
    [
        (torch.bfloat16, 500, None, "varlen"),
        (torch.bfloat16, 512, "no such kernel", "flex"),
        (torch.bfloat16, 500, "no such kernel", "sdpa"),
        (torch.float32, 512, None, "flex"),
        (torch.float64, 512, None, "sdpa"),
    ],
)
def test_on_a_gpu_auto_takes_varlen_then_flex_then_sdpa(
    dtype: torch.dtype, length: int, problem: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normistral.model.attention.layout.varlen_problem", lambda *_: problem)
    _say_once.cache_clear()
    said = nullcontext() if problem is None else pytest.warns(UserWarning, match=problem)
    with said:
        assert choose_backend("auto", spans_of(length), torch.device("cuda"), dtype, 64) == chosen


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "length", "said"),
    [
        ("products", "cuda", torch.bfloat16, 512, "on a CPU only"),
        ("varlen", "cpu", torch.bfloat16, 512, "on a GPU only"),
        ("varlen", "cuda", torch.float32, 512, "not in float32"),
        ("flex", "cuda", torch.bfloat16, 500, "multiple of 128 tokens, not of 500"),
        ("flex", "cpu", torch.float32, 512, "no backward pass on a CPU"),
        ("flex", "cuda", torch.float64, 512, "float64"),
    ],
)
def test_a_backend_that_cannot_run_is_refused_by_name(
    backend: AttentionBackend, device: str, dtype: torch.dtype, length: int, said: str
) -> None:
    with pytest.raises(UserError, match=f"runtime.attention = {backend} .*{said}.*auto"):
        choose_backend(backend, spans_of(length), torch.device(device), dtype, 64)


def test_a_gpu_whose_trial_of_varlen_fails_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no kernel image")

    varlen_module._trial.cache_clear()
    assert varlen_module._trial(CPU, torch.bfloat16, 16) is None
    varlen_module._trial.cache_clear()
    monkeypatch.setattr(varlen_module, "varlen_attn", broken)
    assert "no kernel image" in str(varlen_module._trial(CPU, torch.bfloat16, 16))
    varlen_module._trial.cache_clear()
    monkeypatch.setattr(
        varlen_module, "varlen_attn", lambda *heads, **_: slow_varlen(*heads, enable_gqa=True)
    )
    assert "wrong gradients" in str(varlen_module._trial(CPU, torch.bfloat16, 16))
    varlen_module._trial.cache_clear()


def test_the_kernel_of_this_pytorch_is_told_in_its_own_words() -> None:
    def older(query: Tensor, is_causal: bool = False) -> None: ...

    assert varlen_module._options_of(older) == ({"is_causal": True}, {"is_causal": False}, {})
    assert varlen_module._options_of(slow_varlen) == (
        {"window_size": (-1, 0)},
        {"window_size": (-1, -1)},
        {"enable_gqa": True},
    )


def test_the_recipe_knows_the_same_backends() -> None:
    assert RuntimeSettings.model_fields["attention"].annotation == AttentionBackend
