"""Attention on a CPU as plain matrix products over blocks of queries, each with the keys it can see.

PyTorch's fused CPU kernel does not reach the processor's speed in bfloat16, and computes what a mask hides.
Here 64 queries at a time meet one interval of keys, so that later tokens and other documents cost little,
and the query heads that share a key-value head stand in one long matrix. Softmax weights are kept for the
backward pass, or made again where sequences are long. Figures:
benchmarks/results/2026-11-24-cpu-attention.md.

All of it is one operator for autograd, recomputation and `torch.compile`, which neither look into it nor
depend on where documents lie.

Shapes: B sequences, T positions, N query heads, K key-value heads, H head width. In a block: C sequences,
Q queries, J keys, R rows of a key-value head (its query heads times the queries), G = C · K matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normistral.model.attention.documents import DocumentSpans, additive, as_size, varying

QUERIES = 64
"""Queries in a block: fewer hide more, more make larger products."""

LONGEST_JOINED = 512
"""Up to this length, packed sequences of one mode are computed together although their documents differ:
fewer products outweigh more masked work."""

LONGEST_KEPT = 1024
"""Up to this length softmax weights are kept for the backward pass, half of N · T · T numbers a causal
sequence."""


class Block(NamedTuple):
    """Consecutive queries of consecutive sequences, with all keys that any of them sees."""

    first_row: int
    rows: int
    first_query: int
    queries: int
    first_key: int
    keys: int
    first_common: int
    """From this key of the block's on, up to `stop_common`, every query sees every key."""
    stop_common: int
    bias_from: int
    """Where its biases begin, [bias_rows, queries, keys]."""
    bias_rows: int
    """One for all where the documents lie alike, else one for each sequence; 0: nothing is hidden."""

    def of_queries(self, x_BNTH: Tensor) -> Tensor:
        """[C, N, Q, H] of the block's queries."""
        rows = slice(self.first_row, self.first_row + self.rows)
        return x_BNTH[rows, :, self.first_query : self.first_query + self.queries]

    def of_keys(self, x_BKTH: Tensor) -> Tensor:
        """[G, J, H] of the block's keys."""
        rows = slice(self.first_row, self.first_row + self.rows)
        return x_BKTH[rows].flatten(0, 1)[:, self.first_key : self.first_key + self.keys]


@dataclass(frozen=True)
class ProductBlocks:
    """The blocks of a batch."""

    blocks: Tensor
    """int64, one `Block` a row."""
    biases: Tensor
    """Of all blocks, end to end: 0 where visible, −∞ elsewhere."""
    kept: Tensor
    """Of the size of the softmax weights of one head that are kept for the backward pass."""

    @staticmethod
    def of_spans(spans: DocumentSpans, dtype: torch.dtype) -> ProductBlocks:
        """Cut a batch into blocks."""
        blocks: list[Block] = []
        biases = [torch.zeros(2, dtype=dtype)]  # never empty: torch.compile takes that for another case
        length = spans.length
        for first, last in _joined_rows(spans):
            start_CT, stop_CT = spans.start_BT[first:last], spans.stop_BT[first:last]
            alike = bool((start_CT == start_CT[0]).all() and (stop_CT == stop_CT[0]).all())
            for query in range(0, length, QUERIES):
                start_CQ, stop_CQ = (x[:, query : query + QUERIES] for x in (start_CT, stop_CT))
                first_key, stop_key = int(start_CQ.min()), int(stop_CQ.max())
                first_common, stop_common = int(start_CQ.max()), int(stop_CQ.min())
                if first_common >= stop_common:
                    first_common = stop_common = stop_key
                hidden = first_common > first_key or stop_common < stop_key
                bias_from = sum(map(torch.numel, biases))
                if hidden:
                    keys_J = torch.arange(first_key, stop_key)
                    visible_CQJ = (keys_J >= start_CQ[..., None]) & (keys_J < stop_CQ[..., None])
                    biases.append(additive(visible_CQJ[:1] if alike else visible_CQJ, dtype).flatten())
                blocks.append(
                    Block(
                        first_row=first,
                        rows=last - first,
                        first_query=query,
                        queries=start_CQ.size(1),
                        first_key=first_key,
                        keys=stop_key - first_key,
                        first_common=first_common - first_key,
                        stop_common=stop_common - first_key,
                        bias_from=bias_from,
                        bias_rows=(1 if alike else last - first) if hidden else 0,
                    )
                )
        keeps = torch.is_grad_enabled() and length <= LONGEST_KEPT
        kept = sum(block.rows * block.queries * block.keys for block in blocks) if keeps else 0
        return ProductBlocks(varying(torch.tensor(blocks)), varying(torch.cat(biases)), as_size(kept))

    def attend(self, query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor) -> Tensor:
        """Attend; see `attend` of the package."""
        mixed_BNTH: Tensor
        mixed_BNTH, _ = _attention(query_BNTH, key_BKTH, value_BKTH, self.blocks, self.biases, self.kept)
        return mixed_BNTH


def _joined_rows(spans: DocumentSpans) -> list[tuple[int, int]]:
    """First and last sequence (exclusive) of those that are computed together."""
    rows, length = spans.start_BT.shape
    groups: list[tuple[int, int]] = []
    first = 0
    for row in range(1, rows + 1):
        joins = row < rows and bool(spans.bidirectional_B[row] == spans.bidirectional_B[first])
        if joins and length > LONGEST_JOINED:
            joins = bool(
                (spans.start_BT[row] == spans.start_BT[first]).all()
                and (spans.stop_BT[row] == spans.stop_BT[first]).all()
            )
        if not joins:
            groups.append((first, row))
            first = row
    return groups


@torch.library.custom_op("normistral::attention_by_products", mutates_args=())
def _attention(
    query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, blocks: Tensor, biases: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Attended values [B, N, T, H], and all softmax weights where they are kept."""
    mixed_BNTH = _like_projections(query_BNTH)
    weights = query_BNTH.new_empty(kept.numel() * query_BNTH.size(1))
    key_BKTH, value_BKTH = key_BKTH.contiguous(), value_BKTH.contiguous()
    at = 0
    for block in _blocks(blocks):
        scores_GRJ = _scores(block, _scaled(block, query_BNTH, key_BKTH), key_BKTH, biases)
        if weights.numel():
            weights_GRJ = weights[at : at + scores_GRJ.numel()].view(scores_GRJ.shape)
            at += scores_GRJ.numel()
        else:
            weights_GRJ = torch.empty_like(scores_GRJ)
        torch.softmax(scores_GRJ, dim=-1, out=weights_GRJ)
        target_CNQH = block.of_queries(mixed_BNTH)
        target_CNQH.copy_(torch.bmm(weights_GRJ, block.of_keys(value_BKTH)).view(target_CNQH.shape))
    return mixed_BNTH, weights


@_attention.register_fake
def _(
    query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, blocks: Tensor, biases: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    return _like_projections(query_BNTH), query_BNTH.new_empty(kept.numel() * query_BNTH.size(1))


@torch.library.custom_op("normistral::attention_by_products_backward", mutates_args=())
def _attention_backward(
    received_BNTH: Tensor,
    query_BNTH: Tensor,
    key_BKTH: Tensor,
    value_BKTH: Tensor,
    blocks: Tensor,
    biases: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    scale = query_BNTH.size(-1) ** -0.5
    to_query_BNTH = _like_projections(query_BNTH)
    key_BKTH, value_BKTH = key_BKTH.contiguous(), value_BKTH.contiguous()
    # Several blocks add to a key, so sums are kept in float32 at least.
    sum_dtype = torch.promote_types(key_BKTH.dtype, torch.float32)
    to_key_BKTH, to_value_BKTH = (torch.zeros_like(key_BKTH, dtype=sum_dtype) for _ in range(2))
    at = 0
    for block in _blocks(blocks):
        query_GRH = _scaled(block, query_BNTH, key_BKTH)
        if weights.numel():
            size = query_GRH.size(0) * query_GRH.size(1) * block.keys
            weights_GRJ = weights[at : at + size].view(*query_GRH.shape[:2], block.keys)
            at += size
        else:
            weights_GRJ = _scores(block, query_GRH, key_BKTH, biases).softmax(dim=-1)
        received_CNQH = block.of_queries(received_BNTH)
        received_GRH = received_CNQH.reshape(query_GRH.shape)
        block.of_keys(to_value_BKTH).add_(torch.bmm(weights_GRJ.transpose(1, 2), received_GRH))
        to_weights_GRJ = torch.bmm(received_GRH, block.of_keys(value_BKTH).transpose(1, 2))
        to_scores_GRJ = torch._softmax_backward_data(to_weights_GRJ, weights_GRJ, -1, weights_GRJ.dtype)
        block.of_keys(to_key_BKTH).add_(torch.bmm(to_scores_GRJ.transpose(1, 2), query_GRH))
        to_query_GRH = torch.bmm(to_scores_GRJ, block.of_keys(key_BKTH)).mul_(scale)
        block.of_queries(to_query_BNTH).copy_(to_query_GRH.view(received_CNQH.shape))
    return to_query_BNTH, to_key_BKTH.to(key_BKTH.dtype), to_value_BKTH.to(value_BKTH.dtype)


@_attention_backward.register_fake
def _(
    received_BNTH: Tensor,
    query_BNTH: Tensor,
    key_BKTH: Tensor,
    value_BKTH: Tensor,
    blocks: Tensor,
    biases: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    contiguous = torch.contiguous_format
    return (
        _like_projections(query_BNTH),
        torch.empty_like(key_BKTH, memory_format=contiguous),
        torch.empty_like(value_BKTH, memory_format=contiguous),
    )


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])


def _backward(ctx: Any, received_BNTH: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attention_backward(received_BNTH, *ctx.saved_tensors), None, None, None


_attention.register_autograd(_backward, setup_context=_keep_inputs)


def _blocks(blocks: Tensor) -> list[Block]:
    return [Block(*numbers) for numbers in blocks.tolist()]


def _like_projections(query_BNTH: Tensor) -> Tensor:
    """Memory for [B, N, T, H], the heads of a position beside each other as the linear layers have them."""
    rows, heads, length, width = query_BNTH.shape
    return query_BNTH.new_empty(rows, length, heads, width).transpose(1, 2)


def _scaled(block: Block, query_BNTH: Tensor, key_BKTH: Tensor) -> Tensor:
    """[G, R, H] of the block's queries, times what keeps scores at unit variance."""
    query_CNQH: Tensor = block.of_queries(query_BNTH) * query_BNTH.size(-1) ** -0.5
    return query_CNQH.reshape(block.rows * key_BKTH.size(1), -1, query_BNTH.size(-1))


def _scores(block: Block, query_GRH: Tensor, key_BKTH: Tensor, biases: Tensor) -> Tensor:
    """[G, R, J], −∞ where a key is hidden from a query."""
    scores_GRJ: Tensor = torch.bmm(query_GRH, block.of_keys(key_BKTH).transpose(1, 2))
    if block.bias_rows:
        scores_CNQJ = scores_GRJ.view(block.rows, -1, block.queries, block.keys)
        shape = (block.bias_rows, 1, block.queries, block.keys)
        size = block.bias_rows * block.queries * block.keys
        bias_C1QJ = biases[block.bias_from : block.bias_from + size].view(shape)
        for part in (slice(0, block.first_common), slice(block.stop_common, block.keys)):
            scores_CNQJ[..., part].add_(bias_C1QJ[..., part])
    return scores_GRJ
