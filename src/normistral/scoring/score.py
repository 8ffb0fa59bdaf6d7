"""How well a model predicts documents: bits per byte read causally, accuracy and bits per masked token read
both ways.

Bits per byte divides by the UTF-8 bytes of the text, not by tokens, so that models with different tokenizers
compare. Figures per masked token do depend on the tokenizer, and compare only where it is the same. The model
is called as training calls it, so that plain and sharded ones are scored by the same code; of several
processes each scores its share of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from normistral.model import AttentionLayout, LossOutput, Mistral, Targets
from normistral.objective import IGNORED, MaskingRule, TrainingExample, causal_example, masked_example
from normistral.scoring.rows import Row, pack_rows, padding_row
from normistral.scoring.share import ALONE, Share


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


def no_poll() -> None:
    """Ask nothing between batches."""


def score_causal(
    model: Mistral,
    documents: Iterable[Sequence[int]],
    size_bytes: int,
    start_id: int,
    row_length: int,
    device: str,
    share: Share = ALONE,
    poll: Callable[[], None] = no_poll,
) -> CausalScore:
    """Score documents read left to right.

    Args:
        model: plain or sharded; every process of a sharded one calls.
        documents: ids of each document, without special tokens.
        size_bytes: UTF-8 bytes of the documents' text.
        start_id: token that every document begins with (not scored).
        row_length: tokens that the model sees at once.
        device: where the model computes.
        share: this process's part of the rows.
        poll: called before each batch, equally often in every process; what it raises ends the scoring.
    """

    def example(number: int, row: Row) -> TrainingExample:
        return causal_example(_one_more(row.tokens, 0), _one_more(row.documents, -1))

    rows = pack_rows(documents, start_id, row_length, padding_id=start_id)
    sums = _sums(model, rows, example, padding_row(row_length, start_id), device, share, poll)
    return CausalScore(sums.bits, sums.tokens, size_bytes)


def score_masked(
    model: Mistral,
    documents: Iterable[Sequence[int]],
    start_id: int,
    row_length: int,
    rule: MaskingRule,
    seed: int,
    device: str,
    share: Share = ALONE,
    poll: Callable[[], None] = no_poll,
) -> MaskedScore:
    """Score masked tokens, each predicted at the position before it with its whole document in sight.

    Args:
        model: plain or sharded; every process of a sharded one calls.
        documents: ids of each document, without special tokens.
        start_id: token that every document begins with.
        row_length: tokens that the model sees at once.
        rule: what is masked; every chosen token is to be shown as `<mask>` for a figure that is easy to read.
        seed: decides which tokens are masked, by row number.
        device: where the model computes.
        share: this process's part of the rows.
        poll: called before each batch, equally often in every process; what it raises ends the scoring.
    """

    def example(number: int, row: Row) -> TrainingExample:
        random = np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
        return masked_example(_one_more(row.tokens, 0), _one_more(row.documents, -1), rule, random)

    rows = pack_rows(documents, start_id, row_length, padding_id=start_id)
    return _sums(model, rows, example, padding_row(row_length, start_id), device, share, poll)


def _sums(
    model: Mistral,
    rows: Iterable[Row],
    example_of: Callable[[int, Row], TrainingExample],
    padding: Row,
    device: str,
    share: Share,
    poll: Callable[[], None],
) -> MaskedScore:
    """Bits, predictions and correct ones over the rows of all processes."""
    bits, tokens, correct = 0.0, 0, 0
    for batch in share.batches(rows):
        poll()
        # A process that has no row left still takes part in gathering the weights.
        numbered = batch or [(0, padding)]
        examples = [example_of(number, row) for number, row in numbered]
        labels_BT = torch.from_numpy(np.stack([example.labels for example in examples]))
        labels_BT[~_scored_targets([row for _, row in numbered])] = IGNORED
        nats_P, is_correct_P = _predict(model, examples, labels_BT, device)
        bits += float(nats_P.double().sum()) / math.log(2)
        tokens += len(nats_P)
        correct += int(is_correct_P.sum())
    bits, tokens_sum, correct_sum = share.summed((bits, tokens, correct), device)
    return MaskedScore(bits, round(tokens_sum), round(correct_sum))


# Not inference mode: what FSDP gathers in it could not be trained on afterwards.
@torch.no_grad()
def _predict(
    model: Mistral, examples: Sequence[TrainingExample], labels_BT: Tensor, device: str
) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats [P], and whether the label is the most probable token [P], of the P labelled
    positions."""
    inputs_BT = torch.from_numpy(np.stack([example.inputs for example in examples]))
    documents_BT = torch.from_numpy(np.stack([example.documents for example in examples]))
    bidirectional_B = torch.tensor([example.bidirectional for example in examples])
    layout = AttentionLayout.of_documents(documents_BT, bidirectional_B)
    labelled_BT = labels_BT != IGNORED
    # The weighted sum is not looked at, but the weights must have the precision of the loss.
    weights_BT = labelled_BT.to(torch.promote_types(model.lm_head.weight.dtype, torch.float32))
    output = model(inputs_BT.to(device), layout, Targets(labels_BT.to(device), weights_BT.to(device)))
    assert isinstance(output, LossOutput)
    return output.nats_BT.cpu()[labelled_BT], output.correct_BT.cpu()[labelled_BT]


def _scored_targets(rows: list[Row]) -> Tensor:
    """Whether the token that each position predicts, the next one, counts: [B, T]."""
    return torch.from_numpy(np.stack([_one_more(row.scored, False)[1:] for row in rows]))


def _one_more(values: np.ndarray, fill: int | bool) -> np.ndarray:
    """Lengthen by one, so that the objective, which drops the last token, keeps the whole row."""
    return np.append(values, np.asarray(fill, dtype=values.dtype))
