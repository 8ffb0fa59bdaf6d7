"""Which way a fine-tuned model reads: the leak probe on hidden states, for every kind of head.

A flag that gets lost (an adapter's folder does not hold it, some loaders ignore it) shows only as bad scores:
1.00 became 0.58 in a trial (research notes, using §4.2). So the direction is measured, after loading, after
training and after each reload: change the last token and look whether an earlier hidden state moves.

Shapes: B rows, T positions, D model width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from normistral.errors import UserError
from normistral.inference.leak import leak_of, probe_ids

MOVED = 1e-4
"""Share of the largest hidden state by which an earlier one must move to have seen the change."""


def decoder_of(model: Any) -> Any:
    """The layers below the head, of a model of `transformers`, wrapped by PEFT or not."""
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return getattr(model, model.base_model_prefix, model)


def hidden_leak(model: Any) -> float:
    """Largest change of an earlier position's hidden state when the last token changes.

    Args:
        model: any model of `transformers` with a decoder's layers; put into evaluation mode meanwhile.

    Returns:
        max |Δ hidden| over all positions but the last, as a share of the largest |hidden|.
    """
    decoder = decoder_of(model)
    size = int(decoder.config.vocab_size)
    was_training = model.training
    model.eval()
    largest = 0.0

    def hidden(tokens_T: Tensor) -> Tensor:
        nonlocal largest
        ids_BT = tokens_T[None].to(model.device)
        hidden_TD: Tensor = decoder(input_ids=ids_BT, use_cache=False).last_hidden_state[0]
        largest = max(largest, float(hidden_TD.abs().max()))
        return hidden_TD

    moved = leak_of(hidden, probe_ids(size), size)
    model.train(was_training)
    return moved / largest


def check_direction(model: Any, attention: str, what: str) -> float:
    """Check that a model reads the way it was asked to.

    Args:
        model: as for `hidden_leak`.
        attention: `causal` or `bidirectional`.
        what: what the model is, for the message.

    Returns:
        The leak.

    Raises:
        UserError: if it reads the other way.
    """
    leak = hidden_leak(model)
    if (leak > MOVED) != (attention == "bidirectional"):
        found = "causal" if attention == "bidirectional" else "bidirectional"
        raise UserError(
            f"{what} reads {found} and was to read {attention} (an earlier hidden state moves by "
            f"{leak:.1e} when the last token changes): its architecture or a change to its config.json "
            "does not let is_causal through"
        )
    return leak
