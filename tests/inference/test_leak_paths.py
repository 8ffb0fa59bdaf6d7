"""The leak probe on every path, the traps it guards against, and threads that share a model."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import StaticCache

from normistral.errors import UserError
from normistral.inference import LoadedModel, fill_masks, future_leak, load, score_texts
from normistral.inference.leak import Leak, is_leaky, leak_of, plain_int8
from normistral.inference.leak_table import LeakRow, leak_table, packed_mask

IDS = list(range(20, 34))


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


def test_every_path_moves_in_bidirectional_and_not_in_causal_mode(tiny_model_folder: Path) -> None:
    rows = list(leak_table(tiny_model_folder))
    assert len(rows) == 15
    for row in rows:
        assert row.is_right, row
        assert row.bidirectional is not None
        assert row.bidirectional > 1.0, row
        assert row.causal == 0.0, row
        assert not row.neighbour, row


def test_the_table_knows_a_wrong_row() -> None:
    assert LeakRow("right", 0.0, 5.0, 0.0).is_right
    assert not LeakRow("causal leaks", 0.1, 5.0).is_right
    assert not LeakRow("stays causal", 0.0, 0.0).is_right
    assert not LeakRow("neighbours look", 0.0, 5.0, 0.1).is_right
    assert is_leaky(Leak(0.1, 10.0))
    assert not is_leaky(Leak(1e-4, 10.0))


def test_int8_moves_a_little_through_its_outlier_columns_alone(tiny_model_folder: Path) -> None:
    """Noise of LLM.int8(), not of attention: the probe switches it off, and on again."""
    model = load(tiny_model_folder, quantize="8bit", device="cpu").model
    assert future_leak(model, IDS, is_causal=True) > 0.0
    with plain_int8(model):
        assert future_leak(model, IDS, is_causal=True) == 0.0
        assert future_leak(model, IDS, is_causal=False) > 1.0
    assert future_leak(model, IDS, is_causal=True) > 0.0


def test_packed_position_ids_are_heard_in_causal_mode_alone(tiny: LoadedModel) -> None:
    """The trap that `packed_mask` is for."""
    model: Any = tiny.model
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])

    def second_document(tokens: torch.Tensor, is_causal: bool, mask: torch.Tensor | None) -> torch.Tensor:
        row = torch.cat([tokens, torch.tensor(IDS[:4])])[None]
        more = {} if mask is None else {"attention_mask": mask}
        logits: torch.Tensor = model(
            row, position_ids=positions, is_causal=is_causal, use_cache=False, **more
        ).logits
        return torch.cat([logits[0, 4:], logits[0, -1:]])

    def moves(is_causal: bool, masked: bool) -> float:
        documents = torch.arange(2).repeat_interleave(4)
        mask = packed_mask(documents, is_causal, torch.float32) if masked else None
        return leak_of(lambda tokens: second_document(tokens, is_causal, mask), IDS[4:8], 400)

    assert moves(is_causal=True, masked=False) == 0.0
    assert moves(is_causal=False, masked=False) > 1.0, "transformers has learned to listen: simplify the docs"
    assert moves(is_causal=True, masked=True) == moves(is_causal=False, masked=True) == 0.0


def test_a_static_cache_read_both_ways_looks_at_slots_not_yet_written(tiny: LoadedModel) -> None:
    """Why `prefix_lm` refuses it: the probe alone would not notice."""
    model: Any = tiny.model
    ids = torch.tensor([IDS])

    def logits(is_causal: bool, static: bool) -> torch.Tensor:
        cache = StaticCache(config=model.config, max_cache_len=28) if static else None
        with torch.inference_mode():
            found: torch.Tensor = model(
                ids, past_key_values=cache, use_cache=static, is_causal=is_causal
            ).logits
        return found

    torch.testing.assert_close(logits(True, True), logits(True, False), atol=1e-4, rtol=0)
    assert (logits(False, True) - logits(False, False)).abs().max() > 0.1


def test_a_zero_mask_as_booleans_masks_everything(tiny: LoadedModel) -> None:
    """Another trap: in SDPA's booleans False hides, and the card's zeros would be all False."""
    with torch.inference_mode():
        hidden = leak_of(
            lambda t: tiny.model(t[None], attention_mask=torch.zeros(1, 1, 14, 14, dtype=torch.bool)).logits[
                0
            ],
            IDS,
            400,
        )
    assert hidden == 0.0


def test_an_adapter_reloaded_by_peft_alone_is_causal_again(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The trap behind 1.00 → 0.58: the adapter's folder does not keep the attention mode."""
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model

    trained = load(tiny_model_folder, mode="bidirectional").model
    assert probe_without_asking(trained) > 1.0
    adapted = get_peft_model(trained, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    assert probe_without_asking(adapted) > 1.0
    adapted.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert probe_without_asking(again) == 0.0, "PEFT has learned to keep it: simplify the docs"
    assert leak_of(lambda t: again(input_ids=t[None], is_causal=False).logits[0], IDS, 400) > 1.0


def probe_without_asking(model: Any) -> float:
    with torch.inference_mode():
        return leak_of(lambda t: model(input_ids=t[None]).logits[0], IDS, 400)


def test_threads_that_share_a_model_do_not_see_each_others_attention(tiny: LoadedModel) -> None:
    """A call's `is_causal` is a passing change of the shared config: without a lock, threads mix them up."""
    text = "Oslo er hovedstaden i Norge."
    masked = ["En søt lundefugl flyr over de<mask> norske fjorder.", "Oslo<mask>"]  # padded: needs a mask
    score, filling = score_texts(tiny, [text]), fill_masks(tiny, masked)
    reader_inside, writer_inside, reader_done = threading.Event(), threading.Event(), threading.Event()
    embeddings: Any = tiny.model.get_input_embeddings()

    def meet(*_: Any) -> None:
        """Hold the reader until the writer is in the same place, which a lock does not let happen."""
        if threading.current_thread().name.startswith("reader"):
            reader_inside.set()
            writer_inside.wait(0.3)
        else:
            writer_inside.set()
            reader_done.wait(0.3)

    hook = embeddings.register_forward_hook(meet)
    with ThreadPoolExecutor(1, "reader") as readers, ThreadPoolExecutor(1, "writer") as writers:
        read = readers.submit(fill_masks, tiny, masked)
        reader_inside.wait(10)
        written = writers.submit(score_texts, tiny, [text])
        assert read.result() == filling
        reader_done.set()
        assert written.result() == [score[0]]
    hook.remove()


def test_a_failed_call_gives_the_model_back(tiny: LoadedModel) -> None:
    with pytest.raises(IndexError):
        tiny.model(torch.tensor([[100_000]]))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(score_texts, tiny, ["Oslo"]).result(timeout=60)


def test_flex_attention_is_refused_on_a_cpu(tiny_model_folder: Path) -> None:
    with pytest.raises(UserError, match=r"flex_attention.*CPU.*'sdpa'"):
        load(tiny_model_folder, device="cpu", attention="flex_attention")


def test_a_model_that_does_not_do_as_asked_is_not_handed_out(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for leak, message in ((Leak(0.0, 0.0), "stays causal"), (Leak(2.0, 9.0), "sees the future")):
        module = sys.modules["normistral.inference.load"]
        monkeypatch.setattr(module, "probe_attention", lambda _, leak=leak: leak)
        with pytest.raises(UserError, match=message):
            load(tiny_model_folder)
