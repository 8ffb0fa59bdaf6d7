"""The recipe: everything that decides what a run produces, as frozen typed settings.

Each field's docstring is its reference documentation. Unknown keys, wrong types and impossible combinations
are refused when the recipe is read, before anything runs. What changes only *how* a run executes (threads,
logging) stands apart in `RuntimeSettings` and never enters a stage's fingerprint.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from normistral.recipe.checks import check_weights, suggest_name

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Settings(BaseModel):
    """Base of all sections: frozen, no unknown keys, docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


class BaseSettings(Settings):
    """The open base model to start from."""

    model: str
    """A local Hugging Face folder, a GGUF file, `hub:ORG/NAME`, or a sample such as `sample:smollm2-135m`."""
    tokenizer: str | None = None
    """Folder with the base's tokenizer.json, for a GGUF file whose pre-tokenizer is not known here."""


class SourceSettings(Settings):
    """One source of documents."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """What the source is called in every table and file name: lower-case letters, digits, `-`, `_`, `.`."""
    path: str
    """A glob over .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .txt files; `hub:ORG/NAME`; or `sample:NAME`."""
    language: str
    """ISO 639-3 code, with a script where it matters (`sme`, `nob`, `srp_Cyrl`); `code` for program text."""
    kind: Literal["prose", "code"] = "prose"
    """Prose or code: decides which cleaning rules apply."""
    licence: str
    """SPDX identifier or the licence's name, kept with every document."""
    text_field: str = "text"
    """Field (JSONL) or column (Parquet, hub) that holds the text."""
    id_field: str = "id"
    """Field or column that holds the document's id; where it is absent, the file name and row number
    serve."""
    heldout_share: Share | None = None
    """Share of this source's documents held out; unset: `corpus.heldout_share`."""


class CorpusSettings(Settings):
    """Where text comes from and what is held out."""

    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    """All sources, in order of priority: of two equal documents the one from the earlier source is kept."""
    heldout_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Share of documents held out for evaluation, chosen by a hash of the document's id."""
    min_heldout_bytes: PositiveInt = 10_000
    """A language with less held-out text (UTF-8 bytes) than this is refused: its figures would be noise."""

    @field_validator("sources")
    @classmethod
    def _names_are_unique(cls, sources: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source names must differ; used twice: {', '.join(twice)}")
        return sources


class TokenizerSettings(Settings):
    """The new byte-level BPE tokenizer (card: 51,200 tokens)."""

    mode: Literal["replace"] = "replace"
    """`replace`: a new vocabulary instead of the base's, as the card's model has."""
    vocabulary_size: Annotated[int, Field(ge=16 + 256)] = 51_200
    """Number of tokens, the 16 special ones and the 256 bytes included."""
    sample_bytes: PositiveInt = 200_000_000
    """UTF-8 bytes of training text to learn merges from, shared among sources by `weights`."""
    weights: dict[str, float] | None = None
    """Share of the sample by source, apart from the model's mixture; unset: the mixture's weights."""


class MixtureSettings(Settings):
    """Which share of the training tokens comes from which source."""

    weights: dict[str, float]
    """Weight of each source; normalised, so that only their ratios count. 0 leaves a source out."""
    sequence_length: Annotated[int, Field(ge=8)] = 4096
    """Tokens per packed sequence."""
    max_repeats: PositiveFloat = 16.0
    """A source may be seen at most this many times over the whole run (card: up to 16 times)."""
    over_cap: Literal["redistribute", "refuse"] = "redistribute"
    """When a source would pass `max_repeats`: give the excess to the others by weight, or refuse."""


class SwapSettings(Settings):
    """How the base's embeddings and LM head become those of the new vocabulary."""

    method: Literal["mean"] = "mean"
    """`mean`: each new row is the mean of the base's rows for the new token's pieces; exact matches are
    copied."""


class ObjectiveSettings(Settings):
    """The hybrid masked-causal objective (card: 90 % causal, 10 % masked next-token prediction)."""

    masked_share: Share = 0.1
    """Probability that a sequence is trained by masked next-token prediction instead of causally."""
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


class TrainingSettings(Settings):
    """One training stage: `realign` (embeddings and head) or `adapt` (everything)."""

    steps: PositiveInt
    """Optimizer steps."""
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
    loss_normalisation: Literal["per_sequence", "global_tokens"] = "per_sequence"
    """`per_sequence`: each sequence weighs as much (masked ones carry their 10 %); `global_tokens`: each
    target does."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        needed = self.schedule.warmup_steps + self.schedule.decay_steps
        if needed > self.steps:
            raise ValueError(
                f"warmup_steps + decay_steps = {needed} do not fit into steps = {self.steps}; shorten them"
            )
        return self


class EvaluationSettings(Settings):
    """What is measured on held-out text, and what the closing examples show."""

    heldout_bytes: PositiveInt = 40_000
    """UTF-8 bytes of held-out text measured per language."""
    continuations: tuple[str, ...] = ()
    """Beginnings that base and adapted model continue greedily."""
    masked_sentences: tuple[str, ...] = ()
    """Sentences with `<mask>` that base and adapted model fill."""
    max_new_tokens: PositiveInt = 32
    """Longest continuation, in tokens."""
    note: str = ""
    """What a reader of the figures should know about this recipe; said below them."""

    @field_validator("masked_sentences")
    @classmethod
    def _have_masks(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        for sentence in sentences:
            if "<mask>" not in sentence:
                raise ValueError(f"{sentence!r} has no <mask>")
        return sentences


class PublishSettings(Settings):
    """The published folder."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the published weights."""
    licence: str = "apache-2.0"
    """Licence of the weights, for the card."""
    repository: str | None = None
    """Hub id that the card's examples load; unset: the folder in this run."""
    translation_prompt: str = "Engelsk: {0}\nBokmål:"
    """Prompt of the card's first example; `{0}` stands for the text."""
    translation_text: str = "I'm excited to try this new Norwegian language model!"
    """Text of the card's first example."""

    @field_validator("translation_prompt")
    @classmethod
    def _prompt_has_a_place(cls, prompt: str) -> str:
        if "{0}" not in prompt:
            raise ValueError("has no {0}, where the text goes")
        return prompt


class RuntimeSettings(Settings):
    """How the run executes; no part of any fingerprint. run.json keeps the precision and the threads."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision; `auto`: bfloat16 where it is faster on this machine, measured once."""
    threads: PositiveInt | None = None
    """CPU threads of one process; unset: all cores."""
    replicate: PositiveInt = 1
    """Groups of processes that hold a whole copy of the model each (hybrid sharding); 1: all share one
    copy."""
    recompute: bool = False
    """Keep only each block's input for the backward pass: less memory, a third more work."""
    compile: bool = False
    """Compile each transformer block (slow start, faster steps)."""
    micro_batch_size: PositiveInt = 4
    """Sequences per forward pass of one device."""
    log_every: PositiveInt = 1
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: PositiveInt = 50
    """Steps between two checkpoints of a training stage."""
    keep_checkpoints: PositiveInt = 2
    """How many of the latest checkpoints stay on disk."""


class Recipe(Settings):
    """A whole run, from raw text to a published model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the run and of the published model."""
    description: str = ""
    """One or two sentences for the card."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Decides data order, modes and masks."""
    base: BaseSettings
    corpus: CorpusSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    mixture: MixtureSettings
    swap: SwapSettings = SwapSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    realign: TrainingSettings
    adapt: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    publish: PublishSettings = PublishSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @model_validator(mode="after")
    def _weights_name_sources(self) -> Self:
        names = [source.name for source in self.corpus.sources]
        for where, weights in (
            ("mixture.weights", self.mixture.weights),
            ("tokenizer.weights", self.tokenizer.weights),
        ):
            if weights is None:
                continue
            for name in weights:
                if name not in names:
                    raise ValueError(
                        f"{where} names '{name}', which is no source of corpus.sources ({', '.join(names)})"
                        + suggest_name(name, names)
                    )
            check_weights(where, weights)
        return self

    @property
    def tokenizer_weights(self) -> dict[str, float]:
        """Normalised share of the tokenizer's sample by source."""
        return normalised(self.tokenizer.weights or self.mixture.weights)

    @property
    def mixture_weights(self) -> dict[str, float]:
        """Normalised share of the training tokens by source."""
        return normalised(self.mixture.weights)


def normalised(weights: dict[str, float]) -> dict[str, float]:
    """Divide weights by their sum.

    Args:
        weights: non-negative, at least one positive (checked when the recipe is read).
    """
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
