"""The recipe: everything that decides what a run produces, as frozen typed settings.

Each field's docstring is its reference documentation. Unknown keys, wrong types and impossible combinations
are refused when the recipe is read, before anything runs. The settings of training stand in `training.py`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from normistral.recipe.checks import check_weights, suggest_name
from normistral.recipe.corpus import CorpusSettings
from normistral.recipe.mixture import MixtureSettings
from normistral.recipe.settings import Settings
from normistral.recipe.shards import ShardSettings
from normistral.recipe.training import LossSettings, ObjectiveSettings, RuntimeSettings, TrainingSettings


class BaseSettings(Settings):
    """The open base model to start from."""

    model: str
    """A local Hugging Face folder, a GGUF file, `hub:ORG/NAME`, or a sample such as `sample:smollm2-135m`."""
    tokenizer: str | None = None
    """Folder with the base's tokenizer.json, for a GGUF file whose pre-tokenizer is not known here."""


class TokenizerSettings(Settings):
    """The tokenizer: new byte-level BPE (card: 51,200 tokens), or the base's, extended or as it is."""

    mode: Literal["replace", "extend", "trim", "keep"] = "replace"
    """`replace`: a new vocabulary instead of the base's, as the card's model has; `extend`: the base's, whose
    tokens keep their ids, and new ones behind them; `trim`: the base's tokens that the text uses most
    (`kept_base_tokens`), and new ones in the room that this makes, so that languages the base knows are cut
    as it learnt them (both for byte-level bases alone); `keep`: the base's as it is, with a `<mask>`: the
    control that every study needs."""
    vocabulary_size: Annotated[int, Field(ge=16 + 256)] = 51_200
    """Number of tokens, special ones and the 256 bytes included; in modes `extend` and `trim` those of the
    base too; in mode `keep` without effect."""
    kept_base_tokens: PositiveInt | None = None
    """Of mode `trim`: how many of the base's tokens stay at most; unset: half of `vocabulary_size`."""
    sample_bytes: PositiveInt = 200_000_000
    """UTF-8 bytes of training text to learn merges from, shared among sources by `weights`. A new vocabulary
    is learnt from counts of words: up to so many bytes of each source are counted, once, and weights are
    applied to the counts."""
    weights: dict[str, float] | None = None
    """Share of the sample by source, apart from the model's mixture; unset: the mixture's weights."""
    parity: Annotated[float, Field(ge=0, le=64)] = 0.0
    """How much languages that need more tokens than the mean for the same content (`parallel`) outweigh the
    others while a new vocabulary is learnt: the power of that ratio. 0: not at all; 16 takes away about
    half of the differences at little cost; higher values cost the large languages more."""
    parallel: dict[str, str] = {}  # noqa: RUF012  # frozen like all settings
    """The same content in several languages, for `parity`: a file or glob by language, read as sources are,
    relative paths from `corpus.folder`. A few hundred words are enough; languages without it weigh as one
    that needs the mean."""

    joined_line_breaks: bool = False
    """Let tokens hold a line break together with the punctuation before it, as in the original recipe: about
    1.6 % fewer tokens, but a text that ends in such a token is no longer stopped by the id of the newline
    alone, as in the card's translation example (`normistral generate --stop` looks at text and is right in
    either case). For mode `replace`."""

    @model_validator(mode="after")
    def _kept_tokens_leave_room(self) -> Self:
        if self.kept_base_tokens is not None:
            if self.mode != "trim":
                raise ValueError(f"kept_base_tokens is for mode trim; in mode {self.mode} leave it out")
            if self.kept_base_tokens >= self.vocabulary_size:
                raise ValueError(
                    f"kept_base_tokens {self.kept_base_tokens:,} leaves no room for new tokens in a "
                    f"vocabulary_size of {self.vocabulary_size:,}"
                )
        return self

    def check_parity(self, languages: list[str]) -> None:
        """Refuse parity without text to compare, or with that of languages that are not learnt.

        Raises:
            ValueError: naming the setting.
        """
        if not self.parity:
            return
        if self.mode != "replace":
            raise ValueError(f"tokenizer.parity is for mode replace; in mode {self.mode} set it to 0")
        if len(self.parallel) < 2:
            raise ValueError(
                f"tokenizer.parity {self.parity:g} needs tokenizer.parallel: the same content in at least "
                "two languages"
            )
        for language in self.parallel:
            if language not in languages:
                raise ValueError(
                    f"tokenizer.parallel names '{language}', which is no language of corpus.sources "
                    f"({', '.join(languages)})" + suggest_name(language, languages)
                )


class SwapSettings(Settings):
    """How the base's embeddings and LM head become those of the new vocabulary."""

    method: Literal["random", "mean", "focus", "composition", "calibrated", "distilled"] = "mean"
    """How rows of tokens that the base lacks are made; those of the others are copied. `mean`: the mean of
    the token's pieces' rows, as the card's model; `composition`: what regression on the base's own vocabulary
    says of those pieces; `calibrated`: that, and the head fitted to how often each token occurs in text;
    `distilled`: that, and all rows trained with the body frozen, to say what the base says of the same text;
    `focus`: a mixture of similar tokens' rows; `random`: drawn, the floor to measure against."""
    sample_bytes: PositiveInt = 3_000_000
    """UTF-8 bytes of training text that the methods `focus`, `calibrated` and `distilled` read, shared among
    sources as the tokenizer's sample is."""
    calibration_tokens: Annotated[int, Field(ge=2)] = 1_024
    """Tokens of that text that `calibrated` runs the model over, once."""
    calibration_step: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How much of the difference between expected and true frequencies `calibrated` takes away."""
    distillation_tokens: PositiveInt = 200_000
    """New tokens that `distilled` learns from; each costs about as much as 0.8 tokens of training."""
    distillation_learning_rate: PositiveFloat = 1e-3
    """Highest learning rate of `distilled` (Adam), reached after a tenth of it and falling to 0."""


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
    context_length: Annotated[int, Field(ge=8)] | None = None
    """Longest text, in tokens, that the published folder says the model reads; unset: the sequences that it
    was adapted on (`mixture.sequence_length`). At most the base's."""
    gguf: tuple[Literal["F32", "F16", "BF16", "Q8_0", "Q4_0"], ...] = ()
    """GGUF files for llama.cpp to write beside them, by precision; `normistral publish MODEL --gguf KIND`
    writes one later. `serve` writes text with such a file several times faster than without."""
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
    shards: ShardSettings = ShardSettings()
    mixture: MixtureSettings
    swap: SwapSettings = SwapSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    loss: LossSettings = LossSettings()
    realign: TrainingSettings
    adapt: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    publish: PublishSettings = PublishSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @model_validator(mode="after")
    def _weights_name_sources(self) -> Self:
        corpus = [source.name for source in self.corpus.sources]
        imported = [source.name for source in self.shards.imported]
        if both := sorted(set(corpus) & set(imported)):
            raise ValueError(f"'{both[0]}' is a source of the corpus and of shards.imported; rename one")
        for where, weights, names in (
            ("mixture.weights", self.mixture.weights, corpus + imported),
            ("mixture.replay", self.mixture.replay, corpus + imported),
            ("tokenizer.weights", self.tokenizer.weights or {}, corpus),
        ):
            for name in weights:
                if name not in names:
                    raise ValueError(
                        f"{where} names '{name}', which is no source of corpus.sources ({', '.join(names)})"
                        + suggest_name(name, names)
                    )
        if self.mixture.policy == "explicit":
            check_weights("mixture.weights", self.mixture.weights)
        if self.tokenizer.weights is not None:
            check_weights("tokenizer.weights", self.tokenizer.weights)
        self.tokenizer.check_parity(sorted({source.language for source in self.corpus.sources}))
        for language in self.mixture.priorities:
            languages = sorted(set(self.source_languages.values()))
            if language not in languages:
                raise ValueError(
                    f"mixture.priorities names '{language}', which is no language of the sources "
                    f"({', '.join(languages)})" + suggest_name(language, languages)
                )
        return self

    @model_validator(mode="after")
    def _budgets_name_languages(self) -> Self:
        languages = sorted({source.language for source in self.corpus.sources})
        weighted = {s.language for s in self.corpus.sources if self.mixture.includes(s.name)}
        for stage in ("realign", "adapt"):
            for budget in getattr(self, stage).forgetting:
                if budget.language not in languages:
                    raise ValueError(
                        f"{stage}.forgetting names '{budget.language}', which is no language of "
                        f"corpus.sources ({', '.join(languages)})" + suggest_name(budget.language, languages)
                    )
                if budget.action == "replay" and stage == "realign":
                    raise ValueError("realign.forgetting can warn or stop; replay is for adapt")
                if budget.action == "replay" and budget.language not in weighted:
                    raise ValueError(
                        f"{stage}.forgetting is to replay '{budget.language}', but no source of it has a "
                        "weight in mixture.weights"
                    )
        return self

    @model_validator(mode="after")
    def _realign_alone_ends_early(self) -> Self:
        if self.adapt.early_stop is not None:
            raise ValueError("adapt.early_stop: only realign can end early; shorten adapt.steps instead")
        return self

    @property
    def tokenizer_weights(self) -> dict[str, float]:
        """Normalised share of the tokenizer's sample by source; the same for each where neither the
        tokenizer nor the mixture has weights."""
        if self.tokenizer.weights:
            return normalised(self.tokenizer.weights)
        sources = [source.name for source in self.corpus.sources]
        if self.mixture.policy == "explicit":
            shares = {name: share for name, share in self.mixture_weights.items() if name in sources}
        else:
            shares = {name: 1.0 for name in sources if self.mixture.includes(name)}
        return normalised(shares)

    @property
    def mixture_weights(self) -> dict[str, float]:
        """Share of the training tokens that each source is to have under the policy `explicit`; they add up
        to 1."""
        rest = 1 - math.fsum(self.mixture.replay.values())
        weights = normalised(self.mixture.weights)
        return {name: rest * weight for name, weight in weights.items()} | self.mixture.replay

    @property
    def source_languages(self) -> dict[str, str]:
        """Language of each source of the mixture, in order: the corpus's, then imported shards."""
        own = {source.name: source.language for source in self.corpus.sources}
        return own | {source.name: source.language for source in self.shards.imported}

    @property
    def published_context_length(self) -> int:
        """Longest text, in tokens, that the published folder says the model reads."""
        return self.publish.context_length or self.mixture.sequence_length

    @property
    def total_sequences(self) -> int:
        """Sequences of the whole run, realign and adapt together."""
        return sum(stage.steps * stage.global_batch_size for stage in (self.realign, self.adapt))


def normalised(weights: dict[str, float]) -> dict[str, float]:
    """Divide weights by their sum.

    Args:
        weights: non-negative, at least one positive (checked when the recipe is read).
    """
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
