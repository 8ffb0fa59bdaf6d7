"""The report: complete, self-contained, escaped, and silent about what was not measured."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from normistral.errors import UserError
from normistral.records import MetricsLog, read_metrics
from normistral.report import Example, ReportFacts, StageCurves, Table, write_report
from normistral.report.bars import Row, share_bars
from normistral.report.page import cell_text

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href", "background"}


class Page(HTMLParser):
    """Parses a page, checks that its elements nest, and keeps what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def facts() -> ReportFacts:
    return ReportFacts(
        title="quickstart",
        description="A demonstration.",
        finished_at="2026-11-23 15:58 UTC",
        machine={"Processor": "2 CPU cores"},
        corpus=Table(("Source", "Documents"), (("bokmaalsordboka", 89_012),)),
        tokenizer=Table(("Tokenizer", "Tokens per word"), (("base", 2.713), ("new", 1.612))),
        mixture=Table(("Source", "Repeats"), (("bokmaalsordboka", 0.035),), note="At most 16."),
        stages=Table(("Stage", "Seconds"), (("corpus", 12.25),)),
        curves=(StageCurves("adapt", (1, 2, 3), (4.0, 3.5, None), (None, None, 5.0), (1e-4, 3e-4, 2e-4)),),
        evaluation=Table(("Measure", "Base", "Adapted"), (("bits per byte", 2.65, 2.15), ("new", None, 1.0))),
        continuations=(Example("fjord: ", "The water", "smal havarm"),),
        masks=(Example("Oslo er<mask> i Norge.", "Oslo er er i Norge.", "Oslo er størst i Norge."),),
        places={"Model": "runs/quickstart/model"},
        commands={"Write": "normistral generate runs/quickstart/model 'fjord: '"},
    )


def written(facts: ReportFacts, folder: Path) -> str:
    write_report(facts, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_everything_recorded_stands_in_the_report(facts: ReportFacts, tmp_path: Path) -> None:
    text = Page(written(facts, tmp_path)).text
    for words in (
        "quickstart",
        "A demonstration.",
        "2026-11-23 15:58 UTC",
        "2 CPU cores",
        "bokmaalsordboka 89,012",
        "base 2.713",
        "At most 16.",
        "corpus 12.250",
        "bits per byte 2.650 2.150",
        "new – 1.000",
        "fjord:",
        "smal havarm",
        "Oslo er<mask> i Norge.",
        "Oslo er størst i Norge.",
        "Loss during adapt",
        "Learning rate during adapt",
        "causal",
        "masked",
        "runs/quickstart/model",
        "normistral generate runs/quickstart/model 'fjord: '",
    ):
        assert words in text


def test_the_page_loads_nothing(facts: ReportFacts, tmp_path: Path) -> None:
    html = written(facts, tmp_path)
    page = Page(html)
    assert not [(tag, attributes) for tag, attributes in page.tags if LOADING & attributes.keys()]
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"(https?:)?//\w", html)
    policies = [attributes.get("content") for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_strangers_words_stay_words(facts: ReportFacts, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script><img src=x onerror=y> & \"quoted\""
    page = Page(
        written(
            replace(
                facts,
                title=evil,
                description=evil,
                finished_at=evil,
                machine={evil: evil},
                corpus=Table((evil, evil), ((evil, evil),), note=evil),
                curves=(replace(facts.curves[0], stage=evil),),
                continuations=(Example(evil, evil, evil),),
                masks=(Example(evil, evil, evil),),
                places={evil: evil},
                commands={evil: evil},
            ),
            tmp_path,
        )
    )
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert page.text.count(" ".join(evil.split())) >= 20


def test_what_was_not_measured_has_no_section(facts: ReportFacts, tmp_path: Path) -> None:
    bare = ReportFacts("bare", "", "now", {}, corpus=facts.corpus, evaluation=Table(("Measure", "Base"), ()))
    page = Page(written(bare, tmp_path))
    headings = [
        text.strip()
        for text in re.findall(r"<h2>(.*?)</h2>", (tmp_path / "report.html").read_text(encoding="utf-8"))
    ]
    assert headings == ["Corpus"]
    assert "svg" not in {tag for tag, _ in page.tags}


def test_the_page_can_be_read_aloud_and_on_a_phone(facts: ReportFacts, tmp_path: Path) -> None:
    page = Page(written(facts, tmp_path))
    html = next(attributes for tag, attributes in page.tags if tag == "html")
    assert html["lang"] == "en"
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 2
    for attributes in plots:
        assert attributes["role"] == "img"
        assert "at step" in (attributes["aria-label"] or "")
    cells = [attributes for tag, attributes in page.tags if tag == "th"]
    assert all(attributes["scope"] in ("col", "row") for attributes in cells)
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    names = {attributes.get("name"): attributes.get("content") for attributes in metas}
    assert names["viewport"] == "width=device-width, initial-scale=1"
    assert names["color-scheme"] == "light dark"
    assert "prefers-color-scheme: dark" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_curves_come_from_the_metrics_a_run_logged(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(step=1, causal_loss=4.0, masked_loss=None, learning_rate=1e-4, tokens_per_second=300)
        log.write(step=2, causal_loss=float("nan"), masked_loss=5.0, learning_rate=2e-4)
    assert StageCurves.from_metrics("adapt", read_metrics(tmp_path / "metrics.jsonl")) == StageCurves(
        "adapt", (1, 2), (4.0, None), (None, 5.0), (1e-4, 2e-4)
    )


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        ("–12 %", "–12 %"),
        (89_012, "89,012"),
        (2.65, "2.650"),
        (0.0123, "0.012"),
        (0.0001234, "0.0001234"),
        (1234.5, "1,234"),
        (0.0, "0"),
    ],
)
def test_figures_are_readable(cell: str | float | None, text: str) -> None:
    assert cell_text(cell) == text


def test_a_row_must_fit_its_headings() -> None:
    with pytest.raises(AssertionError, match="does not fit"):
        Table(("one", "two"), (("only one",),))


def test_a_full_disk_is_named_and_the_last_report_survives(
    facts: ReportFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(facts, tmp_path)

    def full(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"no disk space left while writing .*report\.html"):
        write_report(facts, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def test_what_became_of_the_corpus_is_drawn_and_its_rules_are_listed(
    facts: ReportFacts, tmp_path: Path
) -> None:
    drawing = Markup(share_bars([Row("news (nob)", {"kept": 3, "length": 1})], "Fates", "documents"))
    rules = Table(("step", "rule", "documents"), (("length", "min_words", 1),))
    write_report(replace(facts, corpus_drawing=drawing, corpus_rules=rules), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "kept 75.0%, length 25.0%" in text
    assert "Dropped from the corpus" in Page(text).text
    assert "min_words" in Page(text).text
    write_report(facts, tmp_path / "report.html")
    assert "Dropped from the corpus" not in (tmp_path / "report.html").read_text(encoding="utf-8")
