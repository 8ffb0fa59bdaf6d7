"""Prompts as token ids, and the log-probabilities of a prompt that is given back (`echo`).

Shapes: T positions, M places of a prompt, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from normistral.errors import UserError
from normistral.inference.load import LoadedModel
from normistral.inference.reading import HEAD_IS_A_MATRIX, PLACES_AT_ONCE, hidden_states
from normistral.serve.continuation import Continuation, Entry, Piece


def prompt_ids(loaded: LoadedModel, prompt: str | list[int], context: int) -> list[int]:
    """The ids of a prompt, with the tokenizer's start token before a text.

    Args:
        loaded: whose tokenizer and vocabulary are meant.
        prompt: a text, or ids that are taken as they are.
        context: most tokens that fit; one must be left to write.

    Raises:
        UserError: if the prompt is empty, has an id outside the vocabulary, or is too long.
    """
    if isinstance(prompt, str):
        ids: list[int] = loaded.tokenizer(prompt).input_ids
        if not ids:
            raise UserError("the prompt is empty, and the tokenizer has no start token: write something")
    else:
        ids = list(prompt)
        size = int(loaded.model.config.vocab_size)
        outside = [token for token in ids if token >= size]
        if outside:
            raise UserError(f"token id {outside[0]} is outside the vocabulary of {size:,}")
    if len(ids) >= context:
        raise UserError(
            f"the prompt has {len(ids):,} tokens and the context {context:,}, one of them to be written: "
            "shorten the prompt"
        )
    return ids


def prompt_text(loaded: LoadedModel, prompt: str | list[int]) -> str:
    """The prompt's text, for `echo`."""
    if isinstance(prompt, str):
        return prompt
    return decode(loaded.tokenizer, prompt, skip_special=True)


@torch.inference_mode()
def prompt_entries(loaded: LoadedModel, ids: list[int], top: int) -> list[Entry]:
    """Log-probabilities of a prompt's tokens, by transformers; the first has none.

    Args:
        loaded: the model.
        ids: of the prompt, T of them; a start token has no entry.
        top: likeliest tokens told beside each.
    """
    stream = DecodeStream(skip_special_tokens=True)
    grown = Continuation(())
    entries: list[Entry] = []
    special = set(loaded.tokenizer.all_special_ids)
    for place, (token, figures) in enumerate(zip(ids, _figures(loaded, ids, top), strict=True)):
        piece_text = stream.step(loaded.tokenizer.backend_tokenizer, token) or ""
        if token in special and place == 0:
            continue
        grown.add(Piece(piece_text, 1, *figures))
        entries += grown.take()[1]
    return entries


def _figures(
    loaded: LoadedModel, ids: list[int], top: int
) -> Iterator[tuple[float | None, dict[str, float] | None]]:
    """The log-probability of each token, and the likeliest in its place; of the first, nothing is known."""
    yield None, None
    following = iter(ids[1:])
    for logits_MV in _logits(loaded, ids):
        nats_MV = logits_MV.float().log_softmax(-1)
        best = nats_MV.topk(min(top, nats_MV.shape[-1]), dim=-1)
        for nats_V, values, others in zip(nats_MV, best.values.tolist(), best.indices.tolist(), strict=True):
            likeliest: dict[str, float] = {}
            for value, other in zip(values, others, strict=True):
                likeliest.setdefault(token_text(loaded.tokenizer, other), value)
            yield float(nats_V[next(following)]), likeliest


def _logits(loaded: LoadedModel, ids: list[int]) -> Iterator[Tensor]:
    """Logits [M, V] behind all tokens but the last, those of a few places at a time: over the whole prompt
    they would take T × V × 4 bytes, which is gigabytes."""
    model: Any = loaded.model
    if len(ids) == 1:
        return iter(())
    if model.config.model_type in HEAD_IS_A_MATRIX:
        hidden_BTD, _ = hidden_states(loaded, [ids[:-1]], is_causal=True)
        return map(model.get_output_embeddings(), torch.split(hidden_BTD[0], PLACES_AT_ONCE))
    tokens_BT = torch.tensor([ids[:-1]], device=loaded.device)
    logits_TV = model(input_ids=tokens_BT, use_cache=False, is_causal=True).logits[0]
    return iter(torch.split(logits_TV, PLACES_AT_ONCE))


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """One token as text; part of a character shows as `�`."""
    return decode(tokenizer, [token], skip_special=False)


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], skip_special: bool) -> str:
    """Token ids as text, nothing tidied up."""
    text = tokenizer.decode(ids, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def end_ids(loaded: LoadedModel) -> list[int]:
    """Tokens that end a document."""
    own = loaded.model.generation_config
    ids = own.eos_token_id if own is not None else None
    if ids is None:
        ids = loaded.tokenizer.eos_token_id
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else [int(token) for token in ids]
