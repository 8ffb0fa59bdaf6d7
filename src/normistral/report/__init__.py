"""Pages made from records alone, self-contained: the report of a run, and a corpus in figures."""

from normistral.report.corpus_page import (
    CorpusTables,
    corpus_tables,
    fates_drawing,
    summary_of,
    write_corpus_page,
)
from normistral.report.page import Example, ReportFacts, StageCurves, Table, cell_text, write_report
from normistral.report.plots import Series, line_plot
from normistral.report.tokenizer_plot import tokenizer_plot

__all__ = [
    "CorpusTables",
    "Example",
    "ReportFacts",
    "Series",
    "StageCurves",
    "Table",
    "cell_text",
    "corpus_tables",
    "fates_drawing",
    "line_plot",
    "summary_of",
    "tokenizer_plot",
    "write_corpus_page",
    "write_report",
]
