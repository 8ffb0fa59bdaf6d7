"""Distillation: the new rows trained until the frozen body says of the new tokens what it said of the old.

The base reads a text in its own tokens, the swapped model in the new ones. Where tokens of both end at the
same character, the residual stream after a third of the layers should be the same: there the body has put a
word's pieces together and not yet decided what follows. This is Token Distillation (Dobler et al., ICLR 2026)
on all tokens at once and on ordinary text; the early layer saves two thirds of the teacher's work. The head
learns by cross-entropy on the next token in the same pass. Body and teacher are one set of weights, frozen;
only the tables learn, in float32, exact matches too, since in the new tokenisation they stand beside other
neighbours. It begins from the rows of `calibration`.

Shape suffixes: `B` windows, `T` positions, `D` model width, `W` new vocabulary, `A` aligned positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from normistral.model import Mistral, ModelConfig
from normistral.model.flops import forward_flops, training_flops
from normistral.model.loss import IGNORED, linear_cross_entropy
from normistral.progress import tracked
from normistral.swap.calibration import calibrated, size_of
from normistral.swap.method import MadeRows, SwapInput
from normistral.swap.run_model import Window, character_ends, load_body, read_layers, windows
from normistral.tokenizer import plain_text_tokenizer
from normistral.weights.model_folder import EMBEDDINGS

WINDOW = 128
"""Tokens of a window."""
WINDOWS_PER_STEP = 8
WARM_UP_SHARE = 0.1
"""Of the steps, in which the learning rate rises."""
REPORTED_LOSSES = 10


@dataclass(frozen=True)
class Pair:
    """A text in both tokenisations."""

    new: tuple[int, ...]
    old: tuple[int, ...]
    aligned: tuple[tuple[int, int], ...]
    """Positions in the new and the old tokens whose tokens end at the same character."""


@dataclass(frozen=True)
class Step:
    """Several pairs as tensors, short ones padded at their ends."""

    new_BT: Tensor
    old_BT: Tensor
    labels_BT: Tensor
    """The token after each of the new ones; `IGNORED` after the last."""
    aligned: tuple[Tensor, Tensor, Tensor]
    """Window, new position and old position of each aligned end, [A] each."""


def distilled(given: SwapInput) -> MadeRows:
    """The method: calibrated rows, then distilled."""
    given.need_texts("distilled")
    start = calibrated(given)
    tables = {name: start.rows(name) for name in given.tables}
    dtypes = {name: table.dtype for name, table in tables.items()}
    model = load_body(given.base, tables, given.device)
    masters = {name: table.float().to(given.device).requires_grad_() for name, table in tables.items()}
    teacher_VD = given.table(EMBEDDINGS).to(given.device)
    found = list(
        windows(
            given.texts, given.alignment.new, given.roles.start, given.settings.distillation_tokens, WINDOW
        )
    )
    random.Random(given.seed).shuffle(found)
    pairs = pair_up(found, given.alignment.base, given.base_roles.start)
    losses, flops = distil(model, masters, teacher_VD, pairs, given)
    rows: Callable[[str], Tensor] = lambda name: masters.pop(name).detach().cpu().to(dtypes[name])  # noqa: E731
    return MadeRows(
        rows=rows,
        flops=start.flops + flops,
        text_bytes=size_of(given.texts),
        model_tokens=start.model_tokens + sum(len(pair.new) + len(pair.old) for pair in pairs),
        losses=losses,
    )


def distil(
    model: Mistral, masters: dict[str, Tensor], teacher_VD: Tensor, pairs: Sequence[Pair], given: SwapInput
) -> tuple[tuple[float, ...], float]:
    """Train the tables in their place.

    Args:
        model: the frozen body; its own tables are not looked at.
        masters: the tables [W, D] by name, float32, with gradients.
        teacher_VD: the base's input embeddings.
        pairs: what to learn from, in this order.
        given: the settings.

    Returns:
        Mean losses of as many equal parts of the steps as are reported; and floating-point operations.
    """
    early = max(1, round(model.config.layers / 3))
    starts = range(0, len(pairs), WINDOWS_PER_STEP)
    rate = given.settings.distillation_learning_rate
    optimizer = torch.optim.Adam(masters.values(), lr=rate, betas=(0.9, 0.95))
    losses: list[float] = []
    flops = 0.0
    for number, begin in enumerate(tracked(starts, "distilling", len(starts), "steps")):
        part = pairs[begin : begin + WINDOWS_PER_STEP]
        step = as_step(part, given.device)
        progress = (number + 1) / len(starts)
        factor = min(progress / WARM_UP_SHARE, (1 - number / len(starts)) / (1 - WARM_UP_SHARE), 1.0)
        optimizer.param_groups[0]["lr"] = rate * factor
        loss = distillation_loss(model, masters, given.head, teacher_VD, step, early)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        flops += _step_flops(model.config, part, early)
    edges = [len(losses) * number // REPORTED_LOSSES for number in range(REPORTED_LOSSES + 1)]
    means = [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges) if b > a]
    return tuple(means), flops


def distillation_loss(
    model: Mistral, masters: dict[str, Tensor], head: str, teacher_VD: Tensor, step: Step, early: int
) -> Tensor:
    """How far the early layer is from the teacher's, relative to the teacher's length, plus the cross-entropy
    of the next token in nats."""
    dtype = model.model.norm.weight.dtype
    with torch.no_grad():
        old_BTD = read_layers(model, F.embedding(step.old_BT, teacher_VD).to(dtype), 0, early)
    window_A, new_A, old_A = step.aligned
    new_BTD = read_layers(model, F.embedding(step.new_BT, masters[EMBEDDINGS]).to(dtype), 0, early)
    wanted_AD = old_BTD[window_A, old_A].float()
    apart_A = (new_BTD[window_A, new_A].float() - wanted_AD).square().sum(1)
    distance = (apart_A / wanted_AD.square().sum(1).clamp(min=1e-9)).sum() / max(len(window_A), 1)
    hidden_BTD = model.model.norm(read_layers(model, new_BTD, early, model.config.layers))
    labels_P = step.labels_BT.flatten()
    weights_P = (labels_P != IGNORED).float()
    weights_P /= weights_P.sum()
    nats, _, _ = linear_cross_entropy(hidden_BTD.flatten(0, 1), masters[head].to(dtype), labels_P, weights_P)
    return distance + nats


def pair_up(found: Sequence[Window], base: Tokenizer, start_id: int) -> list[Pair]:
    """Each window's text in the base's tokens too; ends inside a character align with nothing."""
    encoder = plain_text_tokenizer(base)
    pairs = []
    for window in found:
        encoding = encoder.encode(window.text[: window.ends[-1]], add_special_tokens=False)
        old_at = {end: place for place, end in enumerate(character_ends(encoding.offsets), 1) if end}
        aligned = tuple((place, old_at[end]) for place, end in enumerate(window.ends) if end in old_at)
        pairs.append(Pair(window.tokens, (start_id, *encoding.ids), aligned))
    return pairs


def as_step(pairs: Sequence[Pair], device: str) -> Step:
    """Pairs as tensors; padding stands behind a causal reader's back."""

    def padded(rows: list[tuple[int, ...]], filler: int) -> Tensor:
        length = max(len(row) for row in rows)
        return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows], device=device)

    places = [(number, new, old) for number, pair in enumerate(pairs) for new, old in pair.aligned]
    aligned = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 3)
    return Step(
        new_BT=padded([pair.new for pair in pairs], 0),
        old_BT=padded([pair.old for pair in pairs], 0),
        labels_BT=padded([(*pair.new[1:], IGNORED) for pair in pairs], IGNORED),
        aligned=(aligned[:, 0], aligned[:, 1], aligned[:, 2]),
    )


def _step_flops(config: ModelConfig, pairs: Sequence[Pair], early: int) -> float:
    def triangle(lengths: list[int]) -> int:
        return sum(length * (length + 1) // 2 for length in lengths)

    new, old = [len(pair.new) for pair in pairs], [len(pair.old) for pair in pairs]
    teacher = forward_flops(replace(config, layers=early), sum(old), triangle(old), 0)
    targets = sum(new) - len(new)
    return teacher + training_flops(config, sum(new), triangle(new), targets, body_frozen=True)
