"""Translate by the card's prompt: each language is named, in Bokmål, before its text, and a new line ends it.

    Engelsk: I'm excited to try this new Norwegian language model!
    Bokmål:

Examples in front of it, in the same form and with an empty line after each, make it few-shot. The names are
those of the prompt's language, so that the model reads one text and not a form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from normistral.errors import TextError, UserError
from normistral.inference.generate import Generation, generate_batch
from normistral.inference.load import LoadedModel
from normistral.inference.reading import encode_all

BOKMAL_NAMES = {
    "nob": "Bokmål",
    "nno": "Nynorsk",
    "sme": "Nordsamisk",
    "smj": "Lulesamisk",
    "sma": "Sørsamisk",
    "dan": "Dansk",
    "swe": "Svensk",
    "isl": "Islandsk",
    "fao": "Færøysk",
    "fin": "Finsk",
    "eng": "Engelsk",
    "deu": "Tysk",
    "fra": "Fransk",
    "spa": "Spansk",
    "nld": "Nederlandsk",
}
"""What Bokmål calls a language, by its ISO 639-3 code."""

Example = tuple[str, str]
"""A text and its translation."""


class Translation(NamedTuple):
    """A translated text."""

    text: str
    complete: bool
    """False where a line was cut: it reached `max_new_tokens` or the end of the context, or was cancelled."""


def translation_prompt(text: str, source: str, target: str, examples: Sequence[Example] = ()) -> str:
    """Return the prompt that a translation follows.

    Args:
        text: one line.
        source: language of the text, ISO 639-3.
        target: language to translate into.
        examples: translated before, to show how.

    Raises:
        UserError: if a language has no Bokmål name here, both are one, or the text is empty or has several
            lines.

    Example:
        >>> translation_prompt("I like coffee.", "eng", "nob")
        'Engelsk: I like coffee.\\nBokmål:'
    """
    if source == target:
        raise UserError(f"translation from '{source}' to '{target}': expected two languages")
    names = []
    for code in (source, target):
        if code not in BOKMAL_NAMES:
            raise UserError(
                f"language '{code}' has no name for the prompt: expected {', '.join(BOKMAL_NAMES)}"
            )
        names.append(BOKMAL_NAMES[code])
    if not text.strip():
        raise UserError("the text to translate is empty")
    if "\n" in text:
        raise UserError("the text to translate has several lines: translate one at a time")
    shots = "".join(f"{names[0]}: {one}\n{names[1]}: {other}\n\n" for one, other in examples)
    return f"{shots}{names[0]}: {text.strip()}\n{names[1]}:"


def translate(
    loaded: LoadedModel,
    texts: Sequence[str],
    source: str,
    target: str,
    examples: Sequence[Example] = (),
    max_new_tokens: int = 128,
    beams: int = 1,
    batch_size: int = 16,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Translation]:
    """Translate texts, each line by itself.

    Args:
        loaded: from `load`.
        texts: of one or more lines; empty lines stay empty.
        source: language of the texts, ISO 639-3.
        target: language to translate into.
        examples: translated before, to show how.
        max_new_tokens: longest translation of a line.
        beams: translations kept side by side; 1 is greedy.
        batch_size: lines that are translated together.
        cancelled: asked after each token; True ends the work.

    Returns:
        One translation per text.

    Raises:
        UserError: if a text is empty, a language has no name, or a prompt does not fit into the context. Of
            several texts the message names the one.
    """

    def prompts_of(text: str) -> list[str]:
        if not text.strip():
            raise UserError("the text to translate is empty")
        return [translation_prompt(line, source, target, examples) for line in _lines(text) if line.strip()]

    prompts = encode_all(texts, prompts_of)
    owners = [number for number, of_text in enumerate(prompts, start=1) for _ in of_text]
    try:
        written = generate_batch(
            loaded,
            [prompt for of_text in prompts for prompt in of_text],
            max_new_tokens,
            ("\n",),
            beams=beams,
            batch_size=batch_size,
            cancelled=cancelled,
        )
    except TextError as error:  # of the prompts
        number = owners[error.number - 1]
        raise TextError(number, error.reason, f"text {number}" if len(texts) > 1 else "") from None
    answers = iter(written)
    return [_joined(text, answers) for text in texts]


def _joined(text: str, answers: Iterator[Generation]) -> Translation:
    """A text's translation out of those of its lines that are not empty."""
    of_lines = [next(answers) if line.strip() else None for line in _lines(text)]
    return Translation(
        "\n".join(answer.text.strip() if answer else "" for answer in of_lines),
        all(answer.ended_by in ("stop", "end") for answer in of_lines if answer),
    )


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")


def read_examples(path: Path, most: int | None = None) -> list[Example]:
    """Read translated examples: a text, a tab and its translation on each line.

    Args:
        path: a TSV file in UTF-8.
        most: take the first few alone.

    Raises:
        UserError: if the file is missing, no UTF-8 or empty, or a line has not two fields (naming the line).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise UserError(
            f"examples {path} do not exist: give a file with TEXT<tab>TRANSLATION lines"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"examples {path} cannot be read: {error}") from error
    examples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise UserError(
                f"examples {path}, line {number}: expected a text, a tab and its translation, "
                f"got {len(fields)} fields"
            )
        examples.append((fields[0].strip(), fields[1].strip()))
    if not examples:
        raise UserError(f"examples {path} are empty: give TEXT<tab>TRANSLATION lines")
    return examples[:most]
