"""Differences of texts as shown to a reader: short, right, and of any texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.reports import difference as room
from normistral.corpus.reports.difference import difference

LINES = st.lists(st.sampled_from(["en", "to", "tre", "fire", ""]), max_size=12).map("\n".join)


@given(LINES, LINES)
def test_the_second_text_follows_from_the_first_and_the_excerpt(before: str, after: str) -> None:
    found = difference(before, after, 100)
    old, new, place = before.split("\n"), [], 0
    for line in found.excerpt:
        if line.startswith("@ "):
            start = int(line[2:]) - 1
            new += old[place:start]
            place = start
        elif line.startswith("-"):
            assert line[1:] == old[place]
            place += 1
        else:
            new.append(line[1:])
    assert new + old[place:] == after.split("\n")
    assert found.removed - found.added == len(old) - len(after.split("\n"))


def test_a_changed_line_is_shown_around_the_change_alone() -> None:
    before = "x" * 500 + "blÃ¥bÃ¦r" + "y" * 500
    old, new = difference(before, before.replace("Ã¥", "å").replace("Ã¦", "æ"), 10).excerpt[1:]
    assert "blÃ¥bÃ¦r" in old
    assert "blåbær" in new
    assert old.startswith("-…x")
    assert old.endswith("y…")
    assert len(old) < 120


def test_letters_that_no_terminal_shows_are_made_visible() -> None:
    found = difference("a\u00adb\x00 \uf0b7c", "ab c", 10)
    assert found.excerpt == ("@ 1", "-a⟨00AD⟩b⟨0000⟩ ⟨F0B7⟩c", "+ab c")


def test_an_excerpt_has_no_more_lines_than_asked_for_but_all_are_counted() -> None:
    before, after = "\n".join(map(str, range(100))), "\n".join(f"{line}!" for line in range(100))
    found = difference(before, after, 4)
    assert (found.removed, found.added) == (100, 100)
    assert found.excerpt == ("@ 1", "-0", "+0!", "-1", "+1!")


def test_texts_of_many_lines_are_compared_as_far_as_the_limit() -> None:
    many = room.MAX_COMPARED_LINES + 500
    found = difference("a\n" * many, "b\n" * many, 2)
    assert (found.removed, found.added) == (many, many)
