"""The memorisation audit: a model that knows its text by heart is recognised, and one that does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from normistral.dataset import Passage
from normistral.evaluation.memorisation import (
    group_of,
    heldout_passages,
    matched_tokens,
    measure_memorisation,
    wilson_interval,
)
from normistral.inference import LoadedModel, load

VOCABULARY = 50


def loaded_knowing(known: list[list[int]]) -> LoadedModel:
    """A toy that continues what it knows by heart word for word, and writes 0 after all else."""

    def model(tokens_BT: torch.Tensor, logits_to_keep: int) -> Any:
        logits = torch.zeros(*tokens_BT.shape, VOCABULARY)
        for row, tokens in enumerate(tokens_BT.tolist()):
            for place in range(len(tokens)):
                following = next(
                    (text[place + 1] for text in known if text[: place + 1] == tokens[: place + 1]), 0
                )
                logits[row, place, following] = 1
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])

    return LoadedModel(model, None, torch.device("cpu"))  # type: ignore[arg-type]


def passages(count: int, times: int, seed: int, source: str = "nob") -> list[Passage]:
    random = np.random.default_rng(seed)
    return [Passage(source, source, times, random.integers(1, VOCABULARY, 12)) for _ in range(count)]


def test_a_model_that_knows_what_it_saw_often_is_recognised() -> None:
    rare, often, heldout = passages(20, 1, 1), passages(20, 16, 2), passages(20, 0, 3)
    often_in_sme = passages(5, 20, 4, "sme")
    known = [p.tokens.tolist() for p in (*often, *often_in_sme)] + [rare[0].tokens.tolist()]
    found = measure_memorisation(loaded_knowing(known), [*rare, *often, *often_in_sme], heldout, 8, 4)
    rows = {(row.source, row.group): row for row in found.rows}
    assert rows["all", "held out"].share == 0
    assert rows["all", "1"].verbatim == 1
    assert rows["nob", "9–16"].share == 1
    assert rows["sme", "17+"].share == 1
    assert rows["nob", "9–16"].mean_matched == 4
    assert rows["all", "1"].share_low < 0.05 < rows["all", "1"].share_high
    assert found.rows[0].group == "held out"
    assert [row.source for row in found.rows].index("all") == 0


def test_tokens_count_until_the_first_that_is_wrong() -> None:
    passage = Passage("nob", "nob", 3, np.arange(1, 13))
    forgot = [*range(1, 11), 40, 12]
    assert matched_tokens(loaded_knowing([forgot]), [passage], 8, 4) == [2]


def test_one_pass_tells_what_greedy_writing_would(tiny_model_folder: Any) -> None:
    loaded = load(tiny_model_folder, "float32", None, "cpu")
    prompt = torch.tensor([[1, 40, 50, 60, 70, 80]])
    with torch.inference_mode():
        model: Any = loaded.model
        written = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=10,
            min_new_tokens=10,
            pad_token_id=3,
            eos_token_id=None,
        )[0].numpy()
    known = Passage("nob", "nob", 1, written)
    changed = written.copy()
    changed[12] = (changed[12] + 1) % 400
    other = Passage("nob", "nob", 1, changed)
    assert matched_tokens(loaded, [known, other], 6, 10) == [10, 6]


@pytest.mark.parametrize(
    ("times", "group"),
    [
        (0, "0"),
        (1, "1"),
        (2, "2"),
        (3, "3–4"),
        (4, "3–4"),
        (8, "5–8"),
        (16, "9–16"),
        (17, "17+"),
        (99, "17+"),
    ],
)
def test_groups(times: int, group: str) -> None:
    assert group_of(times) == group


def test_the_interval_holds_the_share_and_stays_within_0_and_1() -> None:
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    low, high = wilson_interval(50, 100)
    assert (low, high) == (pytest.approx(0.404, abs=0.001), pytest.approx(0.596, abs=0.001))


def test_held_out_passages_are_the_first_long_enough_documents_of_each_source() -> None:
    documents = [("nob", "nob", list(range(size))) for size in (3, 9, 10, 11)] + [("sme", "sme", [1] * 20)]
    chosen = heldout_passages(documents, 9, 2)
    assert [(p.source, len(p.tokens)) for p in chosen] == [("nob", 9), ("nob", 9), ("sme", 9)]
