"""Stop strings and log-probabilities in text that comes in pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from normistral.serve.continuation import Continuation, Piece

TEXT = st.text("ab\n", max_size=20)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


@given(st.lists(TEXT, max_size=8), STOPS)
def test_text_in_pieces_is_cut_like_the_whole_text_and_never_taken_back(
    pieces: list[str], stop: list[str]
) -> None:
    grown = Continuation(tuple(stop))
    shown = ""
    entries = []
    for number, text in enumerate([*pieces, ""]):
        grown.add(Piece(text, 1, -1.0, {}, "length" if number == len(pieces) else None))
        new, more = grown.take()
        shown += new
        entries += more
        if grown.ended_by:
            break
    whole = "".join(pieces)
    # The first piece in which a stop string is complete ends the text; of several there, the earliest counts.
    ends = [len("".join(pieces[: n + 1])) for n in range(len(pieces))]
    cut = next(
        (
            min(at for s in stop if (at := whole[:end].find(s)) >= 0)
            for end in ends
            if any(s in whole[:end] for s in stop)
        ),
        None,
    )
    assert shown == (whole if cut is None else whole[:cut])
    assert grown.ended_by == ("length" if cut is None else "stop")
    assert "".join(entry.text for entry in entries).startswith(shown)
    assert all(entry.offset < len(shown) or not shown for entry in entries)


def test_tokens_that_share_a_character_are_one_entry() -> None:
    grown = Continuation((), offset=3)
    for piece in (
        Piece("", 1, -1.0, {"\ufffd": -1.0}),
        Piece("🦜", 1, -0.5, {"x": -1.0}),
        Piece("!", 1, -2.0, {"!": -2.0}),
    ):
        grown.add(piece)
    _, entries = grown.take()
    assert [(e.text, e.log_probability, e.offset) for e in entries] == [("🦜", -1.5, 3), ("!", -2.0, 4)]
    assert entries[0].top is None
    assert grown.tokens == 3


def test_an_unknown_figure_is_not_made_up() -> None:
    # llama.cpp tells of tokens that end a character alone.
    grown = Continuation(())
    grown.add(Piece("🦜", 4, None, None))
    assert grown.take()[1][0].log_probability is None
