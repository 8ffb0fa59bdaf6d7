"""Connected components of a graph of documents: each gets the least document of its component as label.

In memory, where the edges fit; else by the alternating star algorithm (Kiveris et al., Connected Components
in MapReduce and Beyond, 2014), of which each step is a task for each range of documents:

    large star: each document tells its greater neighbours of the least one among itself and all neighbours
    small star: each document tells its lesser neighbours, and itself, of the least of them

Edges stay as many at most, components stay what they are, and after a number of steps that grows with the
logarithm of the documents each component is a star around its least document. Both steps need of a document's
edges, sorted, only the first, so that memory does not grow with the largest component.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normistral.corpus.dedup.pairs import Documents, Pairs, pairs_of

GRAPH = "graph"
"""Name of the edges in files: sorted, both directions."""


class Neighbours(NamedTuple):
    """A block of edges, with what is known of each one's first document `a`."""

    edges: Pairs
    """Sorted; the same document's edges may go on in the next block."""
    least: Documents
    """For each edge the least neighbour of its `a`, in this block or an earlier one."""
    first: NDArray[np.bool_]
    """Whether an edge is the first of its `a`."""


def components(a: Documents, b: Documents) -> Pairs:
    """Label every document of a graph that fits in memory.

    Args:
        a: one end of each edge.
        b: the other.

    Returns:
        Pairs (document, least document of its component), those least ones included, sorted.
    """
    nodes, ends = np.unique(np.concatenate((a, b)), return_inverse=True)
    left, right = ends[: len(a)], ends[len(a) :]
    labels = np.arange(len(nodes))
    while len(left):
        np.minimum.at(labels, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(labels, shorter := labels[labels]):
            labels = shorter
        left, right = labels[left], labels[right]
        apart = left != right
        left, right = left[apart], right[apart]
    return pairs_of(nodes, nodes[labels])


def star_edges(a: Documents, b: Documents) -> Pairs:
    """Edges, in both directions, of stars that connect what these edges connect: as few as can be."""
    stars = components(a, b)
    stars = stars[stars["a"] != stars["b"]]
    return np.concatenate((stars, pairs_of(stars["b"], stars["a"])))


def with_neighbours(blocks: Iterable[Pairs]) -> Iterator[Neighbours]:
    """Go through sorted edges and know for each the least neighbour of its first document."""
    document, least = None, np.uint64(0)
    for edges in blocks:
        a, b = edges["a"], edges["b"]
        first = np.ones(len(edges), np.bool_)
        first[1:] = a[1:] != a[:-1]
        goes_on = bool(a[0] == document) if document is not None else False
        leasts = b[np.maximum.accumulate(np.where(first, np.arange(len(edges)), 0))]
        if goes_on:
            leasts = np.where(a == document, least, leasts)
            first[0] = False
        yield Neighbours(edges, leasts, first)
        document, least = a[-1], leasts[-1]


def large_star(near: Neighbours) -> tuple[Pairs, bool]:
    """The large star over edges in both directions.

    Returns:
        New edges (greater, lesser), and whether these edges are part of stars around least documents.
    """
    a, b = near.edges["a"], near.edges["b"]
    greater = b > a
    is_star = np.where(greater, near.least > a, near.first).all()
    return pairs_of(b[greater], np.minimum(near.least, a)[greater]), bool(is_star)


def small_star(near: Neighbours) -> Pairs:
    """The small star over edges (greater, lesser).

    Returns:
        New edges in both directions.
    """
    a, b = near.edges["a"], near.edges["b"]
    others = b != near.least
    ends = np.concatenate((a[near.first], b[others]))
    centres = np.concatenate((near.least[near.first], near.least[others]))
    return np.concatenate((pairs_of(ends, centres), pairs_of(centres, ends)))
