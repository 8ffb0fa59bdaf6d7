"""Which windows hold some of a document: equal to looking at each of their tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from normistral.pipeline.removed_documents import windows_with


@given(st.data())
def test_windows_that_hold_a_token_of_a_document_are_counted_once_each(data: st.DataObject) -> None:
    unique = data.draw(st.integers(1, 60))
    length = data.draw(st.integers(1, 20))
    first = data.draw(st.integers(0, unique - 1))
    size = data.draw(st.integers(1, unique - first))
    starts = np.array(sorted(data.draw(st.lists(st.integers(0, unique - 1), max_size=20))), dtype=np.int64)
    document = set(range(first, first + size))
    held = [{(start + step) % unique for step in range(length + 1)} for start in starts.tolist()]
    assert windows_with(starts, first, size, unique, length) == sum(
        bool(document & tokens) for tokens in held
    )
