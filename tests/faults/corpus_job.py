"""A corpus to be built in a process of its own, which a test may kill: `corpus_job.py TEXTS RUN`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
from corpus_rows import build, corpus_settings, made_up, make_source, write_rows

from normistral.recipe import CorpusSettings
from normistral.records import RunFolder


def write_texts(folder: Path) -> None:
    """Two sources of a few hundred kilobytes, which have some texts in common, and nearly in common."""
    for source in range(2):
        rows = []
        for number in range(300):
            text = made_up(number + 250 * source, 120)
            rows.append({"id": f"n{number}", "text": text + " Ny slutt." * (number % 7 == 0)})
        write_rows(folder / f"{source}.jsonl", rows)


def settings(folder: Path) -> CorpusSettings:
    """Settings that make several tasks of each source."""
    sources = [make_source(folder / f"{source}.jsonl", f"s{source}") for source in range(2)]
    return corpus_settings(*sources, part_bytes=80_000)


if __name__ == "__main__":
    build(settings(Path(sys.argv[1])), RunFolder(Path(sys.argv[2])), workers=2)
