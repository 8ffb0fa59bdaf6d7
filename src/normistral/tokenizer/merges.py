"""Learn BPE merges from distinct words and their counts, exactly and from any starting pieces.

Hugging Face's trainer takes texts, not counts, and takes the pair that is most frequent over all of them.
Here words come with a count for each group (a language, as a rule), and a pair's score is the sum of its
counts by group, each times the group's weight: so one table of counts serves any weights, and weights may
change while merges are learnt (`parity.py`). With one group the merges are those of Hugging Face's trainer,
ties included.

Legend: `S` places (each holds one piece of a word, all words one after another), `N` distinct words, `G`
groups, `Q` pairs ever seen. Every merge touches only the places where its pair stands, a few hundred as a
rule, and works on them as arrays.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_OCCURRENCES = 2
"""A pair that the text has once is a coincidence and no merge, whatever its weight."""
WEIGHT_UNIT = 1 << 16
"""Weights of groups are whole numbers up to this, so that sums do not depend on their order."""
MAX_COUNT = 1 << 44
"""Pieces of all words of all groups stay below, so that scores (times `WEIGHT_UNIT`) never leave 63 bits: the
32-bit pair counts of other trainers overflow at two thousand million."""
POOL = 4096
"""Candidates kept in order at a time; the others wait until those are used up."""
MERGES_TOLD = 256
"""How many merges pass between two words about progress."""
NOWHERE = -1
NEVER = -(1 << 62)
"""Occurrences of a pair that is not to be merged: no number of further ones brings it back."""


@dataclass(frozen=True)
class WordTable:
    """Distinct words as pieces, with their counts."""

    pieces_S: NDArray[np.int32]
    """Ids of the words' pieces, all words one after another."""
    lengths_N: NDArray[np.int32]
    """Pieces of each word, at least one."""
    counts_GN: NDArray[np.int64]
    """How often each group has each word, weights not yet applied."""
    occurrences_N: NDArray[np.int64]
    """How often the text really has each word (`counts_GN` may be scaled)."""
    measured_GN: NDArray[np.int64] | None = None
    """What the pieces that a group needs are counted on: counts of other text, say; None: `counts_GN`."""


@dataclass(frozen=True)
class Merges:
    """What was learnt."""

    pairs: list[tuple[int, int]]
    """Ids of the two pieces, in the order in which they are merged."""
    pieces: list[bytes]
    """Spelling of each id, those given first."""
    pieces_by_group_G: NDArray[np.int64]
    """Pieces that each group's words are cut into at the end (as measured)."""


WeightsOfGroups = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From the pieces that each group needs so far [G] to the groups' weights [G], whole numbers up to
`WEIGHT_UNIT`."""


def even_weights(pieces_by_group_G: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each group's counts as they are."""
    return np.ones(len(pieces_by_group_G), dtype=np.int64)


def learn_merges(
    table: WordTable,
    pieces: Sequence[bytes],
    new_pieces: int,
    weights_of_groups: WeightsOfGroups = even_weights,
    merges_between_weights: int | None = None,
    new_spellings_only: bool = False,
    on_merges: Callable[[int], None] | None = None,
) -> Merges:
    """Merge the best pair of neighbours again and again.

    Of pairs with equal scores the one with the lower ids is taken. A merge that spells a piece that is there
    already keeps that piece's id.

    Args:
        table: the words; left as it is.
        pieces: spelling of each id of the table.
        new_pieces: pieces wanted beyond those; fewer are made where no pair occurs twice.
        weights_of_groups: asked at the beginning and after every `merges_between_weights` merges.
        merges_between_weights: None: weights stay.
        new_spellings_only: never merge a pair that spells a piece that is there already (so that a vocabulary
            that is continued never comes upon its older merges again).
        on_merges: told now and then how many new pieces there are since the last time.

    Raises:
        ValueError: if counts are too large to be summed exactly.
    """
    state = _State(table)
    ids = {piece: number for number, piece in enumerate(pieces)}
    spelt = list(pieces)
    pairs: list[tuple[int, int]] = []
    wanted = len(ids) + new_pieces
    while len(ids) < wanted:
        weights = weights_of_groups(state.pieces_by_group_G)
        round_ends = len(pairs) + (merges_between_weights or (1 << 62))
        state.weigh(weights)
        found_any = False
        while len(ids) < wanted and len(pairs) < round_ends:
            best = state.best_pair()
            if best is None:
                break
            found_any = True
            slot, left, right = best
            piece = spelt[left] + spelt[right]
            is_new = piece not in ids
            if new_spellings_only and not is_new:
                state.seen_Q[slot] = NEVER
                continue
            if is_new:
                ids[piece] = len(spelt)
                spelt.append(piece)
                if on_merges and len(spelt) % MERGES_TOLD == 0:
                    on_merges(MERGES_TOLD)
            pairs.append((left, right))
            state.merge(slot, left, right, ids[piece], is_new=is_new)
        if not found_any:
            break
    return Merges(pairs, spelt, state.pieces_by_group_G)


class _State:
    """Words as linked pieces, and where each pair stands.

    A pair has a slot `q`. Its places are a stretch of `places` (all its occurrences arise in one merge: that
    which makes the younger of its two pieces); those where it no longer stands are passed over.
    """

    def __init__(self, table: WordTable) -> None:
        size = len(table.pieces_S)
        self.piece_S = table.pieces_S.astype(np.int32)
        self.counts_GN = table.counts_GN
        self.occurrences_N = table.occurrences_N
        self.word_S = np.repeat(np.arange(len(table.lengths_N), dtype=np.int32), table.lengths_N)
        last_N = np.cumsum(table.lengths_N) - 1
        self.next_S = np.arange(1, size + 1, dtype=np.int32)
        self.next_S[last_N] = NOWHERE
        self.previous_S = np.arange(-1, size - 1, dtype=np.int32)
        self.previous_S[last_N[:-1] + 1] = NOWHERE
        if size:
            self.previous_S[0] = NOWHERE
        self.slot_S = np.full(size, NOWHERE, dtype=np.int32)
        self.just_merged_S = np.zeros(size, dtype=bool)
        lengths_N = table.lengths_N.astype(np.int64)
        self.measured_GN = table.counts_GN if table.measured_GN is None else table.measured_GN
        self.pieces_by_group_G = self.measured_GN @ lengths_N
        if size and (table.counts_GN.astype(np.float64) @ lengths_N).sum() >= MAX_COUNT:
            raise ValueError(f"counts of words sum up to {MAX_COUNT:,} pieces or more; scale them down")
        self.places = np.empty(2 * size + 1, dtype=np.int32)
        self.places_used = 0
        self.slots_used = 0
        room = max(1024, size // 8)
        self.first_Q = np.empty(room, dtype=np.int64)
        self.length_Q = np.empty(room, dtype=np.int64)
        self.key_Q = np.empty(room, dtype=np.int64)
        self.seen_Q = np.empty(room, dtype=np.int64)
        self.count_GQ = np.empty((len(table.counts_GN), room), dtype=np.int64)
        self.more_places: dict[int, list[NDArray[np.int32]]] = {}
        self.weights_G = even_weights(self.pieces_by_group_G)
        self.pool: list[tuple[int, int, int]] = []
        self.threshold = 0
        pairs_at = np.flatnonzero(self.next_S != NOWHERE).astype(np.int32)
        if len(pairs_at):
            self._add_pairs(pairs_at, may_exist=False)

    # --- choosing

    def weigh(self, weights_G: NDArray[np.int64]) -> None:
        """Set the groups' weights, and with them the order of the candidates."""
        assert (weights_G >= 0).all(), weights_G
        assert (weights_G <= WEIGHT_UNIT).all(), weights_G
        self.weights_G = weights_G.astype(np.int64)
        self._fill_pool()

    def best_pair(self) -> tuple[int, int, int] | None:
        """Slot and pieces of the pair with the highest score now; None where none is left."""
        while True:
            while self.pool:
                negative, key, slot = self.pool[0]
                score = self._score(slot)
                if score == -negative and self.seen_Q[slot] >= MIN_OCCURRENCES:
                    heapq.heappop(self.pool)
                    return slot, key >> 32, key & 0xFFFFFFFF
                if score >= self.threshold and self.seen_Q[slot] >= MIN_OCCURRENCES:
                    heapq.heapreplace(self.pool, (-score, key, slot))
                else:
                    heapq.heappop(self.pool)
            if not self._fill_pool():
                return None

    def _score(self, slot: int) -> int:
        if len(self.weights_G) == 1:
            return int(self.count_GQ[0, slot]) * int(self.weights_G[0])
        return int(self.weights_G @ self.count_GQ[:, slot])

    def _fill_pool(self) -> bool:
        """Take the best candidates of all pairs (and all that equal the last of them)."""
        used = self.slots_used
        scores = self.weights_G @ self.count_GQ[:, :used]
        possible = np.flatnonzero((scores > 0) & (self.seen_Q[:used] >= MIN_OCCURRENCES))
        scores = scores[possible]
        if len(scores) > POOL:
            self.threshold = int(np.partition(scores, len(scores) - POOL)[len(scores) - POOL])
            chosen = scores >= self.threshold
            possible, scores = possible[chosen], scores[chosen]
        else:
            self.threshold = 1
        keys = self.key_Q[possible]
        self.pool = list(zip((-scores).tolist(), keys.tolist(), possible.tolist(), strict=True))
        heapq.heapify(self.pool)
        return bool(self.pool)

    # --- merging

    def merge(self, slot: int, left: int, right: int, merged: int, *, is_new: bool) -> None:
        """Replace `left right` by `merged` wherever it stands."""
        at = self._places_of(slot, overlapping=left == right)
        right_at = self.next_S[at]
        words = self.word_S[at]
        self.pieces_by_group_G = self.pieces_by_group_G - self.measured_GN[:, words].sum(axis=1)
        # Pairs that end: the merged one, those behind it and those before it. A place that is behind one
        # occurrence and before another is taken once.
        behind = right_at[self.slot_S[right_at] != NOWHERE]
        behind_slots = self.slot_S[behind]
        self.slot_S[behind] = NOWHERE
        self.slot_S[at] = NOWHERE
        before = self.previous_S[at]
        before = before[before != NOWHERE]
        before = before[self.slot_S[before] != NOWHERE]
        ending = np.concatenate([behind, before])
        self._count(np.concatenate([behind_slots, self.slot_S[before]]), ending, -1)
        self.count_GQ[:, slot] = 0
        self.seen_Q[slot] = 0
        # The words are linked anew.
        after = self.next_S[right_at]
        self.piece_S[at] = merged
        self.next_S[at] = after
        inside = after != NOWHERE
        self.previous_S[after[inside]] = at[inside]
        # Pairs that begin.
        before = self.previous_S[at]
        self.just_merged_S[at] = True
        before = before[before != NOWHERE]
        before = before[~self.just_merged_S[before]]
        self.just_merged_S[at] = False
        starting = np.concatenate([at[inside], before])
        if len(starting):
            self._add_pairs(starting, may_exist=not is_new)

    def _places_of(self, slot: int, *, overlapping: bool) -> NDArray[np.int32]:
        """Where a pair stands, in order."""
        first = self.first_Q[slot]
        stretches = [self.places[first : first + self.length_Q[slot]], *self.more_places.pop(slot, [])]
        at = np.concatenate(stretches) if len(stretches) > 1 else stretches[0]
        at = at[self.slot_S[at] == slot]
        if len(stretches) > 1:
            at = np.unique(at)
        if overlapping and len(at) > 1:
            # In a run such as `aaaa` the pair stands at every place; every second one is merged.
            follows = np.concatenate([[False], self.next_S[at[:-1]] == at[1:]])
            index = np.arange(len(at))
            run_starts = np.maximum.accumulate(np.where(follows, 0, index))
            at = at[(index - run_starts) % 2 == 0]
        return at

    def _count(self, slots: NDArray[np.int32], at: NDArray[np.int32], sign: int) -> None:
        """Add to (1) or take from (-1) the counts of pairs at these places."""
        words = self.word_S[at]
        np.add.at(self.seen_Q, slots, sign * self.occurrences_N[words])
        for group, counts_N in enumerate(self.counts_GN):
            np.add.at(self.count_GQ[group], slots, sign * counts_N[words])

    def _add_pairs(self, at: NDArray[np.int32], *, may_exist: bool) -> None:
        """Note the pairs that begin at these places.

        Args:
            at: places, no two the same.
            may_exist: the merged piece is an old one, so its pairs may have slots already.
        """
        keys = self.piece_S[at].astype(np.int64) << 32 | self.piece_S[self.next_S[at]]
        # Grouped by pair, and within a pair by place.
        order = np.lexsort((at, keys))
        at, keys = at[order], keys[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        lengths = np.diff(np.concatenate([first, [len(keys)]]))
        unique = keys[first]
        new = np.ones(len(unique), dtype=bool)
        slots = np.empty(len(unique), dtype=np.int32)
        if may_exist:
            known = np.flatnonzero(np.isin(self.key_Q[: self.slots_used], unique))
            if len(known):
                indices = np.searchsorted(unique, self.key_Q[known])
                slots[indices] = known
                new[indices] = False
                for index in indices.tolist():
                    stretch = at[first[index] : first[index] + lengths[index]]
                    self.more_places.setdefault(int(slots[index]), []).append(stretch)
        number = int(new.sum())
        self._make_room(number, len(at))
        made = np.arange(self.slots_used, self.slots_used + number, dtype=np.int32)
        slots[new] = made
        begin = self.places_used
        self.places[begin : begin + len(at)] = at
        self.places_used += len(at)
        self.first_Q[made] = begin + first[new]
        self.length_Q[made] = lengths[new]
        self.key_Q[made] = unique[new]
        self.seen_Q[made] = 0
        self.count_GQ[:, made] = 0
        self.slots_used += number
        slot_at = np.repeat(slots, lengths)
        self.slot_S[at] = slot_at
        self._count(slot_at, at, 1)
        if self.pool:
            scores = self.weights_G @ self.count_GQ[:, slots]
            good = np.flatnonzero((scores >= self.threshold) & (self.seen_Q[slots] >= MIN_OCCURRENCES))
            for index in good.tolist():
                heapq.heappush(self.pool, (-int(scores[index]), int(unique[index]), int(slots[index])))

    def _make_room(self, slots: int, places: int) -> None:
        if self.places_used + places > len(self.places):
            self.places = np.resize(self.places, int(1.3 * len(self.places)) + places)
        if self.slots_used + slots > len(self.key_Q):
            size = int(1.5 * len(self.key_Q)) + slots
            self.first_Q = np.resize(self.first_Q, size)
            self.length_Q = np.resize(self.length_Q, size)
            self.key_Q = np.resize(self.key_Q, size)
            self.seen_Q = np.resize(self.seen_Q, size)
            grown = np.empty((len(self.count_GQ), size), dtype=np.int64)
            grown[:, : self.slots_used] = self.count_GQ[:, : self.slots_used]
            self.count_GQ = grown
