"""A comparison of tokenizers as one SVG that needs no page around it: tokens per word by language.

Its colours stand in the file itself, for light and dark; each bar carries its figure, so that colour is never
the only difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from normistral.languages import language_name
from normistral.tokenizer import TokenizerRow

WIDTH = 720
NAME_WIDTH = 150
"""Before the bars: languages, and tokenizers below them."""
FIGURE_WIDTH = 52
"""Behind a bar: its figure."""
BAR, HEADING, GAP = 15, 22, 8
LETTERS = 20
"""Of a tokenizer's name that have room."""
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1c2430; }
.language { font-weight: 600; }
.title { font-size: 15px; font-weight: 600; }
.b0 { fill: #8a94a3; } .b1 { fill: #c98a1b; } .b2 { fill: #7f5bb5; } .b3 { fill: #1f6fb5; }
.b4 { fill: #12805c; } .b5 { fill: #b5403a; }
.paper { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ee; } .paper { fill: #14181f; }
  .b0 { fill: #8b97a8; } .b1 { fill: #e0a63a; } .b2 { fill: #a98be0; } .b3 { fill: #5aa9ea; }
  .b4 { fill: #3fbf8f; } .b5 { fill: #e57f78; }
}
"""
FILLS = 6
"""Further tokenizers begin anew with the first colour."""


def tokenizer_plot(rows: Sequence[TokenizerRow]) -> str:
    """Draw tokens per word: a group of bars for each language, a bar for each tokenizer.

    Args:
        rows: as `compare_tokenizers` returns them.

    Returns:
        An SVG document.
    """
    languages = list(dict.fromkeys(row.language for row in rows))
    tokenizers = list(dict.fromkeys(row.tokenizer for row in rows))
    most = max((row.tokens_per_word for row in rows), default=0.0) or 1.0
    room = WIDTH - NAME_WIDTH - FIGURE_WIDTH
    parts = ['<text class="title" x="12" y="24">Tokens per word: fewer is better</text>']
    y = 40.0
    spoken = []
    for language in languages:
        name = escape(language_name(language))
        parts.append(f'<text class="language" x="12" y="{y + 14:g}">{name}</text>')
        y += HEADING
        said = []
        for row in (row for row in rows if row.language == language):
            number = tokenizers.index(row.tokenizer)
            shown = row.tokenizer if len(row.tokenizer) <= LETTERS else row.tokenizer[: LETTERS - 1] + "…"
            width = row.tokens_per_word / most * room
            figures = f"{row.tokens_per_word:.3f}"
            title = escape(
                f"{language_name(language)}, {row.tokenizer}: {figures} tokens per word, "
                f"{row.bytes_per_token:.2f} bytes per token, {row.share_whole:.1%} of words whole"
            )
            parts += [
                f'<text x="{NAME_WIDTH - 8}" y="{y + 12:g}" text-anchor="end">{escape(shown)}</text>',
                f'<rect class="b{number % FILLS}" x="{NAME_WIDTH}" y="{y + 1:g}" width="{width:.1f}" '
                f'height="{BAR - 2}"><title>{title}</title></rect>',
                f'<text x="{NAME_WIDTH + width + 6:.1f}" y="{y + 12:g}">{figures}</text>',
            ]
            said.append(f"{row.tokenizer} {figures}")
            y += BAR
        spoken.append(f"{language_name(language)}: {', '.join(said)}.")
        y += GAP
    label = escape("Tokens per word by language and tokenizer. " + " ".join(spoken))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8:g}" width="{WIDTH}" '
            f'height="{y + 8:g}" role="img" aria-label="{label}">',
            f"<style>{STYLE}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            *parts,
            "</svg>",
            "",
        ]
    )
