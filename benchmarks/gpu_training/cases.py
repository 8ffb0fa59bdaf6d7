"""What is measured: shapes, cases in the order of their worth, and how many layers of a case fit.

A case is a name on the command line and in the results. Memory is counted in bytes of each parameter
(float32 weight 4, gradient 4, two moments 8, or 2 in 8 bits; 2 more where the gathered bfloat16 copy is
kept, 4 more where it is kept over the micro-batches of a step) and in what each position
of each layer keeps for the backward pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from normistral.model import ModelConfig

GIGABYTE = 1e9


@dataclass(frozen=True)
class Shape:
    """A model and the rows that it is trained on."""

    config: ModelConfig
    length: int
    median_document: int
    most_layers: int
    """In cases with float32 optimizer state, so that those that fit can be compared."""
    least_layers: int
    fewer: int
    """Layers that are taken off when memory did not suffice."""


SHAPES = {
    "11b": Shape(
        ModelConfig(51_200, 5120, 14_336, 40, 32, 8, 128, 4096, 1e6, None, 1e-5, tied=False),
        4096,
        600,
        20,
        4,
        2,
    ),
    "tiny": Shape(
        ModelConfig(512, 128, 256, 4, 4, 2, 32, 256, 1e6, None, 1e-5, tied=False), 256, 40, 2, 1, 1
    ),
}
CHECKED = ModelConfig(4096, 1024, 2048, 2, 8, 2, 128, 1024, 1e6, None, 1e-5, tied=False)
"""Small, with the heads of the large one, so that the same attention kernels run."""


@dataclass(frozen=True)
class Case:
    """One way to train."""

    attention: str
    compile: bool
    recompute: str
    micro_batch: int
    accumulate: int = 1
    """Micro-batches of a step."""
    reshard: bool = False
    """Let go of gathered weights after each use."""
    optimizer: str = "adamw"
    all_layers: bool = False

    @property
    def name(self) -> str:
        """Such as `varlen+compile+selective+2`."""
        parts = [self.attention, "compile" if self.compile else "eager", self.recompute]
        parts.append(
            f"{self.micro_batch}x{self.accumulate}" if self.accumulate > 1 else f"{self.micro_batch}"
        )
        parts += ["reshard"] * self.reshard + ["8bit"] * (self.optimizer == "adamw_8bit")
        return "+".join(parts + ["all"] * self.all_layers)

    @property
    def check(self) -> str:
        """What must have been found right before this is timed."""
        return "+".join(self.name.split("+")[:3])

    @staticmethod
    def named(name: str) -> Case:
        """The case of a name.

        Raises:
            ValueError: if there is none.
        """
        found = re.fullmatch(
            r"(varlen|flex|sdpa|auto|products)\+(eager|compile)\+(none|selective|full)\+(\d+)(?:x(\d+))?"
            r"(\+reshard)?(\+8bit)?(\+all)?",
            name,
        )
        if not found:
            raise ValueError(
                f"{name!r} is no case: expected such as varlen+compile+selective+2 or …+1x4+reshard"
            )
        attention, compiled, recompute, rows, times, reshard, eight, everything = found.groups()
        return Case(
            *(attention, compiled == "compile", recompute, int(rows), int(times or 1), bool(reshard)),
            optimizer="adamw_8bit" if eight else "adamw",
            all_layers=bool(everything),
        )


def chosen_cases() -> list[Case]:
    """A star around the likely best, the most telling first; about thirty minutes on one GPU."""
    best = Case("varlen", compile=True, recompute="selective", micro_batch=2)
    whole = replace(best, recompute="full", reshard=True, optimizer="adamw_8bit", all_layers=True)
    star = [
        best,
        replace(best, micro_batch=4, reshard=True),
        replace(best, recompute="full", micro_batch=4),
        replace(best, recompute="none"),
        replace(best, compile=False),
        replace(best, recompute="full"),
        replace(whole, micro_batch=1),
        replace(whole, micro_batch=2),
        replace(best, micro_batch=1),
        replace(best, attention="flex"),
        replace(best, attention="sdpa", recompute="full", micro_batch=1),
        replace(best, recompute="none", micro_batch=1),
        replace(best, micro_batch=2, accumulate=2, reshard=True),
        replace(whole, recompute="selective", micro_batch=1),
        replace(best, attention="flex", compile=False),
        replace(best, compile=False, recompute="full"),
        replace(whole, recompute="full", micro_batch=4),
    ]
    return list(dict.fromkeys(star))


def all_cases() -> Iterator[Case]:
    """The whole matrix, for hours rather than minutes."""
    for attention, compiled, recompute, rows in product(
        ("varlen", "flex", "sdpa"), (True, False), ("selective", "none", "full"), (2, 1, 4)
    ):
        yield Case(attention, compiled, recompute, rows)


def layers_that_fit(shape: Shape, case: Case, free_bytes: float) -> int:
    """Layers of a case that a device with so many free bytes should hold; at least `least_layers`, which may
    not fit."""
    if case.all_layers:
        return shape.config.layers
    layers = min(shape.most_layers, shape.config.layers)
    while layers > shape.least_layers and needed_bytes(shape, case, layers) > free_bytes:
        layers -= 1
    return layers


def needed_bytes(shape: Shape, case: Case, layers: int) -> float:
    """Estimate of the most memory that training holds at once."""
    config, rows, length = shape.config, case.micro_batch, shape.length
    ends = replace(config, layers=0).parameters
    block = (config.parameters - ends) / config.layers
    body = layers * block
    each = 10 if case.optimizer == "adamw_8bit" else 16
    kept = 2 * ends + 2 * (2 * block if case.reshard else body)
    summed = 4 * (body + ends) if case.accumulate > 1 and not case.reshard else 0
    # Gradients of the largest group in bfloat16, their float32 copies on the way to the sharded ones.
    reduced = 10 * max(ends, 2 * block)
    head = 4 * config.vocabulary_size * config.width + 3 * GIGABYTE * min(1.0, rows * length / 4096)
    width, ffn = config.width, config.ffn_width
    attention = config.head_width * (config.query_heads + config.key_value_heads) * 2
    largest = 2 * (4 * width + attention + 4 * ffn)
    per_position = {"none": largest, "selective": 2 * (3 * width + attention + 2 * ffn), "full": 2 * width}
    # A dense mask may send attention to kernels that keep the weights of every pair.
    pairs = 4 * config.query_heads * length * length * rows if case.attention in ("sdpa", "products") else 0
    held = layers if case.recompute != "full" else 1
    activations = rows * length * (layers * per_position[case.recompute] + 2 * largest) + held * pairs
    context = 1.5 * GIGABYTE if config.width > 1024 else 0.0
    return (each * (body + ends) + kept + summed + reduced + head + activations + context) * 1.03
