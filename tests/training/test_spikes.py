"""Spike detection: what leaps is found, noise is not, and a resumed run judges the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

from normistral.recipe import SpikeSettings
from normistral.training.spikes import SpikeDetector

SETTINGS = SpikeSettings(window=64, deviations=6.0)


def noise(steps: int, seed: int = 0) -> list[tuple[float, float]]:
    """Causal loss about 3 ± 0.05 and gradient norm about 0.8 ± 0.1 of each step."""
    random = np.random.default_rng(seed)
    return [(float(3 + 0.05 * a), float(0.8 + 0.1 * b)) for a, b in random.standard_normal((steps, 2))]


def after_noise(settings: SpikeSettings = SETTINGS, steps: int = 200) -> SpikeDetector:
    detector = SpikeDetector(settings)
    for loss, norm in noise(steps):
        detector.judge(loss, norm)
    return detector


@pytest.mark.parametrize("deviations", [6.0, 4.5])
def test_ordinary_noise_is_flagged_less_than_once_in_a_thousand_steps(deviations: float) -> None:
    detector = SpikeDetector(SpikeSettings(window=128, deviations=deviations))
    assert sum(detector.judge(*figures) is not None for figures in noise(2000, seed=1)) < 2


def test_a_leap_of_ten_deviations_in_either_figure_is_found_and_told() -> None:
    assert after_noise().judge(3.02, 0.79) is None
    told = after_noise().judge(3.5, 0.8)
    assert told
    assert told.startswith("loss 3.5, ")
    assert told.endswith(" of the last 64 steps")
    deviations = float(told.split(", ")[1].split()[0])
    assert deviations == pytest.approx(10, abs=3)
    told = after_noise().judge(3.0, 1.8)
    assert told
    assert told.startswith("gradient norm 1.8, ")
    assert (after_noise().judge(9.0, 90.0) or "").count("deviations above the mean") == 2


def test_a_fall_is_no_spike() -> None:
    assert after_noise().judge(0.1, 0.001) is None


def test_nothing_is_a_spike_before_the_window_is_half_full() -> None:
    detector = SpikeDetector(SETTINGS)
    for loss, norm in noise(31):
        assert detector.judge(loss, norm) is None
    assert detector.judge(3.0, 500.0) is None
    assert after_noise(steps=32).judge(3.0, 500.0) is not None


def test_what_is_left_out_is_not_remembered() -> None:
    detector = after_noise()
    before = detector.state_dict()
    for _ in range(30):
        assert detector.judge(3.0, 50.0) is not None
    assert detector.state_dict() == before


def test_a_spike_that_is_taken_hides_no_other_and_a_lasting_rise_is_got_used_to() -> None:
    warning = SpikeSettings(window=64, deviations=6.0, action="warn")
    detector = after_noise(warning)
    assert detector.judge(3.0, 5000.0) is not None
    for loss, norm in noise(20, seed=2):
        assert detector.judge(loss, norm) is None
    assert detector.judge(3.0, 3.0) is not None, "the first one did not blow up the deviation"
    flagged = [detector.judge(4.0, norm) is not None for _, norm in noise(200, seed=3)]
    assert flagged[0]
    assert not any(flagged[100:])


def test_a_step_without_causal_loss_is_judged_by_its_gradient_norm_alone() -> None:
    detector = after_noise()
    before = detector.state_dict()
    assert detector.judge(None, 0.8) is None
    after = detector.state_dict()
    assert after["loss"] == before["loss"]
    assert after["gradient_norm"] == [*before["gradient_norm"][1:], 0.8]
    assert (detector.judge(None, 8.0) or "").startswith("gradient norm 8, ")


def test_a_window_that_never_moved_flags_a_leap_but_not_a_breath() -> None:
    for factor, is_spike in ((1.0, False), (1.005, False), (0.0, False), (2.0, True)):
        detector = SpikeDetector(SETTINGS)
        for _ in range(100):
            assert detector.judge(2.5, 0.4) is None
        assert (detector.judge(2.5 * factor, 0.4 * factor) is not None) == is_spike


def test_where_all_was_zero_nothing_is_a_spike() -> None:
    detector = SpikeDetector(SETTINGS)
    for _ in range(100):
        assert detector.judge(0.0, 0.0) is None
    assert detector.judge(1e-9, 1.0) is None


def test_a_resumed_detector_judges_and_remembers_to_the_bit_as_an_undisturbed_one() -> None:
    undisturbed, first = SpikeDetector(SETTINGS), SpikeDetector(SETTINGS)
    steps = [(None if i % 7 == 0 else loss, norm) for i, (loss, norm) in enumerate(noise(300))]
    steps[150] = (9.0, 4.0)
    steps[172] = (None, 9.0)
    told = [undisturbed.judge(*figures) for figures in steps]
    assert [first.judge(*figures) for figures in steps[:170]] == told[:170]
    resumed = SpikeDetector(SETTINGS)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert resumed.state_dict() == first.state_dict()
    assert [resumed.judge(*figures) for figures in steps[170:]] == told[170:]
    assert resumed.state_dict() == undisturbed.state_dict()
    assert told[150]
    assert told[172]
