"""The forgetting budget: how much worse a language may become than it was in the base, and what then happens.

Held-out figures come in after each measurement; breaches leave, which the loop acts on. A budget that is
found passed acts unless the language has become better since the measurement before: swapping the vocabulary
makes every language worse, and what is coming back needs neither an alarm nor more of its text. (A stage's
first measurement therefore never acts; its last one always does, because nothing comes after it.) A warning
is repeated only when the language has become worse by another allowed increase, or after it had been back
within its budget.

What is remembered between two measurements is `BudgetState`, which the checkpoint keeps, so that a resumed
run decides as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from normistral.languages import language_name
from normistral.recipe import ForgettingBudget


@dataclass(frozen=True)
class Breach:
    """A budget found passed."""

    budget: ForgettingBudget
    base: float
    """Bits per byte of the base."""
    now: float
    """Bits per byte of the model in training."""

    @property
    def increase(self) -> float:
        """How much worse than the base, as a share of it; infinite where the model gives no number."""
        return self.now / self.base - 1 if math.isfinite(self.now) else math.inf

    @property
    def allowed(self) -> float:
        """Bits per byte up to which the budget holds."""
        return _allowed(self.budget, self.base)

    def sentence(self, *, is_last: bool = False) -> str:
        """What a user reads: the figures, and what is done about them.

        Args:
            is_last: whether this was the stage's last measurement, after which nothing can be replayed.
        """
        budget = self.budget
        if budget.action == "replay" and not is_last:
            remedy = f"the share of its sources is multiplied by {budget.replay_factor:g}"
        elif budget.action == "replay":
            remedy = "the stage is at its end, nothing can be replayed any more"
        elif budget.action == "stop":
            remedy = "the stage stops"
        else:
            remedy = "training goes on"
        return (
            f"{language_name(budget.language)}: {self.now:.3f} bits per byte, {100 * self.increase:.1f} % "
            f"above the base's {self.base:.3f}, allowed {100 * budget.allowed_increase:g} %: {remedy}"
        )

    def event(self, step: int, *, is_last: bool = False) -> dict[str, Any]:
        """A line for forgetting.jsonl: `step` steps had been taken."""
        return {
            "step": step,
            "event": "forgetting",
            "language": self.budget.language,
            "action": self.budget.action,
            "bits_per_byte": self.now,
            "base_bits_per_byte": self.base,
            "allowed_bits_per_byte": self.allowed,
            "message": self.sentence(is_last=is_last),
        }


@dataclass(frozen=True)
class BudgetState:
    """What is remembered from one measurement to the next; part of the checkpoint."""

    before: Mapping[str, float] = field(default_factory=dict)
    """Bits per byte by language at the measurement before; empty before the first."""
    warned: Mapping[str, float] = field(default_factory=dict)
    """The increase at which each budget of action `warn` last spoke, by `language/allowed_increase`."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"before": dict(self.before), "warned": dict(self.warned)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> BudgetState:
        """Read back what `to_json` gave."""
        return BudgetState(dict(data["before"]), dict(data["warned"]))


def check_budgets(
    budgets: Sequence[ForgettingBudget], base: Mapping[str, float], now: Mapping[str, float]
) -> list[Breach]:
    """Which budgets are passed.

    Args:
        budgets: of the stage, each of a language that both figures have.
        base: bits per byte of the base by language.
        now: bits per byte of the model in training by language.

    Returns:
        The breaches in the budgets' order. A figure that is no number counts as passed.
    """
    return [
        Breach(budget, base[budget.language], now[budget.language])
        for budget in budgets
        if not now[budget.language] <= _allowed(budget, base[budget.language])
    ]


def decide(
    budgets: Sequence[ForgettingBudget],
    base: Mapping[str, float],
    now: Mapping[str, float],
    state: BudgetState,
    *,
    is_last: bool = False,
) -> tuple[list[Breach], BudgetState]:
    """What a measurement asks for.

    Args:
        budgets: of the stage.
        base: bits per byte of the base by language.
        now: bits per byte of the model in training by language.
        state: what the measurement before left.
        is_last: whether the stage ends with this measurement.

    Returns:
        The breaches to act on, in the budgets' order, and the state to keep.
    """
    passed = check_budgets(budgets, base, now)
    due = []
    warned = {}
    for breach in passed:
        budget = breach.budget
        key = f"{budget.language}/{budget.allowed_increase:g}"
        if budget.action == "warn" and key in state.warned:
            warned[key] = state.warned[key]
        if _is_recovering(budget.language, now, state) and not is_last:
            continue
        if budget.action == "warn":
            is_repetition = key in warned and breach.increase < warned[key] + budget.allowed_increase
            if is_repetition and not is_last:
                continue
            warned[key] = breach.increase
        due.append(breach)
    return due, BudgetState(dict(now), warned)


def replay_factors(breaches: Sequence[Breach]) -> dict[str, float]:
    """What the share of each language's sources is to be multiplied by: the largest factor asked for."""
    factors: dict[str, float] = {}
    for breach in breaches:
        if breach.budget.action == "replay":
            language = breach.budget.language
            factors[language] = max(factors.get(language, 1.0), breach.budget.replay_factor)
    return factors


def stop_message(breaches: Sequence[Breach], stage: str, step: int) -> str | None:
    """Why the stage stops and what the user can do; None where no breach asks to stop."""
    stopping = [breach for breach in breaches if breach.budget.action == "stop"]
    if not stopping:
        return None
    return (
        f"{stage} stopped after step {step}, because a forgetting budget is passed. "
        + ". ".join(breach.sentence(is_last=True) for breach in stopping)
        + f". A checkpoint is kept. Allow more in {stage}.forgetting and run again to go on from it; or give "
        f"the language more weight in mixture.weights, or lower {stage}.learning_rate, and run with --redo "
        f"{stage}"
    )


def _allowed(budget: ForgettingBudget, base: float) -> float:
    return base * (1 + budget.allowed_increase)


def _is_recovering(language: str, now: Mapping[str, float], state: BudgetState) -> bool:
    """Whether the language is better than at the measurement before, or there was none yet."""
    return language not in state.before or now[language] < state.before[language]
