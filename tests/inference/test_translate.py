"""Translation by the card's prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from normistral.errors import UserError
from normistral.inference import load, read_examples, translate, translation_prompt


def test_the_prompt_is_the_cards() -> None:
    assert translation_prompt("Hello!", "eng", "nob") == "Engelsk: Hello!\nBokmål:"
    assert translation_prompt(" Hei ", "nob", "sme") == "Bokmål: Hei\nNordsamisk:"


def test_examples_stand_in_front_in_the_same_form() -> None:
    assert (
        translation_prompt("c", "nob", "nno", [("a", "b")]) == "Bokmål: a\nNynorsk: b\n\nBokmål: c\nNynorsk:"
    )


def test_a_taught_translation_is_given_line_by_line(taught: Any) -> None:
    loaded = load(taught.folder)
    english, expected = "I like coffee.", taught.translation.strip()
    assert translate(loaded, [english], "eng", "nob") == [(expected, True)]
    lines = f"{english}\n\n{english}"
    assert translate(loaded, [lines], "eng", "nob") == [(f"{expected}\n\n{expected}", True)]


def test_a_translation_that_is_cut_says_so(taught: Any) -> None:
    loaded = load(taught.folder)
    (cut,) = translate(loaded, ["I like coffee."], "eng", "nob", max_new_tokens=2)
    assert not cut.complete
    assert taught.translation.strip().startswith(cut.text)


def test_of_several_texts_the_one_that_cannot_be_translated_is_named(taught: Any) -> None:
    loaded = load(taught.folder)
    with pytest.raises(UserError, match="^text 2: the text to translate is empty"):
        translate(loaded, ["I like coffee.", " "], "eng", "nob")
    with pytest.raises(UserError, match="^text 2: .*context 128"):
        translate(loaded, ["One line.\nAnother.", "Oslo " * 200], "eng", "nob")


def test_examples_are_read_from_a_table(tmp_path: Path) -> None:
    file = tmp_path / "shots.tsv"
    # As spreadsheets write it: a byte order mark, and a line separator within a field.
    file.write_text('\ufeffI like "it"\tJeg liker det\r\n\nYes\u2028yes\tJa\n', encoding="utf-8")
    assert read_examples(file) == [('I like "it"', "Jeg liker det"), ("Yes\u2028yes", "Ja")]
    assert read_examples(file, 1) == [('I like "it"', "Jeg liker det")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nc d\n", "line 2: expected a text, a tab and its translation, got 1 fields"),
        ("a\tb\tc\n", "line 1: .*got 3 fields"),
        ("\n", "are empty"),
    ],
)
def test_a_broken_table_of_examples_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "shots.tsv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_examples(file)


def test_a_missing_table_of_examples_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        read_examples(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Hi", "eng", "eng"), "expected two languages"),
        (("Hi", "eng", "xyz"), "'xyz' has no name for the prompt: expected nob"),
        ((" ", "eng", "nob"), "is empty"),
        (("a\nb", "eng", "nob"), "several lines"),
    ],
)
def test_what_has_no_prompt_is_refused(arguments: tuple[str, str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        translation_prompt(*arguments)
