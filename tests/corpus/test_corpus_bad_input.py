"""Bad input through the whole corpus stage: one clear sentence or a counted skip, and the rerun ends in the
bytes that it would have had."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_rows import (
    all_files,
    build,
    corpus_settings,
    fates_of,
    make_source,
    text_rows,
    texts_of,
    write_rows,
)

from normistral.errors import UserError
from normistral.recipe import SourceSettings, load_recipe
from normistral.records import RunFolder


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def truncated_gzip(folder: Path) -> SourceSettings:
    (folder / "bad.jsonl.gz").write_bytes(gzip.compress(lines_of(text_rows(100, 200)))[:-30])
    return make_source(folder / "bad.jsonl.gz", "bad")


def truncated_zstandard(folder: Path) -> SourceSettings:
    (folder / "bad.jsonl.zst").write_bytes(zstandard.compress(lines_of(text_rows(100, 200)))[:-30])
    return make_source(folder / "bad.jsonl.zst", "bad")


def no_text_column(folder: Path) -> SourceSettings:
    pq.write_table(pa.table({"body": ["a", "b"]}), folder / "bad.parquet")
    return make_source(folder / "bad.parquet", "bad")


def empty_file(folder: Path) -> SourceSettings:
    (folder / "bad.jsonl").touch()
    return make_source(folder / "bad.jsonl", "bad")


@pytest.mark.parametrize(
    ("make_bad", "problem"),
    [
        (truncated_gzip, r"bad.jsonl.gz is cut short .*fetch or make it again, or set on_damage: skip"),
        (truncated_zstandard, r"bad.jsonl.zst is cut short .*on_damage: skip"),
        (no_text_column, r"bad.parquet has no (field|column) 'text' .*it has: body"),
        (empty_file, r"bad.jsonl has no documents; give files with text in them"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_is_wrong_is_named_and_once_mended_the_rerun_goes_on_to_the_same_bytes(
    make_bad: Callable[[Path], SourceSettings], problem: str, workers: int, tmp_path: Path
) -> None:
    run, fresh = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "fresh")
    good = make_source(write_rows(tmp_path / "good.jsonl", text_rows(0, 60)), "good")
    bad = make_bad(tmp_path)
    with pytest.raises(UserError, match=f"^corpus source 'bad': .*{problem}"):
        build(corpus_settings(good, bad), run, workers)
    assert not run.corpus_manifest.exists()
    write_rows(Path(bad.path), text_rows(100, 160))
    build(corpus_settings(good, bad), run, workers)
    build(corpus_settings(good, bad), fresh)
    assert all_files(run) == all_files(fresh)


def test_what_is_wrong_in_single_records_is_counted_and_has_its_fate(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    path = tmp_path / "odd.jsonl"
    path.write_bytes(
        lines_of(text_rows(0, 60))
        + b'{"id": "bytes", "text": "bl\xe5b\xe6r"}\n'
        + b"no JSON\n"
        + b'{"id": "nulls", "text": "\\u0000\\u0000"}\n'
        + b'{"id": "half", "text": "half \\ud83d"}\n'
        + b'{"id": "none"}\n'
        + b'{"id": "long", "text": "'
        + b"a" * 20_000
        + b'"}\n'
    )
    counts = build(corpus_settings(make_source(path, max_document_bytes=10_000)), run)["news"]
    assert counts["read"] == 66
    dropped = {(fate.step, fate.rule) for fate in fates_of(run, "news") if fate.outcome == "dropped"}
    assert len(texts_of(run, "news", "train")) + len(texts_of(run, "news", "heldout")) == 60
    assert sum(sum(rules.values()) for rules in counts["dropped"].values()) == 6
    assert ("read", "max_document_bytes") in dropped
    assert ("read", "half_characters") in dropped
    assert ("encoding", "empty") in dropped


def test_two_sources_may_give_the_same_ids(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    rows = [row | {"id": f"n{number}"} for number, row in enumerate(text_rows(500, 560))]
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", rows), "second")
    counts = build(corpus_settings(first, second), run)
    for source in ("first", "second"):
        assert {fate.id for fate in fates_of(run, source)} == {f"n{number}" for number in range(60)}
        assert counts[source]["dropped"] == {}


def test_a_weight_for_a_source_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
    with pytest.raises(UserError, match=r"mixture.weights names 'pyton-docs', which is no source"):
        load_recipe(recipe, ("mixture.weights.pyton-docs=0.1",))


MEASURED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from corpus_rows import build, corpus_settings, make_source
from normistral.records import RunFolder, peak_memory_bytes
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    build(corpus_settings(make_source(folder / "long.jsonl")), RunFolder(folder / "run"))
    print(peak_memory_bytes())
"""


@pytest.mark.slow
def test_a_line_of_500_megabytes_is_skipped_and_never_held(tmp_path: Path) -> None:
    with (tmp_path / "long.jsonl").open("wb") as file:
        file.write(lines_of(text_rows(0, 30)))
        file.write(b'{"id": "long", "text": "')
        for _ in range(500):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n')
        file.write(lines_of(text_rows(30, 60)))
    script = tmp_path / "measured.py"
    script.write_text(MEASURED)
    done = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    assert int(done.stdout) < 300_000_000
    run = RunFolder(tmp_path / "run")
    assert len(texts_of(run, "news", "train")) + len(texts_of(run, "news", "heldout")) == 60
    assert {fate.rule for fate in fates_of(run, "news") if fate.outcome == "dropped"} == {
        "max_document_bytes"
    }
