"""py3langid's classifier on many texts at once: the same answers, several times faster.

    texts ─► UTF-8 ─► features (byte n-grams) ─► counts ─► log1p(counts) @ weights ─► probabilities

py3langid (Lui & Baldwin 2012, retrained; BSD-3) walks an automaton over the bytes of a text in Python. The
state after a byte depends on the last few bytes alone (the longest n-gram), so a text can be cut into lanes
that begin that many bytes earlier, and the lanes of many texts take each step together in NumPy. Before this
is used, it has to give the package's own answers on a few sentences; else (another version with another
automaton) the package itself is asked, text by text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normistral.corpus.language_id.codes import code_of_label
from normistral.corpus.language_id.identifier import BEST, Ranking, by_code, ranking

RESET = 0xFF
"""A byte that UTF-8 doesn't use: it brings the automaton back to its start, and so parts texts."""
LANE_BYTES = 128
"""Steps that lanes take together, at most: few enough that many lanes fill NumPy's loops."""
GROUP_BYTES = 500_000
"""UTF-8 bytes walked at a time; bounds memory (about 60 bytes for each)."""
TOLERANCE = 1e-3
"""In a probability: sums are taken in another order than in the package."""
CHECK = (
    "Jeg bor i en liten by ved fjorden, og om vinteren går jeg på ski.",
    "Mun orun smávva gávpogaččas vuona gáttis, ja dálvit mun čuoiggan.",
    "ÞETTA ER LÍTIL BORG VIÐ FJÖRÐINN.",
    "Это маленький город у моря. 1234",
    "",
)


class Py3langid:
    """The model that comes inside the package py3langid: 139 languages, 4.5 MB, no download."""

    name = "py3langid"

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        package = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._automaton = _checked_automaton(package)
        self._package = None if self._automaton else package  # one of them holds memory
        self.known = frozenset(map(code_of_label, package.labels))

    def __reduce__(self) -> tuple[Any, ...]:
        return py3langid, ()  # another process loads its own

    def identify(self, texts: Sequence[str]) -> list[Ranking]:
        """The likeliest languages of each text, in order."""
        if self._automaton is None:
            assert self._package is not None
            return [ranking(self._package.rank(text)) for text in texts]
        codes = self._automaton.codes
        return [
            [
                (codes[index], float(probabilities[index]))
                for index in np.argsort(-probabilities, stable=True)[:BEST]
            ]
            for probabilities in self._automaton.probabilities(texts)
        ]


@lru_cache(maxsize=1)
def py3langid() -> Py3langid:
    """The identifier of this process; loading it takes a second and 130 MB."""
    return Py3langid()


def _checked_automaton(package: Any) -> Automaton | None:
    try:
        automaton = Automaton(package)
        found = list(automaton.probabilities(CHECK))
    except (AttributeError, TypeError, ValueError, IndexError):
        return None
    for text, probabilities in zip(CHECK, found, strict=True):
        expected = by_code(package.rank(text))
        for code, probability in zip(automaton.codes, probabilities.tolist(), strict=True):
            if abs(probability - expected[code]) > TOLERANCE:
                return None
    return automaton


class Automaton:
    """py3langid's automaton and weights as arrays."""

    def __init__(self, package: Any) -> None:
        rows = np.frombuffer(package.tk_nextmove, np.dtype(package.tk_nextmove.typecode)).reshape(-1, 256)
        row_of_state = np.frombuffer(package.tk_row, np.dtype(package.tk_row.typecode)).astype(np.intp)
        if rows[:, RESET].any():
            raise ValueError("a byte that UTF-8 doesn't use does not lead back to the start")
        self._next_state = rows.ravel()  # the package's own memory: 39 MB
        self._offset_of_state = (row_of_state * 256).astype(np.int32)
        self._feature_of_state = np.array(package.tk_output, np.int32)
        self._weights = np.asarray(package.nb_ptc, np.float32)
        self._prior = np.asarray(package.nb_pc, np.float32)
        codes = [code_of_label(label) for label in package.nb_classes]
        self.codes = sorted(set(codes))
        """What the columns of `probabilities` stand for, in alphabetical order."""
        self._by_code = np.array(sorted(range(len(codes)), key=codes.__getitem__))
        self._first_of_code = np.searchsorted(np.array(codes)[self._by_code], self.codes)
        self._memory = _longest_feature(rows, row_of_state)

    def probabilities(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The probability of each code, for each text in turn."""
        for encoded in _grouped(texts):
            scores = self._scores(encoded)
            temperatures = np.sqrt([[max(len(text), 1)] for text in encoded]).astype(np.float32)
            scores -= scores.max(1, keepdims=True)
            odds = np.exp(scores / temperatures)
            odds /= odds.sum(1, keepdims=True)
            yield from np.add.reduceat(odds[:, self._by_code], self._first_of_code, axis=1)

    def _scores(self, encoded: list[bytes]) -> NDArray[np.float32]:
        """Log-probabilities of the labels, a row for each text."""
        features = self._features(encoded)
        number_of_features = len(self._weights)
        text_of_byte = np.repeat(np.arange(len(encoded)), [len(text) + self._memory for text in encoded])
        is_feature = features >= 0
        keys = text_of_byte[is_feature] * number_of_features + features[is_feature]
        present, counts = np.unique(keys, return_counts=True)
        logs = np.log1p(counts.astype(np.float32))
        bounds = np.searchsorted(present, np.arange(len(encoded) + 1) * number_of_features)
        present %= number_of_features
        scores = np.zeros((len(encoded), len(self._prior)), np.float32)
        for row, begin, end in zip(scores, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if begin < end:  # not `@`: the sum of BLAS depends on its number of threads
                np.einsum("f,fl->l", logs[begin:end], self._weights[present[begin:end]], out=row)
                row += self._prior
        return scores

    def _features(self, encoded: list[bytes]) -> NDArray[np.int32]:
        """The feature that each byte completes, or -1; before each text stand `_memory` bytes of nothing."""
        gap = bytes([RESET]) * self._memory
        stream = b"".join(part for text in encoded for part in (gap, text))
        lane_bytes = max(16, min(LANE_BYTES, len(stream) // 256))
        lanes = -(-len(stream) // lane_bytes)
        padded = np.full(self._memory + lanes * lane_bytes, RESET, np.uint8)
        padded[self._memory : self._memory + len(stream)] = np.frombuffer(stream, np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self._memory + lane_bytes)[::lane_bytes]
        bytes_by_step = np.ascontiguousarray(windows.T).astype(np.int32)
        states = np.zeros(lanes, np.int32)
        states_by_step = np.empty((lane_bytes, lanes), np.int32)
        for step, step_bytes in enumerate(bytes_by_step):
            states = self._next_state[self._offset_of_state[states] + step_bytes]
            if step >= self._memory:
                states_by_step[step - self._memory] = states
        return self._feature_of_state[states_by_step.T.ravel()][: len(stream)]


def _longest_feature(rows: NDArray[Any], row_of_state: NDArray[np.intp]) -> int:
    """Bytes after which the automaton has forgotten where it began: the depth of its deepest state."""
    is_reached = np.zeros(len(row_of_state), bool)
    is_reached[0] = True
    front = np.array([0])
    depth = 0
    while True:
        is_next = np.zeros_like(is_reached)
        is_next[rows[np.unique(row_of_state[front])].ravel()] = True
        front = np.flatnonzero(is_next & ~is_reached)
        if not len(front):
            return depth
        is_reached[front] = True
        depth += 1


def _grouped(texts: Sequence[str]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for text in texts:
        encoded = _encoded(text)
        if group and size + len(encoded) > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(encoded)
        size += len(encoded)
    if group:
        yield group


def _encoded(text: str) -> bytes:
    """As py3langid reads a text: capitals alone become small letters."""
    if text.isupper():
        text = text.lower()
    return unicodedata.normalize("NFC", text).encode(errors="surrogatepass")
