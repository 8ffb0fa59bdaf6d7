"""The texts that a command is given: arguments, or a file with one on each line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from normistral.errors import TextError, UserError


@dataclass(frozen=True)
class GivenTexts:
    """Texts, and where they stood."""

    texts: list[str]
    source: str = ""
    """What the file is called in messages; empty for arguments."""
    lines: tuple[int, ...] = ()
    """Of each text its line in the file, from 1."""
    lines_in_file: int = 0
    """With the empty ones, which are no texts."""

    @contextmanager
    def naming_lines(self) -> Iterator[None]:
        """Name the line of a text that is found to be at fault.

        Raises:
            UserError: instead of `TextError`.
        """
        try:
            yield
        except TextError as error:
            if not self.lines:
                raise
            raise UserError(f"{self.source}, line {self.lines[error.number - 1]}: {error.reason}") from None

    def spread(self, answers: Sequence[str]) -> list[str]:
        """One answer for each line of the file, empty for an empty line; without a file, the answers."""
        if not self.lines:
            return list(answers)
        spread = [""] * self.lines_in_file
        for line, answer in zip(self.lines, answers, strict=True):
            spread[line - 1] = answer
        return spread

    def tell_of_empty_lines(self) -> None:
        """Say on the error stream that answers are fewer than lines."""
        if empty := self.lines_in_file - len(self.lines):
            told = f"{empty} of {self.lines_in_file} lines are empty and have no answer"
            print(f"normistral: {self.source}: {told}", file=sys.stderr)


def given_texts(texts: list[str] | None, file: Path | None, option: str = "--file") -> GivenTexts:
    """The texts of a command.

    Args:
        texts: arguments.
        file: text in UTF-8 with one text a line, or `.jsonl` with a field `text`; empty lines are no texts.
        option: what the file's option is called, for messages.

    Raises:
        UserError: if neither or both are given, or the file is missing, empty or broken (naming the line).
    """
    if bool(texts) == (file is not None):
        raise UserError(f"give either texts or {option} FILE with one text a line")
    if file is None:
        return GivenTexts(list(texts or ()))
    lines = _lines_of(file, option)
    kept = [(number, line) for number, line in lines if line.strip()]
    if file.suffix == ".jsonl":
        kept = [(number, _field(file, option, number, line)) for number, line in kept]
    return GivenTexts(
        [text for _, text in kept],
        f"{option} {file}",
        tuple(number for number, _ in kept),
        len(lines),
    )


def _lines_of(file: Path, option: str) -> list[tuple[int, str]]:
    """The lines of a file, with their numbers.

    Raises:
        UserError: if the file is missing, no UTF-8, or has none but empty ones.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{option} {file} does not exist") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {file} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{option} {file} cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UserError(f"{option} {file} is empty: expected one text a line")
    lines = text.removesuffix("\n").split("\n")
    return [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1)]


def unescape(text: str) -> str:
    """Read `\\n` and `\\t` as typed in a shell."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _field(file: Path, option: str, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{option} {file}, line {number}: no JSON ({error})") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise UserError(f'{option} {file}, line {number}: expected an object with a string "text"')
    return text
