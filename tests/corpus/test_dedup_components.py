"""Components of graphs: in memory and by star steps, against union-find; and pairs sorted beyond memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.corpus.dedup import pairs
from normistral.corpus.dedup.components import components, large_star, small_star, star_edges, with_neighbours
from normistral.corpus.dedup.groups import MAX_FIRSTS, first_alike
from normistral.corpus.dedup.pairs import (
    PAIR,
    DocumentRange,
    Pairs,
    merged,
    pairs_of,
    reading_pairs,
    sorted_unique,
    writing_pairs,
)
from normistral.corpus.dedup.sections import Sections, writing_sections
from normistral.errors import UserError

EDGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)


def as_pairs(edges: list[tuple[int, int]]) -> Pairs:
    return np.array(edges, PAIR)


def union_find(edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    parents = {node: node for edge in edges for node in edge}

    def root(node: int) -> int:
        while parents[node] != node:
            node = parents[node]
        return node

    for a, b in edges:
        a, b = root(a), root(b)
        parents[max(a, b)] = min(a, b)
    return sorted((node, root(node)) for node in parents)


def star_rounds(edges: list[tuple[int, int]], block: int) -> tuple[list[tuple[int, int]], int]:
    """The star algorithm with all documents in one group: labels, and the number of large stars."""
    both = as_pairs([edge for a, b in edges if a != b for edge in ((a, b), (b, a))])
    rounds = 0
    while True:
        rounds += 1
        blocks = list(with_neighbours(merged([sorted_unique(both)], block)))
        steps = [large_star(near) for near in blocks]
        if all(is_star for _, is_star in steps):
            break
        large = sorted_unique(np.concatenate([new for new, _ in steps]))
        both = np.concatenate([small_star(near) for near in with_neighbours(merged([large], block))])
    labels = [(int(a), min(int(a), int(b))) for near in blocks for a, b in near.edges[near.first]]
    return labels, rounds


@given(EDGES)
def test_components_are_those_of_union_find(edges: list[tuple[int, int]]) -> None:
    found = components(as_pairs(edges)["a"], as_pairs(edges)["b"])
    assert found.tolist() == union_find(edges)


@given(EDGES)
def test_stars_connect_the_same_documents_with_the_fewest_edges(edges: list[tuple[int, int]]) -> None:
    stars = star_edges(as_pairs(edges)["a"], as_pairs(edges)["b"])
    wanted = [(a, b) for a, b in union_find(edges) if a != b]
    assert sorted(stars.tolist()) == sorted(wanted + [(b, a) for a, b in wanted])


@pytest.mark.parametrize("block", [1, 3, 1000])
@settings(max_examples=60)
@given(edges=EDGES)
def test_star_steps_end_in_the_components_however_small_the_blocks(
    block: int, edges: list[tuple[int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "LEAST_BLOCK", 1)
        labels, _ = star_rounds(edges, block)
    assert labels == [label for label in union_find(edges) if label[0] in dict(union_find(_proper(edges)))]


def _proper(edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in edges if a != b]


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_a_chain_of_thousands_takes_few_rounds(order: str) -> None:
    nodes = np.arange(4096)
    if order == "shuffled":
        np.random.default_rng(1).shuffle(nodes)
    labels, rounds = star_rounds(list(zip(nodes[:-1].tolist(), nodes[1:].tolist(), strict=True)), 1 << 20)
    assert {label for _, label in labels} == {0}
    assert rounds <= 14  # log2 of the documents, and two


@given(st.lists(EDGES, max_size=5), st.integers(1, 30))
def test_merged_runs_are_all_pairs_once_in_order(runs: list[list[tuple[int, int]]], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "LEAST_BLOCK", 1)
        blocks = list(merged([sorted_unique(as_pairs(run)) for run in runs], block))
    together = [pair for each in blocks for pair in each.tolist()]
    assert together == sorted({pair for run in runs for pair in run})
    assert all(len(each) <= max(block, len(runs)) for each in blocks)


def test_pairs_written_in_any_order_are_read_by_ranges_of_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "RUN_PAIRS", 100)
    numbers = np.random.default_rng(1).integers(0, 500, (2, 1000), dtype=np.uint64)
    paths = [tmp_path / "0", tmp_path / "1"]
    for path, half in zip(paths, (numbers[:, :500], numbers[:, 500:]), strict=True):
        with writing_sections(path) as put, writing_pairs(put, "graph") as write:
            for start in range(0, 500, 30):
                write(pairs_of(*half[:, start : start + 30]))
    assert sum(1 for _ in Sections(paths[0]).runs("graph")) > 3
    read = [reading_pairs(paths, "graph", DocumentRange(start, start + 125)) for start in range(0, 500, 125)]
    together = [pair for blocks in read for block in blocks for pair in block.tolist()]
    assert together == sorted(set(map(tuple, numbers.T.tolist())))


def test_a_file_cut_short_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with writing_sections(path) as put:
        put("numbers", np.arange(10))
        put("none", np.empty(0, PAIR))
    assert Sections(path)["numbers"].tolist() == list(range(10))
    assert len(Sections(path)["none"]) == 0
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"keys cannot be read .* --redo corpus"):
        Sections(path)


def test_of_a_group_each_is_linked_to_the_first_that_it_is_like() -> None:
    colours = np.array([0, 1, 0, 1, 2, 5, 5, 0])
    groups = np.array([0, 0, 0, 0, 0, 5, 5, 7])
    firsts = first_alike(groups, lambda these, those: colours[these] == colours[those])
    assert firsts.tolist() == [0, 1, 0, 1, 4, 5, 5, 7]


def test_a_group_of_many_unlike_documents_takes_few_comparisons() -> None:
    compared = 0

    def alike(these: np.ndarray, those: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(those)
        return np.zeros(len(those), np.bool_)

    firsts = first_alike(np.zeros(1000, np.int64), alike)
    assert firsts.tolist() == list(range(1000))
    assert compared < MAX_FIRSTS * 1000
