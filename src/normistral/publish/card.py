"""The model card, written from the records of a run alone: what was not measured does not appear.

The pipeline fills `CardFacts` from the recipe and the stages' records; `card.md.j2` lays them out in the
order of the card of NorMistral-11b-warm. Its three usage examples are the original's, corrected to what
works in `transformers` 5 on CPU and GPU; the tests run them as they stand in the card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from normistral.inference.fill_mask import spell_masks
from normistral.languages import PROGRAM_TEXT, language_name
from normistral.model.config import ModelConfig
from normistral.publish.licences import hub_licence
from normistral.recipe import ObjectiveSettings, TrainingSettings
from normistral.tokenizer import FIRST_ORDINARY_ID, TokenizerRow

TEMPLATE = "card.md.j2"

TOKENIZER_PHRASES = {
    "replace": "a new tokenizer",
    "extend": "the base's tokenizer, extended for its languages,",
    "trim": "the base's tokenizer, trimmed and extended for its languages,",
    "keep": "the base's own tokenizer",
}
TOKENIZER_SENTENCES = {
    "replace": "The model has a new byte-level BPE tokenizer, trained on its languages, so that it needs "
    "fewer tokens for the same text.",
    "extend": "The model has the base's tokenizer with new tokens, learnt on its languages, behind it: the "
    "base's tokens keep their ids, and the same text needs fewer tokens.",
    "trim": "The model has those of the base's tokens that its text uses most, and new ones, learnt on its "
    "languages, behind them, so that the same text needs fewer tokens.",
    "keep": "The model has the base's own tokenizer, with a `<mask>`: it gives the base's ids for any text.",
}

BYTES_PER_WEIGHT_8BIT = 1.0
BYTES_PER_WEIGHT_4BIT = 0.5 + 4 / 64
"""nf4: half a byte, and a float32 scale for each block of 64."""


@dataclass(frozen=True)
class SourceFacts:
    """One source of the training corpus."""

    name: str
    language: str
    """ISO 639-3 code, or `code`."""
    licence: str
    documents: int | None = None
    """Training documents."""
    tokens: int | None = None
    """Unique training tokens, in the new tokenizer."""
    repeats: float | None = None
    """How many times they were seen."""
    attribution: str | None = None
    """Whom to name, where the licence asks for it."""
    home_page: str | None = None
    hub_id: str | None = None
    """`ORG/NAME`, where the source is a data set of the hub."""


@dataclass(frozen=True)
class ScoreFacts:
    """One figure of the evaluation, before and after; None where it was not measured."""

    language: str
    metric: str
    """What was measured, with its unit: `bits per byte`."""
    base: float | None
    adapted: float | None
    lower_is_better: bool


@dataclass(frozen=True)
class StageFacts:
    """One stage of training."""

    name: str
    settings: TrainingSettings
    tokens: int
    """Tokens seen."""
    seconds: float | None = None
    """Wall-clock time."""
    steps: int | None = None
    """Optimizer steps taken; None: all that the settings have."""


@dataclass(frozen=True)
class CardFacts:
    """All that a card says."""

    name: str
    """Name of the model."""
    repository: str
    """What the usage examples load: a hub id or a folder."""
    description: str
    licence: str
    """Licence of the weights, as the hub spells it: `apache-2.0`."""
    base: str
    """What the base is called."""
    model: ModelConfig
    sources: tuple[SourceFacts, ...]
    stages: tuple[StageFacts, ...]
    objective: ObjectiveSettings
    sequence_length: int
    """Of the training, in tokens."""
    context_length: int
    """Longest text, in tokens, that the published folder says the model reads."""
    precision: str
    """Of the training: `bfloat16 compute, float32 weights`."""
    hardware: str
    base_hub_id: str | None = None
    base_home_page: str | None = None
    base_licence: str | None = None
    base_attribution: str | None = None
    tokenizers: tuple[TokenizerRow, ...] = ()
    """The comparison on held-out text, as `compare_tokenizers` returns it."""
    tokenizer_mode: str = "replace"
    """`replace`, `extend`, `trim` or `keep`."""
    special_ids_first: bool = True
    """Whether the special tokens have the ids of `normistral.tokenizer`, before all others."""
    begins_with_start: bool = True
    """Whether the tokenizer puts a start token before a text."""
    scores: tuple[ScoreFacts, ...] = ()
    scores_note: str = ""
    """What the scores mean, in a sentence or two."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the software used, by package."""
    prompt_template: str = "Engelsk: {0}\nBokmål:"
    """Of the first usage example; `{0}` stands for the text."""
    prompt_text: str = "I'm excited to try this new Norwegian language model!"
    masked_sentence: str = "En søt lundefugl flyr over de<mask> norske fjorder."
    """Of the third usage example."""


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        facts: from the records of a run.

    Raises:
        KeyError: if a language code is not known.
    """
    # Markdown, not HTML: nothing is to be escaped but what would break a table (`cell`).
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "cell": _cell,
        "count": lambda number: f"{number:,}",
        "figure": lambda number: f"{number:.3f}",
        "large": _large,
        "duration": _duration,
        "size": _size,
        "language": language_name,
        # A JSON string is a Python string, in the double quotes of the code around it.
        "python": lambda text: json.dumps(text, ensure_ascii=False),
    }
    text = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text).render(
        facts=facts,
        front_matter=_front_matter(facts),
        languages=_listed([language_name(code) for code in _languages(facts)]),
        tokens=sum(stage.tokens for stage in facts.stages),
        tokenizer_languages=list(dict.fromkeys(row.language for row in facts.tokenizers)),
        tokenizer_rows=_tokenizer_table(facts.tokenizers),
        scores=[score for score in facts.scores if score.adapted is not None],
        attributed=[source for source in facts.sources if source.attribution or source.home_page],
        masked_sentence=spell_masks(facts.masked_sentence),
        tokenizer_phrase=TOKENIZER_PHRASES[facts.tokenizer_mode],
        tokenizer_sentence=TOKENIZER_SENTENCES[facts.tokenizer_mode],
        first_ordinary_id=FIRST_ORDINARY_ID,
        bytes_8bit=quantised_bytes(facts.model, BYTES_PER_WEIGHT_8BIT),
        bytes_4bit=quantised_bytes(facts.model, BYTES_PER_WEIGHT_4BIT),
    )


def quantised_bytes(model: ModelConfig, bytes_per_weight: float) -> float:
    """Size of a model whose blocks are quantised and whose embeddings and LM head are bfloat16.

    Args:
        model: its shape.
        bytes_per_weight: of a quantised weight, its share of the scales included.
    """
    embeddings = model.vocabulary_size * model.width * (1 if model.tied else 2)
    return (model.parameters - embeddings) * bytes_per_weight + embeddings * 2


def _front_matter(facts: CardFacts) -> str:
    """The hub's metadata; only what is known."""
    metadata: dict[str, Any] = {
        **_licence(facts.licence),
        "language": [code.partition("_")[0] for code in _languages(facts)],
        "base_model": facts.base_hub_id,
        "datasets": list(dict.fromkeys(source.hub_id for source in facts.sources if source.hub_id)),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["continual-pretraining", "masked-next-token-prediction", "bidirectional"],
    }
    known = {key: value for key, value in metadata.items() if value}
    return yaml.safe_dump(known, sort_keys=False, allow_unicode=True).strip()


def _licence(licence: str) -> dict[str, str]:
    known = hub_licence(licence)
    if known:
        return {"license": known}
    return {"license": "other", "license_name": licence.lower().replace(" ", "-")}


def _languages(facts: CardFacts) -> list[str]:
    """Codes of the natural languages, in the order of the sources."""
    codes = dict.fromkeys(source.language for source in facts.sources)
    return [code for code in codes if code != PROGRAM_TEXT]


def _tokenizer_table(rows: tuple[TokenizerRow, ...]) -> list[tuple[str, int, dict[str, float]]]:
    """Name, vocabulary size and tokens per word by language, one entry for each tokenizer."""
    sizes = {row.tokenizer: row.vocabulary_size for row in rows}
    return [
        (name, size, {row.language: row.tokens_per_word for row in rows if row.tokenizer == name})
        for name, size in sizes.items()
    ]


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _large(number: float) -> str:
    """A count as a reader says it: 11.4 billion."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:,.0f}"


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _duration(seconds: float) -> str:
    for size, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {word}"
    return f"{seconds:.0f} seconds"
