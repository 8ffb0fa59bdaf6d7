"""Follow generated tokens as text: decode as they come, find stop strings, never take back what was shown.

Text is decoded token by token (`tokenizers`' DecodeStream: a character is never shown half). Stop strings
are looked for in that text and not among token ids, so that a newline is found inside a token such as
`.\\n\\n` as well, and the text ends before the stop string. Shown text is never taken back: what may still
become a stop string is held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

UNREADABLE = "\ufffd"

EndedBy = Literal["stop", "end", "length", "cancelled"]


class TextWatch:
    """One continuation: fed with its tokens, knows its text and when it is over."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        stop: tuple[str, ...],
        end_ids: Collection[int],
        most_tokens: int,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.text = ""
        self.token_ids: list[int] = []
        self.ended_by: EndedBy | None = None
        """None while it goes on."""
        self._tokenizer = tokenizer
        # The prompt is given because some decoders (SentencePiece's) write a word's space only inside a text.
        # Not where it ends in an unreadable character: the stream would take that for half a character, and
        # give the prompt back together with the first token.
        ends_unread = tokenizer.decode(list(prompt_ids[-1:])).endswith(UNREADABLE)
        given = [] if ends_unread else list(prompt_ids)
        self._stream = DecodeStream(ids=given, skip_special_tokens=True)
        self._stop = stop
        self._end_ids = end_ids
        self._most_tokens = most_tokens
        self._on_text = on_text
        self._shown = 0

    def add(self, token: int) -> None:
        """Take the next token; after the end, tokens are ignored."""
        if self.ended_by:
            return
        self.token_ids.append(token)
        self._add_text(self._stream.step(self._tokenizer, token) or "")
        if self.ended_by:
            return
        if token in self._end_ids:
            self.ended_by = "end"
        elif len(self.token_ids) >= self._most_tokens:
            self.ended_by = "length"

    def show_rest(self) -> None:
        """Show what was held back: no stop string came of it."""
        self._show(len(self.text))

    def _add_text(self, piece: str) -> None:
        if not piece:
            return
        # A stop string may have begun before this piece.
        first = max(0, len(self.text) - max((len(string) for string in self._stop), default=0) + 1)
        self.text += piece
        places = [place for string in self._stop if (place := self.text.find(string, first)) >= 0]
        if places:
            self.text = self.text[: min(places)]
            self.ended_by = "stop"
        self._show(len(self.text) - (0 if self.ended_by else held_back(self.text, self._stop)))

    def _show(self, end: int) -> None:
        if self._on_text and end > self._shown:
            self._on_text(self.text[self._shown : end])
            self._shown = end


def held_back(text: str, stop: tuple[str, ...]) -> int:
    """Return how many of the text's last characters may be the beginning of a stop string.

    Example:
        >>> held_back("Hei.\\n", ("\\n\\n",))
        1
    """
    return max(
        (
            length
            for string in stop
            for length in range(1, min(len(string), len(text) + 1))
            if text.endswith(string[:length])
        ),
        default=0,
    )
