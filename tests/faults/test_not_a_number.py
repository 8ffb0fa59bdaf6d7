"""NaN on one of two processes: all leave the step out, and go on as one process does that leaves it out."""

from __future__ import annotations

import pytest
from fault_run import Workshop, checkpoints, metrics

from normistral.records import read_json, read_metrics

HOOKS = ("not_a_number_in_gradient", "not_a_number_in_loss")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_step_that_is_not_finite_on_one_process_is_left_out_on_all(hook: str, workshop: Workshop) -> None:
    alone, together = workshop.run(), workshop.run()
    assert workshop.train(alone, 1, [(hook, 0, [2])]).end() == [0]
    started = workshop.train(together, 2, [(hook, 1, [2])])
    assert started.end() == [0, 0], started.told()
    assert len(started.messages()) == 1, started.told()
    assert started.messages()[0].startswith("adapt: step 2 is left out: not finite (loss ")
    for one, other in zip(metrics(alone), metrics(together), strict=True):
        assert one["skipped_steps"] == other["skipped_steps"] == (one["step"] == 2)
        if one["step"] != 2:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
            assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
    assert [event["step"] for event in read_metrics(together / "adapt" / "events.jsonl")] == [2]
    assert read_json(together / "adapt" / "stage.json")["counts"]["skipped_steps"] == 1
    undisturbed = [line["loss"] for line in metrics(workshop.undisturbed(2))]
    assert undisturbed[:2] == [line["loss"] for line in metrics(together)][:2]
    assert undisturbed[3:] != [line["loss"] for line in metrics(together)][3:], "the step counted before"


def test_too_many_in_a_row_on_one_process_stop_all_with_one_sentence(workshop: Workshop) -> None:
    run = workshop.run()
    settings = ["adapt.max_skipped_in_a_row=3"]
    started = workshop.train(run, 2, [(HOOKS[0], 1, [3, 4, 5, 6])], settings)
    assert started.end() == [2, 2], started.told()
    assert "Traceback" not in started.told()
    messages = started.messages()
    assert [message.split(":")[1].strip() for message in messages[:3]] == [
        f"step {step} is left out" for step in (3, 4, 5)
    ], messages
    assert messages[3].startswith("normistral: adapt: 3 steps in a row were left out, up to step 5"), messages
    assert len(messages) == 4, messages
    assert checkpoints(run) == ["step-00000002", "step-00000004"]
