"""The terminal as the pipeline's screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_WHERE_NO_TERMINAL = 120


class Terminal:
    """Prints lines and tables; plain where standard output is no terminal."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        self._console = (
            console if console.is_terminal else Console(width=WIDTH_WHERE_NO_TERMINAL, highlight=False)
        )

    def say(self, text: str) -> None:
        """One line (or a few) of plain text, shown as it is."""
        self._console.print(Text(text), soft_wrap=True)

    def table(
        self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = ""
    ) -> None:
        """A table; columns of figures stand to the right."""
        table = Table(title=title, title_justify="left", title_style="bold", caption=note or None)
        table.caption_justify = "left"
        for number, name in enumerate(header):
            figures = all(_is_figure(row[number]) for row in rows)
            table.add_column(name, justify="right" if figures else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)


def _is_figure(cell: str) -> bool:
    return not cell or cell == "–" or cell[0] in "+-−0123456789"
