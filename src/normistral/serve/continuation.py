"""From an engine's pieces to what a client is given: text cut before a stop string, and log-probabilities.

Stop strings are looked for in the text and not among tokens, so that a newline is found inside `.\\n\\n` too.
What was handed out is never taken back: what may still become a stop string is held.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from normistral.inference.text_watch import held_back

EndedBy = Literal["stop", "end", "length"]


class Sampling(NamedTuple):
    """How tokens are drawn."""

    temperature: float
    """0 takes the likeliest token."""
    top_p: float
    seed: int | None


class Piece(NamedTuple):
    """What an engine wrote since the piece before: usually one token."""

    text: str
    """Empty while a character is not yet whole."""
    tokens: int
    log_probability: float | None = None
    """Of the token, in nats, before temperature; None where the engine was not asked or does not tell."""
    top: dict[str, float] | None = None
    """The likeliest tokens' texts and log-probabilities."""
    ended_by: Literal["end", "length"] | None = None
    """Set on the last piece: the model's end of document, or as many tokens as were allowed."""


class Engine(Protocol):
    """Writes on from token ids."""

    @property
    def name(self) -> str:
        """For people, for example `llama.cpp (model-Q4_0.gguf)`."""

    @property
    def is_ready(self) -> bool:
        """Whether it can write now."""

    @property
    def context(self) -> int:
        """Most tokens of prompt and continuation together."""

    def pieces(
        self, prompt: list[int], max_tokens: int, sampling: Sampling, logprobs: int | None
    ) -> AsyncIterator[Piece]:
        """Write on; closing the iterator stops the work."""

    async def close(self) -> None:
        """Stop for good."""


class Entry(NamedTuple):
    """A piece of text with its log-probability."""

    text: str
    log_probability: float | None
    top: dict[str, float] | None
    offset: int
    """Where it begins, in characters from the beginning of the answer's text."""


@dataclass
class Continuation:
    """One choice as it grows."""

    stop: tuple[str, ...]
    offset: int = 0
    """Characters of the prompt that the answer begins with (`echo`)."""
    text: str = ""
    tokens: int = 0
    ended_by: EndedBy | None = None
    _entries: list[Entry] = field(default_factory=list)
    _unfinished: list[Piece] = field(default_factory=list)
    _shown: int = 0
    _shown_entries: int = 0

    def add(self, piece: Piece) -> None:
        """Take in what the engine wrote."""
        if self.ended_by:
            return
        self.tokens += piece.tokens
        self._unfinished.append(piece)
        if piece.text:
            self._entries.append(self._entry())
            # A stop string may have begun before this piece.
            first = max(0, len(self.text) - max((len(string) for string in self.stop), default=0) + 1)
            self.text += piece.text
            places = [place for string in self.stop if (place := self.text.find(string, first)) >= 0]
            if places:
                self.text = self.text[: min(places)]
                self.ended_by = "stop"
                return
        self.ended_by = piece.ended_by

    def take(self) -> tuple[str, list[Entry]]:
        """What may be handed out and was not yet."""
        end = len(self.text) if self.ended_by else len(self.text) - held_back(self.text, self.stop)
        text = self.text[self._shown : end]
        self._shown = end
        entries = self._entries[self._shown_entries :]
        entries = [entry for entry in entries if entry.offset - self.offset < end]
        self._shown_entries += len(entries)
        return text, entries

    def _entry(self) -> Entry:
        """Tokens that share a character are one entry: the sum of their figures, if all are known."""
        known = [p.log_probability for p in self._unfinished if p.log_probability is not None]
        whole = len(known) == sum(piece.tokens for piece in self._unfinished)
        last = self._unfinished[-1]
        alone = len(self._unfinished) == 1 and whole
        text = last.text
        self._unfinished = []
        return Entry(
            text,
            sum(known) if whole and known else None,
            last.top if alone else None,
            self.offset + len(self.text),
        )


def logprobs_object(entries: list[Entry]) -> dict[str, Any]:
    """Log-probabilities as OpenAI's completions have them."""
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [entry.log_probability for entry in entries],
        "top_logprobs": [entry.top for entry in entries],
        "text_offset": [entry.offset for entry in entries],
    }
