"""Decontamination: which documents are taken for contaminated, what is cut, and what is reported."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_corpora import some_words

from normistral.corpus import decontamination as module
from normistral.corpus.decontamination import (
    Decontamination,
    build_contamination_index,
    contamination_report,
)
from normistral.corpus.documents import Document
from normistral.errors import UserError
from normistral.recipe import DecontaminationSettings

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
VOCABULARY = some_words(4000, seed=1)


def sentence(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def document(text: str, name: str = "a") -> Document:
    return Document(name, text, "web", "nob", "prose", "CC0-1.0")


def step_against(folder: Path, rows: list[Any], **settings: Any) -> Decontamination:
    """The step, with one evaluation set `sets/test` of these rows."""
    (folder / "sets").mkdir(exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "sets" / "test.jsonl").write_text(lines, encoding="utf-8")
    chosen = DecontaminationSettings(against=("sets/*.jsonl",), **settings)
    build_contamination_index(chosen, folder, folder / "index")
    return Decontamination(chosen, folder / "index")


def rules(step: Decontamination, *texts: str) -> list[str]:
    """For each text the rule that drops it, or nothing."""
    documents = [document(text, str(number)) for number, text in enumerate(texts)]
    return [each.dropped.rule if each.dropped else "" for each in step.apply(documents)]


def test_a_document_with_half_of_an_items_ngrams_is_dropped(tmp_path: Path) -> None:
    item = sentence(1, 52)  # 40 n-grams of 13 words
    step = step_against(tmp_path, [{"question": item}])
    half, less = (" ".join(item.split()[:count]) for count in (32, 31))  # 20 and 19 n-grams
    around = sentence(2, 300), sentence(3, 300)
    texts = [f"{around[0]} {text} {around[1]}" for text in (item, half, less, "")]
    assert rules(step, *texts) == ["item", "item", "", ""]


def test_neither_case_nor_marks_nor_lines_hide_an_item(tmp_path: Path) -> None:
    item = sentence(1, 30)
    step = step_against(tmp_path, [item])
    hidden = "– " + item.upper().replace(" ", ",\n", 5) + "!"
    assert rules(step, f"{sentence(2, 200)}. {hidden} {sentence(3, 200)}") == ["item"]


def test_a_document_made_of_pieces_of_many_items_is_dropped_by_its_own_share(tmp_path: Path) -> None:
    items = [sentence(seed, 60) for seed in range(10)]
    step = step_against(tmp_path, items)
    patchwork = [" ".join(item.split()[:25]) for item in items]  # 13 of 48 n-grams of each
    assert rules(step, " ".join(patchwork), " ".join([*patchwork[:1], sentence(99, 300)])) == ["overlap", ""]


def test_short_items_are_looked_for_as_a_whole_and_shorter_ones_not_at_all(tmp_path: Path) -> None:
    short, too_short = sentence(1, 8), sentence(2, 7)
    step = step_against(tmp_path, [short, too_short])
    texts = [f"{sentence(5, 50)} {text} {sentence(6, 50)}" for text in (short, short[:-5], too_short)]
    assert rules(step, *texts) == ["item", "", ""]
    assert contamination_report(tmp_path / "index", [step.finds()])["sets/test"]["too_short"] == 1


def test_long_passages_are_items_piece_by_piece(tmp_path: Path) -> None:
    passage = sentence(1, 1000)
    step = step_against(tmp_path, [{"context": passage}])
    quoted = " ".join(passage.split()[200:400])
    assert rules(step, f"{sentence(2, 3000)} {quoted} {sentence(3, 3000)}") == ["item"]


def test_only_the_named_fields_are_looked_at(tmp_path: Path) -> None:
    prompt, question = sentence(1, 30), sentence(2, 30)
    rows = [{"prompt": prompt, "data": {"questions": [question]}, "label": 3}]
    texts = [f"{sentence(5, 300)} {text}" for text in (prompt, question)]
    assert rules(step_against(tmp_path, rows), *texts) == ["item", "item"]
    assert rules(step_against(tmp_path, rows, fields=("data",)), *texts) == ["", "item"]


def test_cutting_takes_out_the_lines_that_overlap_and_keeps_the_rest(tmp_path: Path) -> None:
    item, kept = sentence(1, 40), [sentence(seed, 40) for seed in (2, 3, 4)]
    step = step_against(tmp_path, [item], action="cut")
    halves = item.split()[:25], item.split()[25:]
    lines = [kept[0], "", " ".join(halves[0]), " ".join(halves[1]) + " med mer", kept[1], kept[2]]
    [cut] = step.apply([document("\n".join(lines))])
    assert cut.dropped is None
    assert cut.text.split("\n") == [kept[0], "", kept[1], kept[2]]
    assert cut.steps == ("decontamination*",)
    assert rules(step, item) == ["item"]  # nothing would be left


def test_long_documents_are_looked_at_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = sentence(1, 30)
    step = step_against(tmp_path, [item])
    monkeypatch.setattr(module, "LONG_TEXT", 1000)
    monkeypatch.setattr("normistral.corpus.dedup.words.SLICE_CHARACTERS", 1000)
    texts = [" ".join([sentence(2, 1000), text, sentence(3, 1000)]) for text in (item, "")]
    assert rules(step, *texts) == ["item", ""]


def test_a_batch_is_judged_as_its_documents_alone(tmp_path: Path) -> None:
    items = [sentence(seed, 20) for seed in range(30)]
    step = step_against(tmp_path, items)
    generator = random.Random(1)
    texts = []
    for number in range(100):
        words = sentence(1000 + number, 60).split()
        if generator.random() < 0.3:
            start = generator.randrange(40)
            words[start : start + 20] = generator.choice(items).split()
        texts.append(" ".join(words))
    together = rules(step, *texts)
    assert 10 < together.count("item") < 60
    assert together == [rules(step, text)[0] for text in texts]
    assert together == ["item" if any(item in text for item in items) else "" for text in texts]


def test_the_report_has_every_set_with_items_documents_and_examples(tmp_path: Path) -> None:
    items = [sentence(seed, 30) for seed in range(3)]
    rows = [{"text": item} for item in items[:2]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "first.parquet")
    (tmp_path / "second.txt").write_text(f"{items[2]}\n\n{sentence(50, 30)}\n", encoding="utf-8")
    (tmp_path / "third.jsonl.gz").write_bytes(gzip.compress(json.dumps({"q": sentence(60, 9)}).encode()))
    settings = DecontaminationSettings(against=(str(tmp_path / "*.parquet"), "second.txt", "*.gz"))
    build_contamination_index(settings, tmp_path, tmp_path / "index")
    tasks = [Decontamination(settings, tmp_path / "index") for _ in range(2)]
    texts = ([items[0], items[2]], [f"{items[0]} {items[2]}", "noe annet"])
    for task, part in zip(tasks, texts, strict=True):
        rules(task, *part)
    finds = json.loads(json.dumps([task.finds() for task in tasks]))
    report = contamination_report(tmp_path / "index", finds)
    counts = {
        name.rpartition("/")[2]: (found["items"], found["items_hit"], found["documents"])
        for name, found in report.items()
    }
    assert counts == {"first": (2, 1, 2), "second": (2, 1, 2), "third": (1, 0, 0)}
    [example, _] = next(found for name, found in report.items() if name.endswith("first"))["examples"]
    assert example == {"document": "web/0", "item": items[0][: module.EXCERPT_CHARACTERS], "share": 1.0}


def test_the_reason_names_the_item_its_share_and_its_set(tmp_path: Path) -> None:
    step = step_against(
        tmp_path, [{"q": "Hvor mange fjorder er det i Norge, og hva heter den lengste av dem?"}]
    )
    text = "Hvor mange fjorder er det i Norge, og hva heter den lengste av dem? Sognefjorden."
    [dropped] = step.apply([document(text)])
    assert dropped.dropped is not None
    assert dropped.dropped.detail == (
        "holds 100% of “Hvor mange fjorder er det i Norge, og hva heter den lengste…” in sets/test"
    )


def test_the_same_sets_make_the_same_index(tmp_path: Path) -> None:
    rows = [{"q": sentence(seed, 40), "a": [sentence(seed + 1, 10)]} for seed in range(50)]
    step_against(tmp_path, rows)
    first = (tmp_path / "index").read_bytes()
    step_against(tmp_path, rows)
    assert (tmp_path / "index").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"q": "x"}\n{"q": \n', r"a\.jsonl:2 is not JSON .*; correct the line"),
        ("a.jsonl", b'{"q": "bl\xe5b\xe6r"}\n', r"a\.jsonl:1 is not UTF-8; convert it with iconv"),
        ("a.jsonl.gz", gzip.compress(b'{"q": "x"}\n' * 99)[:-9], r"a\.jsonl\.gz cannot be read"),
        ("a.parquet", b"PAR1 no", r"a\.parquet cannot be read .*; replace it"),
        ("a.jsonl", b'{"text": "x"}\n', r"a\.jsonl has no field q in any row; correct fields"),
        ("a.csv", b"q\nx\n", r"a\.csv is no \.jsonl, .* file; name only such files"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    settings = DecontaminationSettings(against=("a.*",), fields=("q",))
    with pytest.raises(UserError, match=r"corpus\.decontamination: .*" + message):
        build_contamination_index(settings, tmp_path, tmp_path / "index")


def test_a_glob_that_matches_nothing_is_named(tmp_path: Path) -> None:
    settings = DecontaminationSettings(against=("none/*.jsonl",))
    with pytest.raises(UserError, match=r"no file matches none/\*\.jsonl .*; correct or remove it"):
        build_contamination_index(settings, tmp_path, tmp_path / "index")


def test_shortest_items_longer_than_ngrams_are_refused() -> None:
    with pytest.raises(ValueError, match="min_words is 14 and ngram_words 13"):
        DecontaminationSettings(min_words=14)


@pytest.mark.skipif(not CORPORA.exists(), reason="needs the shared corpora")
def test_the_declaration_of_human_rights_is_found_where_it_is_quoted(tmp_path: Path) -> None:
    settings = DecontaminationSettings(against=("udhr/*.txt",))
    build_contamination_index(settings, CORPORA, tmp_path / "index")
    step = Decontamination(settings, tmp_path / "index")
    articles = (CORPORA / "udhr" / "sme.txt").read_text(encoding="utf-8").split("\n")
    quoted = max(articles, key=len)
    texts = [f"{sentence(1, 500)}\n{quoted}\n{sentence(2, 500)}", sentence(1, 1000)]
    assert rules(step, *texts) == ["item", ""]
    assert set(step.finds()) == {"udhr/sme"}
