"""The settings of training: objective, loss, schedule, stages; and of how a run executes.

What changes only *how* a run executes (devices, threads, logging) is `RuntimeSettings` and never enters a
stage's fingerprint.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from normistral.recipe.execution import CorpusExecutionSettings
from normistral.recipe.settings import Settings, Share


class ObjectiveSettings(Settings):
    """The hybrid masked-causal objective (card: 90 % causal, 10 % masked next-token prediction)."""

    masked_share: Share = 0.1
    """Probability that a sequence is trained by masked next-token prediction instead of causally."""
    final_masked_share: Share | None = None
    """Where `masked_share` goes, in a straight line over the run's sequences; unset: it stays."""
    mask_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 1 / 6
    """Share of a masked sequence's maskable tokens that are chosen for prediction."""
    span_lengths: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    """Lengths of masked spans, each as likely."""
    replace_with_mask: Share = 0.8
    """Of the chosen spans, the share shown as `<mask>`."""
    replace_with_random: Share = 0.1
    """Of the chosen spans, the share shown as random tokens; the rest is shown unchanged."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.replace_with_mask + self.replace_with_random > 1.0 + 1e-9:
            raise ValueError("replace_with_mask and replace_with_random together must not pass 1")
        if min(self.span_lengths) < 1:
            raise ValueError("span_lengths must be at least 1")
        return self


class LossSettings(Settings):
    """How the cross-entropy of a batch becomes one number."""

    normalisation: Literal["per_sequence", "global_tokens"] = "per_sequence"
    """`per_sequence`: each sequence weighs as much, so that masked ones carry their 10 % of the gradient;
    `global_tokens`: each target does, and masked sequences carry about 1.8 %."""
    z_loss: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the squared logarithm of the softmax's denominator, added to the loss: keeps logits from
    drifting (1e-4 is usual; the original had none)."""


class ScheduleSettings(Settings):
    """The learning rate over the steps of a stage."""

    shape: Literal["constant", "trapezoid", "cosine"] = "trapezoid"
    """After the warm-up: `constant`; `trapezoid`: plateau, then decay (the card); or `cosine` to the end."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear rise from zero to the peak."""
    decay_steps: Annotated[int, Field(ge=0)] = 0
    """Last steps, in which a trapezoid falls."""
    decay: Literal["linear", "one_minus_sqrt"] = "linear"
    """How a trapezoid falls: `linear`, or `one_minus_sqrt`, fast first (Hägele et al. 2024)."""
    final_share: Share = 0.0
    """What is left of the peak at the end of a trapezoid or cosine."""


class SpikeSettings(Settings):
    """What happens when loss or gradient norm leaps far above what it has been."""

    action: Literal["off", "warn", "skip"] = "skip"
    """`skip`: leave the step out, as one that is not finite; `warn`: say so and take it."""
    window: Annotated[int, Field(ge=8)] = 128
    """Steps that the running mean and deviation look back on; before it is half full nothing is a spike."""
    deviations: Annotated[float, Field(gt=1.0)] = 6.0
    """Standard deviations above the mean from which a step is a spike."""


class EarlyStopSettings(Settings):
    """When realign ends before its last step: what it gains per token has flattened."""

    window: Annotated[int, Field(ge=2)] = 50
    """Steps that the causal loss is averaged over."""
    least_gain: Share = 0.1
    """A window is flat if it lowers the loss by less than this share of what a window has lowered it by on
    average since the first."""
    patience: PositiveInt = 2
    """Flat windows in a row after which the stage ends (a trapezoid's decay is still run)."""
    min_steps: PositiveInt = 200
    """Steps that are taken in any case."""


class ForgettingBudget(Settings):
    """How much worse a language may become than it was in the base, and what then happens."""

    language: str
    """A language of the corpus, such as `eng`."""
    allowed_increase: PositiveFloat
    """Largest increase of its bits per byte over the base's, as a share: 0.05 allows five per cent."""
    action: Literal["warn", "stop", "replay"] = "warn"
    """`warn`: say so; `stop`: end with a checkpoint; `replay`: raise the share of its sources for the rest
    of the stage."""
    replay_factor: Annotated[float, Field(gt=1.0)] = 1.5
    """What `replay` multiplies the share by, each time that the budget is found passed."""


class TrainingSettings(Settings):
    """One training stage: `realign` (embeddings and head) or `adapt` (everything)."""

    steps: PositiveInt
    """Optimizer steps."""
    decay_from: PositiveInt | None = None
    """End the plateau of a trapezoid at this step instead, so that the stage ends `decay_steps` later; data
    and mixture stay those of `steps`. Set by `normistral train --decay-from`."""
    global_batch_size: PositiveInt
    """Sequences per optimizer step over all devices."""
    learning_rate: PositiveFloat
    """Peak learning rate."""
    schedule: ScheduleSettings
    """Shape of the learning rate over time."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """AdamW's decoupled weight decay, on matrices alone (never on norms)."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""
    epsilon: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    clip_norm: PositiveFloat = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps both moments in 8 bits, a quarter of the memory (needs the extra `lowbit`)."""
    decay_embeddings: bool = True
    """Whether weight decay applies to the embeddings and the LM head too."""
    average_checkpoints: PositiveInt = 1
    """The stage's model is the mean of so many of its last checkpoints, its end included; 1: its end
    alone."""
    max_skipped_in_a_row: PositiveInt = 5
    """After so many steps in a row that had to be left out (not finite, or a spike) the run stops."""
    spikes: SpikeSettings = SpikeSettings()
    heldout_every: PositiveInt | None = None
    """Measure held-out text every so many steps, and at the beginning and the end; unset: never."""
    forgetting: tuple[ForgettingBudget, ...] = ()
    """Budgets that the held-out figures are held against."""
    early_stop: EarlyStopSettings | None = None
    """When `realign` ends early; unset: never. The run's sequences go on where it ended, and as many as it
    saved are left unread at the end."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        needed = self.schedule.warmup_steps + self.schedule.decay_steps
        if needed > self.steps:
            raise ValueError(
                f"warmup_steps + decay_steps = {needed} do not fit into steps = {self.steps}; shorten them"
            )
        if self.decay_from is not None:
            schedule = self.schedule
            if schedule.shape != "trapezoid" or not schedule.decay_steps:
                raise ValueError("decay_from needs a schedule of shape trapezoid with decay_steps")
            if not schedule.warmup_steps <= self.decay_from <= self.steps - schedule.decay_steps:
                raise ValueError(
                    f"decay_from = {self.decay_from} is not on the plateau, which goes from step "
                    f"{schedule.warmup_steps} to {self.steps - schedule.decay_steps}"
                )
        if self.early_stop is not None and (self.schedule.shape == "cosine" or self.decay_from is not None):
            raise ValueError("early_stop needs a schedule of shape constant or trapezoid, without decay_from")
        if self.forgetting and self.heldout_every is None:
            raise ValueError("forgetting needs heldout_every, the steps between two measurements")
        return self

    @property
    def last_step(self) -> int:
        """Steps that the stage really takes: `steps`, or fewer where `decay_from` ends it early."""
        return self.steps if self.decay_from is None else self.decay_from + self._decay_steps

    @property
    def plateau_end(self) -> int:
        """Steps after which the learning rate falls, or the stage ends."""
        return self.last_step - self._decay_steps

    @property
    def _decay_steps(self) -> int:
        return self.schedule.decay_steps if self.schedule.shape == "trapezoid" else 0


class RuntimeSettings(Settings):
    """How the run executes; no part of any fingerprint. run.json keeps the precision and the threads."""

    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Compute precision; `auto`: bfloat16 where it is faster on this machine, measured once. `float64`, with
    weights in it too, is for checks of exactness."""
    threads: PositiveInt | None = None
    """CPU threads of one process; unset: all cores."""
    replicate: PositiveInt = 1
    """Groups of processes that hold a whole copy of the model each (hybrid sharding); 1: all share one
    copy."""
    tensor_parallel: PositiveInt = 1
    """Processes that share each matrix product (tensor parallelism); a divisor of the key-value heads."""
    reshard: bool | None = None
    """Let go of a block's gathered weights after its forward pass (less memory) or keep them until the
    optimizer's step (less to send); unset: let go where several processes share a copy."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again instead of keeping it: `selective`: all but the results of matrix
    products and attention (less memory, little work); `full`: all but each block's input (least memory, a
    third more work)."""
    compile: bool = False
    """Compile each transformer block (slow start, faster steps)."""
    attention: Literal["auto", "sdpa", "products", "varlen", "flex"] = "auto"
    """How attention is computed; `auto`: what is fastest on the device (docs/model.md)."""
    offload_optimizer: bool = False
    """Keep float32 weights and optimizer state in the processor's memory and step there."""
    micro_batch_size: PositiveInt = 4
    """Sequences per forward pass of one device."""
    prove_memory: bool = True
    """Run one batch of the largest size at the start, so that a lack of memory shows at once."""
    collective_timeout: PositiveInt = 1800
    """Seconds without a sign of life after which processes that wait for others say for which, and end."""
    log_every: PositiveInt = 1
    """Steps between two lines of metrics.jsonl."""
    tensorboard: bool = True
    """Write the metrics for TensorBoard too."""
    checkpoint_every: PositiveInt = 50
    """Steps between two checkpoints of a training stage."""
    keep_checkpoints: PositiveInt = 2
    """How many of the latest checkpoints stay on disk."""
    keep_every: PositiveInt | None = None
    """Checkpoints of steps that this number divides stay for good: beginnings for `--decay-from`."""
    async_checkpoints: bool = True
    """Write checkpoints beside the training (their copy needs memory), instead of waiting for the disk."""
    corpus: CorpusExecutionSettings = CorpusExecutionSettings()
    """Where the tasks of the corpus run."""
