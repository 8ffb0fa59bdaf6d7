"""Sentence similarity: embeddings whose cosine ranks pairs as their scores do.

An embedding is the mean of the last hidden states over a sentence's tokens, read both ways; the saved folder
is also one of sentence-transformers. Loss: CoSENT (Su 2022), which asks that of any two pairs the one with
the higher score has the higher cosine, so that scores of any scale will do. Metrics: Spearman's and Pearson's
correlation of cosine and score.

Shapes: B pairs, T positions, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from normistral.errors import UserError
from normistral.finetune.encoder import Encoder
from normistral.finetune.records import Record
from normistral.finetune.task import Batch, Feature, Features

SCALE = 20.0
"""The loss's inverse temperature, as in sentence-transformers."""


@dataclass(frozen=True)
class Pair:
    """Two sentences and, where it is known, how alike they are."""

    where: str
    first: str
    second: str
    score: float | None


@dataclass(frozen=True)
class Similarity:
    """The task `sentence-similarity`."""

    name: ClassVar[str] = "sentence-similarity"
    auto_class: ClassVar[Any] = AutoModel
    architecture: ClassVar[str] = "ForCausalLM"
    head: ClassVar[tuple[str, ...]] = ()
    peft_type: ClassVar[str] = "FEATURE_EXTRACTION"

    @property
    def metric(self) -> str:
        """Spearman's correlation."""
        return "spearman"

    @property
    def greater_is_better(self) -> bool:
        """It is."""
        return True

    @property
    def labels(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def example(self, record: Record, answered: bool) -> Pair:
        """Read `first`, `second` and `score`."""
        score = record.number("score") if answered else None
        return Pair(record.where, record.text("first"), record.text("second"), score)

    def learned_from(self, examples: Sequence[Pair]) -> Similarity:
        """Nothing of them has to be kept."""
        if len({example.score for example in examples}) < 2:
            raise UserError("all training pairs have the same score; there is no order to learn")
        return self

    def features(self, examples: Sequence[Pair], encoder: Encoder) -> Features:
        """One row a pair: ids of the first sentence, and of the second in `extra`."""
        made = Features()
        for at, example in enumerate(examples):
            (first, first_cut), (second, second_cut) = encoder.row(example.first), encoder.row(example.second)
            made.cut += first_cut or second_cut
            made.rows.append(Feature(first, at, example.score, second))
        return made

    def collate(self, rows: Sequence[Feature], encoder: Encoder) -> Batch:
        """Ids and mask [2 B, T], all first sentences before all second ones, and `scores` [B]."""
        both = [*(row.ids for row in rows), *(row.extra for row in rows)]
        return {**encoder.padded(both), "scores": torch.tensor([float(row.target) for row in rows])}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """CoSENT: log(1 + Σ exp(scale · (cosine of a lower pair − cosine of a higher pair)))."""
        cosines_B = _cosines(model, batch["input_ids"], batch["attention_mask"])
        scores_B = batch["scores"]
        excess_BB = SCALE * (cosines_B[:, None] - cosines_B[None, :])
        ordered_BB = scores_B[:, None] < scores_B[None, :]
        excess = excess_BB.masked_fill(~ordered_BB, -torch.inf).flatten()
        return torch.cat([excess.new_zeros(1), excess]).logsumexp(0)

    def outputs(self, model: Any, rows: Sequence[Feature], encoder: Encoder) -> list[Any]:
        """The cosine of each pair."""
        batch = encoder.padded([*(row.ids for row in rows), *(row.extra for row in rows)])
        ids, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
        cosines: list[Any] = _cosines(model, ids, mask).cpu().tolist()
        return cosines

    def answers(self, examples: Sequence[Pair], rows: Sequence[Feature], outputs: list[Any]) -> list[Any]:
        """The cosines."""
        return outputs

    def unmeasurable(self, examples: Sequence[Pair]) -> str | None:
        """Scores that are all the same."""
        if len({example.score for example in examples}) < 2:
            return "all its pairs have the same score, and a correlation needs different ones"
        return None

    def measure(self, examples: Sequence[Pair], answers: list[Any]) -> dict[str, float]:
        """Correlations; 0 where all cosines are equal."""
        from scipy.stats import pearsonr, spearmanr

        scores = [example.score for example in examples]
        if len(set(answers)) < 2:
            return {"spearman": 0.0, "pearson": 0.0}
        return {
            "spearman": float(spearmanr(scores, answers).statistic),
            "pearson": float(pearsonr(scores, answers).statistic),
        }

    def told(self, example: Pair, answer: Any) -> dict[str, Any]:
        """Both sentences and their cosine."""
        return {"first": example.first, "second": example.second, "similarity": round(answer, 6)}


def mean_pooled(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over each row's tokens, [B, D]."""
    weights_BT1 = mask_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)


def _cosines(model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    hidden_BTD = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state.float()
    first_BD, second_BD = mean_pooled(hidden_BTD, mask_BT).chunk(2)
    return F.cosine_similarity(first_BD, second_BD)
