"""Calibration: the LM head's rows shifted until the model gives each token its share in text.

Rows made of other rows know nothing of how often their token occurs. Means are too close to everything and
take most of the probability from the tokens that were right before; composed rows take too little. What
softmax regression would learn first, a bias for each token, can be said beforehand: the logarithm of how
often the token occurs in text over how often the swapped model expects it. A head without biases takes it
along the mean hidden state h: row += step · bias · h / |h|², which changes that token's logit by the bias on
average and, in a tied table, the input row by about a hundredth of its length. The expectation needs a
thousand tokens of text, read once; the counts need only a tokenizer. The unigram as a language model's first
lesson: Meister et al. 2023 ("A Natural Bias for Language Generation Models"), who set it before pretraining.

Shape suffixes: `W` new vocabulary, `D` model width, `P` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from normistral.model import AttentionLayout
from normistral.model.flops import forward_flops
from normistral.swap.composition import composition
from normistral.swap.method import MadeRows, SwapInput, Texts
from normistral.swap.run_model import load_body, windows
from normistral.tokenizer import plain_text_tokenizer

WINDOW = 256
"""Tokens of a document that the model reads."""
UNSEEN = 0.3
"""Occurrences that a token is taken to have beyond those counted."""
LIMIT = 4.0
"""Largest bias, in nats: one whose frequency is hardly known should not be pushed far."""
CHUNK_POSITIONS = 256


@dataclass(frozen=True)
class Calibration:
    """What to add to the head's rows."""

    bias_W: Tensor
    """Change of each token's logit at the mean hidden state, in nats; 0 for special tokens."""
    direction_D: Tensor
    """The mean hidden state over its squared length."""
    flops: float
    model_tokens: int
    divergence: float
    """Of the model's expected shares from the text's, in nats, before."""

    def applied(self, head_WD: Tensor) -> Tensor:
        """The head's rows, shifted; in float32 and rounded once."""
        return (head_WD.float() + self.bias_W[:, None] * self.direction_D).to(head_WD.dtype)


def calibrated(given: SwapInput) -> MadeRows:
    """The method: composed rows (`composition`), then calibrated on text."""
    given.need_texts("calibrated")
    composed = composition(given)
    tables = {name: composed.rows(name) for name in given.tables}
    found = calibrate(given, tables)
    tables[given.head] = found.applied(tables[given.head])
    return MadeRows(
        rows=_from(tables),
        flops=composed.flops + found.flops,
        text_bytes=size_of(given.texts),
        model_tokens=found.model_tokens,
        losses=(found.divergence,),
    )


@torch.no_grad()
def calibrate(given: SwapInput, tables: Mapping[str, Tensor]) -> Calibration:
    """Compare what text holds with what a model over these tables expects in it.

    Args:
        given: the texts, whose mixture decides the shares; `settings.calibration_tokens` of them are read by
            the model.
        tables: new tables by name, left as they are.
    """
    new, settings = given.alignment.new, given.settings
    model = load_body(given.base, tables, given.device)
    vocabulary = tables[given.head].shape[0]
    expected_W = torch.zeros(vocabulary, dtype=torch.float64)
    hidden_sum_D = torch.zeros(model.config.width, dtype=torch.float64)
    positions = pairs = 0
    for window in windows(given.texts, new, given.roles.start, settings.calibration_tokens, WINDOW):
        tokens_1P = torch.tensor([window.tokens], device=given.device)
        hidden_PD = model.hidden(tokens_1P, AttentionLayout.causal())[0]
        hidden_sum_D += hidden_PD.double().sum(0).cpu()
        for part_PD in torch.split(hidden_PD, CHUNK_POSITIONS):
            expected_W += model.lm_head(part_PD).float().softmax(-1).double().sum(0).cpu()
        positions += len(window.tokens)
        pairs += len(window.tokens) * (len(window.tokens) + 1) // 2
    share_W = token_shares(given.texts, new, vocabulary)
    bias_W = share_W.log() - (expected_W / positions + 1e-7).log()
    divergence = float(share_W @ bias_W)
    bias_W = (bias_W - divergence).clamp(-LIMIT, LIMIT) * settings.calibration_step
    bias_W[sorted(given.alignment.special)] = 0.0
    mean_D = hidden_sum_D / positions
    return Calibration(
        bias_W=bias_W.float(),
        direction_D=(mean_D / (mean_D @ mean_D)).float(),
        flops=forward_flops(model.config, positions, pairs, positions),
        model_tokens=positions,
        divergence=divergence,
    )


def token_shares(texts: Texts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """How often each token occurs among all: [W], float64, none of them 0."""
    encoder = plain_text_tokenizer(tokenizer)
    counts = np.full(vocabulary, UNSEEN)
    for documents in texts.values():
        for document in documents:
            ids = encoder.encode(document, add_special_tokens=False).ids
            counts += np.bincount(np.asarray(ids, dtype=np.int64), minlength=vocabulary)
    return torch.from_numpy(counts / counts.sum())


def size_of(texts: Texts) -> int:
    """UTF-8 bytes of all documents."""
    return sum(len(document.encode()) for documents in texts.values() for document in documents)


def _from(tables: dict[str, Tensor]) -> Callable[[str], Tensor]:
    """Hand each table out once, and let go of it."""
    return lambda name: tables.pop(name)
