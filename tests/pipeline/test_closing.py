"""What a finished run says at the end."""

from __future__ import annotations

from unittest.mock import Mock

from normistral.evaluation import ModelExamples
from normistral.evaluation.examples import FilledMask
from normistral.pipeline.closing import _show_examples


def test_a_gap_filled_with_a_line_break_stays_on_its_line() -> None:
    def filled(text: str) -> ModelExamples:
        return ModelExamples("model", True, (), (FilledMask("Hei<mask> du", text, ()),), None)

    context = Mock()
    _show_examples(context, {"base": filled("Hei\n du"), "adapt": filled("Hei på du")})
    (_, _, rows, _), _ = context.screen.table.call_args
    assert rows == [("Hei<mask> du", "Hei↵ du", "Hei på du")]
