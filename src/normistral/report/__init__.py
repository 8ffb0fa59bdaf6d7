"""The report of a run: one self-contained HTML page made from records alone."""

from normistral.report.page import Example, ReportFacts, StageCurves, Table, write_report
from normistral.report.plots import Series, line_plot

__all__ = ["Example", "ReportFacts", "Series", "StageCurves", "Table", "line_plot", "write_report"]
