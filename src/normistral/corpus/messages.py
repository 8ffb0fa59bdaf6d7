"""How this room words what is wrong with a source."""

from __future__ import annotations

from normistral.errors import UserError
from normistral.recipe import SourceSettings


def source_error(source: SourceSettings, problem: str) -> UserError:
    """A `UserError` that begins with the source's name.

    Example:
        >>> raise source_error(source, "no file matches *.txt")  # doctest: +SKIP
        UserError: corpus source 'news': no file matches *.txt
    """
    return UserError(f"corpus source '{source.name}': {problem}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text: libraries append pages to it."""
    return (str(error).splitlines() or [type(error).__name__])[0]
