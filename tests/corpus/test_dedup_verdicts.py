"""Deduplication as a whole: against comparing all pairs, over division and order, and after kills."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import dill
import pytest
from datatrove.pipeline.base import PipelineStep
from dedup_corpora import (
    MANY_TASKS,
    MANY_TASKS_AND_STARS,
    ONE_TASK_A_PHASE,
    judge,
    judge_slowly,
    planted_corpus,
    run_in_process,
    some_words,
    write_keys,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normistral.corpus.dedup import KeyWriter, deduplicate, keys, read_verdicts
from normistral.corpus.dedup.plan import Sizes
from normistral.corpus.documents import Document, Dropped
from normistral.errors import UserError
from normistral.recipe import DedupSettings

DIVISIONS = (ONE_TASK_A_PHASE, MANY_TASKS_AND_STARS)
BANDS_ALONE = DedupSettings(verify=None)


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normistral.records.files.flush_to_disk", lambda path: None)


SIZES = pytest.mark.parametrize(
    "sizes",
    [ONE_TASK_A_PHASE, MANY_TASKS, MANY_TASKS_AND_STARS],
    ids=["one task", "many tasks", "many tasks and stars"],
)


@SIZES
@pytest.mark.parametrize("near", [True, False])
def test_verdicts_are_those_of_comparing_all_pairs(tmp_path: Path, sizes: Sizes, near: bool) -> None:
    corpus = planted_corpus(seed=1)
    dedup = DedupSettings(near=near, verify=None)
    expected = judge_slowly(corpus, dedup)
    kinds = Counter(verdict.kind for task in expected for verdict in task)
    assert kinds["exact"] >= 10
    assert (kinds["near"] >= 10) == near
    assert judge(tmp_path, corpus, dedup, sizes) == expected


@SIZES
def test_runs_within_a_file_change_nothing(
    tmp_path: Path, sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = planted_corpus(seed=2)
    expected = judge_slowly(corpus, BANDS_ALONE)
    monkeypatch.setattr(keys, "RUN_DOCUMENTS", 7)
    monkeypatch.setattr("normistral.corpus.dedup.names.RUN_DOCUMENTS", 7)
    assert judge(tmp_path, corpus, BANDS_ALONE, sizes) == expected


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), partition=st.integers(30, 300), group=st.integers(1, 60))
def test_any_corpus_divided_in_any_way_is_judged_alike(
    tmp_path: Path, seed: int, partition: int, group: int
) -> None:
    corpus = planted_corpus(seed, tasks=4, documents=12)
    sizes = Sizes((partition, partition), (group, group), 0)
    assert judge(tmp_path, corpus, BANDS_ALONE, sizes) == judge_slowly(corpus, BANDS_ALONE)


def test_the_survivors_do_not_depend_on_the_order_of_a_sources_files(tmp_path: Path) -> None:
    corpus = [
        (source, [(f"{task}-{name}", text) for name, text in dict(rows).items()])
        for task, (source, rows) in enumerate(planted_corpus(seed=3))
    ]
    changed = [corpus[place] for place in (1, 0, 3, 2, 5, 4)]
    one, other = (
        judge(tmp_path / name, tasks, BANDS_ALONE) for name, tasks in (("a", corpus), ("b", changed))
    )
    assert one == [other[place] for place in (1, 0, 3, 2, 5, 4)]


@pytest.mark.parametrize("seed", [7, 8])
def test_checked_links_do_not_depend_on_the_division(tmp_path: Path, seed: int) -> None:
    corpus = planted_corpus(seed)
    one, other = (judge(tmp_path / str(sizes.contracted_pairs), corpus, sizes=sizes) for sizes in DIVISIONS)
    assert one == other
    assert one != judge(tmp_path / "near", corpus, DedupSettings(near=False))


def test_a_chain_of_edits_is_one_component_and_its_earliest_source_is_kept(tmp_path: Path) -> None:
    words = some_words(200, seed=1)
    chain = [" ".join(words[:100])]
    for step in range(40):  # each differs from the next by one word, the ends by 40 of 100
        words[step] = words[150]
        chain.append(" ".join(words[:100]))
    corpus = [
        ("first", [("z", chain[40])]),
        ("second", [(f"a{step:02d}", text) for step, text in enumerate(chain[:40])]),
    ]
    verdicts = judge(tmp_path, corpus, sizes=Sizes((100, 100), (1, 1), 0))
    assert verdicts[0][0].kind == "keep"
    assert {(verdict.kind, verdict.of) for verdict in verdicts[1]} == {("near", "first/z")}


def test_an_exact_copy_names_the_copy_that_stood_for_it_and_that_one_the_survivor(tmp_path: Path) -> None:
    words = some_words(100, seed=1)
    text, edited = " ".join(words), " ".join([*words[:99], "annet"])
    corpus = [("web", [("b", text), ("a", edited), ("c", text)])]
    assert [(verdict.kind, verdict.of) for verdict in judge(tmp_path, corpus)[0]] == [
        ("near", "web/a"),
        ("keep", ""),
        ("exact", "web/b"),
    ]


def test_documents_shorter_than_an_ngram_are_compared_as_whole_texts(tmp_path: Path) -> None:
    corpus = [("web", [("a", "Les mer her"), ("b", "les mer HER!"), ("c", "Les mer her"), ("d", "")])]
    assert [verdict.kind for verdict in judge(tmp_path, corpus)[0]] == ["keep", "keep", "exact", "keep"]


def test_ids_given_twice_are_numbered_past_those_that_the_source_has(tmp_path: Path) -> None:
    names = ["x", "y", "x", "x#7", "x#7", "x", "y#02", "y", "#3", "", ""]
    rows = [(name, f"tekst {'abcdefghijkl'[place]}") for place, name in enumerate(names)]
    corpus = [("one", rows[:6]), ("one", rows[6:]), ("two", [("x", "en annen")])]
    numbers = [verdict.number for task in judge(tmp_path, corpus, sizes=MANY_TASKS) for verdict in task]
    assert numbers == [1, 1, 8, 1, 2, 9, 1, 2, 1, 1, 4, 1]


def test_dropped_documents_have_a_row_and_a_number_but_are_nobodys_duplicates(tmp_path: Path) -> None:
    kept = Document("a", "en liten tekst som kommer to ganger", "web", "nob", "prose", "CC0-1.0")
    dropped = Document(**{**_fields(kept), "dropped": Dropped("rules", "short")})
    path = tmp_path / "keys"
    with KeyWriter(path, DedupSettings()) as writer:
        writer.add(dropped)
        writer.add(kept)
    deduplicate(tmp_path, [path], DedupSettings(), run_in_process)
    assert [(verdict.kind, verdict.number) for verdict in read_verdicts(tmp_path, 0)] == [
        ("keep", 1),
        ("keep", 2),
    ]


def _fields(document: Document) -> dict[str, object]:
    return {name: getattr(document, name) for name in Document.__slots__}


def test_empty_tasks_and_no_tasks_are_judged_too(tmp_path: Path) -> None:
    corpus = [("one", []), ("two", [("a", "tekst")]), ("three", [])]
    assert [[verdict.kind for verdict in task] for task in judge(tmp_path, corpus)] == [[], ["keep"], []]
    deduplicate(tmp_path / "none", [], DedupSettings(), run_in_process)


def test_links_between_documents_that_share_a_template_alone_are_taken_back(tmp_path: Path) -> None:
    vocabulary = some_words(5000, seed=1)
    template, rest = vocabulary[:70], vocabulary[70:]
    rows = [(f"{number:03d}", " ".join([*template, *rest[number * 30 :][:30]])) for number in range(150)]
    rows.append(("copy", rows[0][1] + " slutt"))
    corpus = [("a", rows[:75]), ("b", rows[75:])]
    trusting = judge(tmp_path / "a", corpus, BANDS_ALONE, MANY_TASKS)
    checking = judge(tmp_path / "b", corpus, DedupSettings(verify=0.75), MANY_TASKS)
    drops = [
        sum(verdict.kind == "near" for task in each for verdict in task) for each in (trusting, checking)
    ]
    assert drops[0] > 20
    assert drops[1] <= 2
    assert checking[1][-1].of == "a/000"


def test_each_phase_can_be_sent_to_another_process(tmp_path: Path) -> None:
    corpus = planted_corpus(seed=4)

    def through_dill(name: str, steps: object, tasks: int) -> None:
        run_in_process(name, dill.loads(dill.dumps(steps)), tasks)

    expected = judge(tmp_path / "a", corpus, sizes=MANY_TASKS_AND_STARS)
    assert judge(tmp_path / "b", corpus, None, MANY_TASKS_AND_STARS, through_dill) == expected


def test_settings_that_other_files_were_written_with_are_refused_by_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_keys(tmp_path, planted_corpus(seed=1, tasks=1), DedupSettings())
    monkeypatch.setattr(keys, "KEYS_METHOD", "keys 2")
    with pytest.raises(UserError, match=r"00000\.keys was made by another version .* --redo corpus"):
        deduplicate(tmp_path, paths, DedupSettings(), run_in_process)


def test_a_task_with_documents_of_two_sources_is_our_mistake(tmp_path: Path) -> None:
    with KeyWriter(tmp_path / "keys", DedupSettings()) as writer:
        writer.add(Document("a", "tekst", "one", "nob", "prose", "CC0-1.0"))
        with pytest.raises(ValueError, match="a task has one source, one; got a document of two"):
            writer.add(Document("a", "tekst", "two", "nob", "prose", "CC0-1.0"))


def test_a_key_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(RuntimeError), KeyWriter(path, DedupSettings()) as writer:
        writer.add(Document("a", "tekst", "one", "nob", "prose", "CC0-1.0"))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def _work(work: Path, news: Connection, held_in: str) -> None:
    """A process that deduplicates, leaves out what is done, tells where it is and never ends `held_in`."""

    def run_phase(name: str, steps: Sequence[PipelineStep], tasks: int) -> None:
        for rank in range(tasks):
            marker = work / "completions" / f"{name}-{rank}"
            if not marker.exists():
                news.send(name)
                for step in steps:
                    step.run(None, rank, tasks)
                if name == held_in:
                    time.sleep(60)  # the kill may come late on a busy machine
                marker.parent.mkdir(exist_ok=True)
                marker.touch()

    judge(work, planted_corpus(seed=5), None, MANY_TASKS_AND_STARS, run_phase)
    news.send("done")


def _start(work: Path, held_in: str = "") -> tuple[BaseProcess, Connection]:
    processes = multiprocessing.get_context("fork")
    news, ours = processes.Pipe(duplex=False)
    process = processes.Process(target=_work, args=(work, ours, held_in))
    process.start()
    ours.close()
    return process, news


def test_killed_in_any_phase_it_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    process, news = _start(tmp_path / "whole")
    phases = list(dict.fromkeys(iter(news.recv, "done")))
    process.join()
    assert {"links", "large-star-1", "small-star-1", "candidates", "winners", "verdicts"} <= set(phases)
    for phase in phases:
        process, news = _start(tmp_path / "killed", held_in=phase)
        while news.recv() != phase:
            pass
        time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process, news = _start(tmp_path / "killed")
    assert list(iter(news.recv, "done"))[-1] == "verdicts"
    process.join()
    assert _checksums(tmp_path / "killed") == _checksums(tmp_path / "whole")


def _checksums(work: Path) -> dict[str, str]:
    return {
        str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(work.rglob("*"))
        if path.is_file() and not path.name.endswith(".partial")
    }


def test_verdicts_name_survivors_that_are_kept(tmp_path: Path) -> None:
    corpus = planted_corpus(seed=6, documents=80)
    verdicts = judge(tmp_path, corpus, sizes=MANY_TASKS_AND_STARS)
    kinds = {}
    for (source, rows), task in zip(corpus, verdicts, strict=True):
        for (name, _), verdict in zip(rows, task, strict=True):
            final = f"{name}#{verdict.number}" if verdict.number > 1 else name
            assert f"{source}/{final}" not in kinds
            kinds[f"{source}/{final}"] = verdict.kind
    for task in verdicts:
        for verdict in task:
            if verdict.kind == "near":
                assert kinds[verdict.of] == "keep"
            elif verdict.kind == "exact":
                assert kinds[verdict.of] in ("keep", "near")
