"""The task `causal`: more text of a kind, or prompts and what is to be written after them.

Of a prompt with a completion only the completion is learned, and `</s>` behind it, so that the model stops.
A long text becomes several rows; nothing of it is left out, but the completion of a pair is cut. Metrics:
bits per UTF-8 byte, which models of different tokenizers can be compared by, and perplexity per token.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from normistral.errors import UserError
from normistral.finetune.encoder import Encoder, padded
from normistral.finetune.records import Record
from normistral.finetune.task import IGNORED, Batch, Feature, Features


@dataclass(frozen=True)
class Passage:
    """A text, after a prompt or by itself."""

    where: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Continuation:
    """The task `causal`."""

    name: ClassVar[str] = "causal"
    auto_class: ClassVar[Any] = AutoModelForCausalLM
    architecture: ClassVar[str] = "ForCausalLM"
    head: ClassVar[tuple[str, ...]] = ()
    peft_type: ClassVar[str] = "CAUSAL_LM"

    @property
    def metric(self) -> str:
        """Bits per byte."""
        return "bits_per_byte"

    @property
    def greater_is_better(self) -> bool:
        """Less is."""
        return False

    @property
    def labels(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def example(self, record: Record, answered: bool) -> Passage:
        """Read `prompt` and `completion`, or `text`."""
        if record.has("prompt"):
            return Passage(record.where, record.text("prompt"), record.text("completion"))
        return Passage(record.where, "", record.text("text"))

    def learned_from(self, examples: Sequence[Passage]) -> Continuation:
        """Nothing of them has to be kept."""
        return self

    def features(self, examples: Sequence[Passage], encoder: Encoder) -> Features:
        """Rows; `target` is the first position learned, `extra` the position behind the text's last token and
        the bytes of text to be counted with this row: all those of the example with its first row."""
        made = Features()
        end_id = encoder.tokenizer.eos_token_id
        end = [] if end_id is None else [int(end_id)]
        start = encoder.prefix or end  # something has to predict the first token
        room = encoder.max_length - len(start)
        for at, example in enumerate(examples):
            prompt = encoder.ids(example.prompt) if example.prompt else []
            ids = [*prompt, *encoder.ids(example.text), *end]
            if len(prompt) >= room:
                raise UserError(
                    f"{example.where}: the prompt has {len(prompt)} tokens, which leaves no room for the "
                    f"completion in {encoder.max_length}; raise --max-length or shorten the prompt"
                )
            kept = example.text
            if prompt and len(ids) > room:
                made.cut += 1
                ids = ids[:room]
                kept = _text_of(example.text, room - len(prompt), encoder)
            blocks = [ids[first : first + room] for first in range(0, len(ids), room)]
            made.parted += len(blocks) > 1
            for number, block in enumerate(blocks):
                row = [*start, *block]
                is_last = number == len(blocks) - 1 and bool(end) and block[-1:] == end
                learned_from = max(len(start) + len(prompt), 1)
                behind = len(row) - 1 if is_last else len(row)
                counted = 0 if number else len(kept.encode())
                made.rows.append(Feature(row, at, learned_from, (behind, counted)))
        return made

    def collate(self, rows: Sequence[Feature], encoder: Encoder) -> Batch:
        """Ids, mask and `labels` [B, T]."""
        targets = [[IGNORED] * row.target + row.ids[row.target :] for row in rows]
        return {**encoder.padded([row.ids for row in rows]), "labels": padded(targets, IGNORED)}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Cross-entropy of the next token."""
        loss: Tensor = model(**batch, use_cache=False).loss
        return loss

    def outputs(self, model: Any, rows: Sequence[Feature], encoder: Encoder) -> list[Any]:
        """Nats, number and bytes of the row's tokens of text; the end of text is learned and not measured."""
        batch = encoder.padded([row.ids for row in rows])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits_BTV = model(**batch, use_cache=False).logits
        found = []
        for number, row in enumerate(rows):
            behind, counted = row.extra
            measured = slice(row.target - 1, behind - 1)
            targets_T = batch["input_ids"][number, row.target : behind]
            nats = F.cross_entropy(logits_BTV[number, measured].float(), targets_T, reduction="sum")
            found.append((float(nats), len(targets_T), counted))
        return found

    def answers(self, examples: Sequence[Passage], rows: Sequence[Feature], outputs: list[Any]) -> list[Any]:
        """Nats, tokens and bytes of each text."""
        sums = [(0.0, 0, 0)] * len(examples)
        for row, (nats, tokens, counted) in zip(rows, outputs, strict=True):
            before = sums[row.example]
            sums[row.example] = (before[0] + nats, before[1] + tokens, before[2] + counted)
        return sums

    def unmeasurable(self, examples: Sequence[Passage]) -> str | None:
        """Nothing."""
        return None

    def measure(self, examples: Sequence[Passage], answers: list[Any]) -> dict[str, float]:
        """Bits per byte and perplexity over all texts."""
        nats = sum(answer[0] for answer in answers)
        tokens = sum(answer[1] for answer in answers)
        size = max(sum(answer[2] for answer in answers), 1)
        return {
            "bits_per_byte": nats / math.log(2) / size,
            "perplexity": math.exp(min(nats / max(tokens, 1), 700.0)),
        }

    def told(self, example: Passage, answer: Any) -> dict[str, Any]:
        """Bits per byte of the text, of what was kept of it."""
        bits = answer[0] / math.log(2) / max(answer[2], 1)
        return {"text": example.text, "bits_per_byte": round(bits, 6)}


def _text_of(text: str, tokens: int, encoder: Encoder) -> str:
    """What the first tokens of a text stand for; a character that the cut goes through is counted whole."""
    _, spans = encoder.offsets(text)
    return text[: spans[tokens - 1][1]] if tokens < len(spans) else text
