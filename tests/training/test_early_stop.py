"""A stage that ends early: what decides it, and that resumed and several processes decide the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from early_stop_job import early_job
from training_job import assert_equal, go_back, lines_of, trained

from normistral.recipe import EarlyStopSettings, TrainingSettings
from normistral.training import train
from normistral.training.early_stop import EarlyStop

SETTINGS = EarlyStopSettings(window=2, least_gain=0.2, patience=2, min_steps=4)


def decided(losses: list[float | None], settings: EarlyStopSettings | None = SETTINGS) -> int | None:
    stop = EarlyStop(settings, last_decision=100)
    for done, loss in enumerate(losses, 1):
        stop.judge(done, loss)
    return stop.decided_at


def windows(*means: float) -> list[float | None]:
    return [loss for mean in means for loss in (mean + 0.5, mean - 0.5)]


def test_a_loss_that_goes_on_falling_ends_nothing() -> None:
    assert decided(windows(10, 9, 8, 7, 6, 5, 4)) is None
    assert decided(windows(10, 9, 8, 7, 6, 6, 5, 5, 4)) is None, "one flat window is not two in a row"


def test_flat_windows_in_a_row_end_the_stage() -> None:
    assert decided(windows(10, 8, 6, 5.9, 5.85, 5.8)) == 10
    assert decided(windows(10, 8, 8.5, 9, 9)) == 8, "a loss that rises is flat too"
    assert decided(windows(10, 10, 10, 10)) == 8, "so is one that never fell"


def test_nothing_is_decided_before_the_least_steps_nor_where_the_decay_has_begun() -> None:
    late = SETTINGS.model_copy(update={"min_steps": 11})
    assert decided(windows(10, 8, 6, 5.9, 5.85, 5.8), late) == 12
    stop = EarlyStop(SETTINGS, last_decision=10)
    for done, loss in enumerate(windows(10, 8, 6, 5.9, 5.85, 5.8), 1):
        stop.judge(done, loss)
    assert stop.decided_at is None
    assert decided(windows(10, 10, 10, 10), None) is None


def test_steps_that_were_left_out_have_no_say() -> None:
    losses = windows(10, 8, 6, 5.9, 5.85, 5.8)
    losses[6] = None
    losses[7] = 5.9
    assert decided(losses) == 10
    assert decided([*losses[:4], None, None, *losses[4:]]) == 12


def test_a_state_that_is_taken_up_decides_as_an_undisturbed_one() -> None:
    losses = windows(10, 8, 6, 5.9, 5.85, 5.8)
    for cut in range(len(losses)):
        stop = EarlyStop(SETTINGS, 100)
        for done, loss in enumerate(losses[:cut], 1):
            stop.judge(done, loss)
        again = EarlyStop(SETTINGS, 100)
        again.load_state_dict(stop.state_dict())
        for done, loss in enumerate(losses[cut:], cut + 1):
            again.judge(done, loss)
        assert again.decided_at == 10


def test_a_stage_ends_after_its_decay_and_tells_why(tmp_path: Path, tiny_model_folder: Path) -> None:
    job = early_job(tmp_path, tiny_model_folder)
    counts = train(job)
    assert (counts["steps"], counts["tokens"]) == (11, 11 * 4 * 32)
    rates = [line["learning_rate"] for line in lines_of(job)]
    assert rates[:8] == [1e-5] * 8
    assert rates[8:] == pytest.approx([1e-5, 1e-5 * 2 / 3, 1e-5 / 3])
    (event,) = lines_of(job, "events")
    assert event["event"] == "early stop"
    assert "realign ends after step 11, not 40: the gain per token has flattened" in event["message"]


def test_a_stage_killed_at_any_checkpoint_ends_at_the_same_step_in_the_same_bits(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    job = early_job(tmp_path, tiny_model_folder)
    whole = trained(job)
    for step in (10, 8, 6):  # in the decay, at the decision, before it
        go_back(job, step)
        assert_equal(trained(job), whole)
        assert len(lines_of(job)) == 11
        assert len(lines_of(job, "events")) == 1


def test_two_processes_decide_as_one_and_one_goes_on_with_their_checkpoint(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    alone = early_job(tmp_path / "alone", tiny_model_folder)
    train(alone)
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).parent / "early_stop_job.py"),
            str(tmp_path / "two"),
            str(tiny_model_folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    together = early_job(tmp_path / "two", tiny_model_folder)
    losses = [[line["loss"] for line in lines_of(job)] for job in (alone, together)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[1]) == 11
    go_back(together, 6)
    assert train(together)["steps"] == 11


@pytest.mark.parametrize("change", [{"schedule": {"shape": "cosine"}}, {"decay_from": 20}])
def test_what_cannot_end_early_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    settings = {
        "steps": 40,
        "global_batch_size": 4,
        "learning_rate": 1e-3,
        "schedule": {"shape": "trapezoid", "decay_steps": 3},
        "early_stop": {},
    }
    assert TrainingSettings.model_validate(settings).plateau_end == 37
    with pytest.raises(ValueError, match="early_stop needs a schedule of shape constant or trapezoid"):
        TrainingSettings.model_validate(settings | change)
