"""How well a model predicts documents: bits per byte read causally, accuracy and bits per masked token read
both ways.

Bits per byte divides by the UTF-8 bytes of the text, not by tokens, so that models with different tokenizers
compare. Figures per masked token do depend on the tokenizer, and compare only where it is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from normistral.model import AttentionLayout, Mistral
from normistral.model.loss import chunk_length
from normistral.objective import IGNORED, MaskingRule, causal_example, masked_example
from normistral.scoring.rows import Row, pack_rows

ROWS_PER_BATCH = 4


@dataclass(frozen=True)
class CausalScore:
    """Left-to-right prediction of documents."""

    bits: float
    tokens: int
    bytes: int
    """UTF-8 bytes of the documents."""

    @property
    def bits_per_byte(self) -> float:
        """Bits needed per byte of text; lower is better."""
        return self.bits / self.bytes


@dataclass(frozen=True)
class MaskedScore:
    """Prediction of masked tokens with both sides in sight."""

    bits: float
    tokens: int
    """Masked tokens."""
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of masked tokens that are the most probable prediction."""
        return self.correct / self.tokens

    @property
    def bits_per_token(self) -> float:
        """Bits needed per masked token; lower is better."""
        return self.bits / self.tokens


@torch.inference_mode()
def score_causal(
    model: Mistral, documents: Iterable[Sequence[int]], size_bytes: int, start_id: int, row_length: int
) -> CausalScore:
    """Score documents read left to right.

    Args:
        model: in evaluation precision, on any device.
        documents: ids of each document, without special tokens.
        size_bytes: UTF-8 bytes of the documents' text.
        start_id: token that every document begins with (not scored).
        row_length: tokens that the model sees at once.
    """
    bits, tokens = 0.0, 0
    for rows in _batches(pack_rows(documents, start_id, row_length, padding_id=start_id)):
        examples = [causal_example(_one_more(row.tokens, 0), _one_more(row.documents, -1)) for row in rows]
        labels_BT = torch.from_numpy(np.stack([example.labels for example in examples]))
        labels_BT[~_scored_targets(rows)] = IGNORED
        bidirectional_B = torch.zeros(len(rows), dtype=torch.bool)
        nats_P, _ = _predict(model, rows, _stack(rows), labels_BT, bidirectional_B)
        bits += float(nats_P.double().sum()) / math.log(2)
        tokens += len(nats_P)
    return CausalScore(bits, tokens, size_bytes)


@torch.inference_mode()
def score_masked(
    model: Mistral,
    documents: Iterable[Sequence[int]],
    start_id: int,
    row_length: int,
    rule: MaskingRule,
    seed: int,
) -> MaskedScore:
    """Score masked tokens, each predicted at the position before it with its whole document in sight.

    Args:
        model: in evaluation precision, on any device.
        documents: ids of each document, without special tokens.
        start_id: token that every document begins with.
        row_length: tokens that the model sees at once.
        rule: what is masked; every chosen token is to be shown as `<mask>` for a figure that is easy to read.
        seed: decides which tokens are masked, by row number.
    """
    bits, tokens, correct = 0.0, 0, 0
    numbered = enumerate(pack_rows(documents, start_id, row_length, padding_id=start_id))
    while batch := list(islice(numbered, ROWS_PER_BATCH)):
        rows = [row for _, row in batch]
        examples = [
            masked_example(
                _one_more(row.tokens, 0),
                _one_more(row.documents, -1),
                rule,
                np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64))),
            )
            for number, row in batch
        ]
        inputs_BT = torch.from_numpy(np.stack([example.inputs for example in examples]))
        labels_BT = torch.from_numpy(np.stack([example.labels for example in examples]))
        labels_BT[~_scored_targets(rows)] = IGNORED
        bidirectional_B = torch.ones(len(rows), dtype=torch.bool)
        nats_P, is_correct_P = _predict(model, rows, inputs_BT, labels_BT, bidirectional_B)
        bits += float(nats_P.double().sum()) / math.log(2)
        tokens += len(nats_P)
        correct += int(is_correct_P.sum())
    return MaskedScore(bits, tokens, correct)


def _predict(
    model: Mistral, rows: list[Row], inputs_BT: Tensor, labels_BT: Tensor, bidirectional_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats [P], and whether the label is the most probable token [P], of the P labelled
    positions."""
    device = model.lm_head.weight.device
    documents_BT = torch.from_numpy(np.stack([row.documents for row in rows]))
    layout = AttentionLayout.of_documents(documents_BT.to(device), bidirectional_B.to(device))
    hidden_BTD = model.hidden(inputs_BT.to(device), layout)
    labelled_BT = labels_BT != IGNORED
    hidden_PD = hidden_BTD[labelled_BT.to(device)]
    labels_P = labels_BT[labelled_BT].to(device)
    nats, hits = [], []
    size = chunk_length(model.config.vocabulary_size)
    for hidden_CD, labels_C in zip(torch.split(hidden_PD, size), torch.split(labels_P, size), strict=True):
        logits_CV = (hidden_CD @ model.lm_head.weight.T).float()
        label_logits_C = logits_CV.gather(1, labels_C[:, None]).squeeze(1)
        nats.append(logits_CV.logsumexp(dim=1) - label_logits_C)
        hits.append(logits_CV.argmax(dim=1) == labels_C)
    if not nats:
        return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    return torch.cat(nats).cpu(), torch.cat(hits).cpu()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, ROWS_PER_BATCH)):
        yield batch


def _scored_targets(rows: list[Row]) -> Tensor:
    """Whether the token that each position predicts, the next one, counts: [B, T]."""
    return torch.from_numpy(np.stack([_one_more(row.scored, False)[1:] for row in rows]))


def _stack(rows: list[Row]) -> Tensor:
    return torch.from_numpy(np.stack([row.tokens for row in rows]))


def _one_more(values: np.ndarray, fill: int | bool) -> np.ndarray:
    """Lengthen by one, so that the objective, which drops the last token, keeps the whole row."""
    return np.append(values, np.asarray(fill, dtype=values.dtype))
