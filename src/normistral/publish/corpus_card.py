"""The card of a published corpus, from its records alone: what is in it, from where, how it was made.

`publish_corpus` fills `CorpusCardFacts`; `corpus_card.md.j2` lays them out. The front matter is what the hub
reads: languages, licences, sizes, and which files are which split of which configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from normistral.corpus.reports import Amount, SetStats
from normistral.languages import language_name
from normistral.publish.corpus_data import DATA, SPLITS, DataFile
from normistral.publish.licences import conditions, hub_licence

TEMPLATE = "corpus_card.md.j2"
FILES_LISTED = 20
RULES_LISTED = 30
SIZE_CATEGORIES = (
    *((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")),
    *((1e8, "10M<n<100M"), (1e9, "100M<n<1B"), (1e10, "1B<n<10B"), (1e11, "10B<n<100B")),
    *((1e12, "100B<n<1T"), (float("inf"), "n>1T")),
)
"""The hub's names for numbers of documents, by the number that they end below."""

STEP_TEXTS = {
    "extract": "text taken out of web pages, without menus and adverts",
    "encoding": "wrongly decoded characters repaired; Unicode NFC, uniform line ends",
    "lines": "words put together that were cut at line ends; running heads and page numbers taken out",
    "length": "documents dropped that are too short, or hold what is no word",
    "repetition": "documents dropped that say the same again and again",
    "quality": "documents dropped that are lists, tables or noise rather than running text",
    "language": "documents dropped that are not in the language of their source",
    "personal_data": "e-mail and network addresses, telephone, account and personal numbers replaced by "
    "placeholders",
    "exact_dedup": "of documents with the same text one is kept, that of the source named first",
    "near_dedup": "of documents with nearly the same text one is kept (MinHash)",
    "decontamination": "documents dropped that hold text of evaluation sets",
    "removal": "documents taken out because somebody asked for it",
}


@dataclass(frozen=True)
class CorpusSourceFacts:
    """One source, in one language."""

    name: str
    language: str
    """ISO 639-3 code, or `code`."""
    kind: str
    licences: Mapping[str, int]
    """Documents published under each."""
    amount: Amount
    """Published, all splits together."""
    origin: str
    """Where it comes from, as Markdown."""
    attribution: str = ""
    """Whom to name."""
    hub_id: str | None = None


@dataclass(frozen=True)
class StepFacts:
    """One step and what it did to the published sources."""

    name: str
    settings: Mapping[str, Any]
    """The simple ones; empty where they differ by profile."""
    reached: int
    changed: int
    dropped: int
    actions: Mapping[str, int]
    """What was done inside of texts, by kind."""


@dataclass(frozen=True)
class CorpusCardFacts:
    """All that the card of a corpus says."""

    name: str
    repository: str
    """What the example loads: a hub id or a folder."""
    description: str
    contact: str
    """Whom to ask to take a text out; empty: by a discussion at the repository."""
    read: int
    """Documents that the sources had."""
    sources: tuple[CorpusSourceFacts, ...]
    steps: tuple[StepFacts, ...]
    dropped: tuple[tuple[str, str, int], ...]
    """Step, rule and documents."""
    evaluation_sets: tuple[SetStats, ...]
    """Those that it was cleaned of."""
    files: tuple[DataFile, ...]
    version: str
    """Of this package."""


def corpus_card(facts: CorpusCardFacts) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        facts: from the records of a corpus.

    Raises:
        KeyError: if a language code is not known.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    filters: dict[str, Any] = {"cell": _cell, "count": _count, "size": _size, "language": language_name}
    environment.filters |= filters | {"outcome": _outcome, "licences": _licences}
    text = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    licences = list(dict.fromkeys(name for source in facts.sources for name in source.licences))
    return environment.from_string(text).render(
        facts=facts,
        front_matter=yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True).strip(),
        total=sum((source.amount for source in facts.sources), Amount()),
        source_count=len({source.name for source in facts.sources}),
        languages=_listed([language_name(code) for code in _languages(facts)]),
        first_language=_languages(facts)[0] if len({file.language for file in facts.files}) > 1 else "",
        splits=list(dict.fromkeys(file.split for file in facts.files)),
        parts=sorted(_parts(facts.files), key=lambda part: _languages(facts).index(part[0])),
        step_texts=STEP_TEXTS,
        rules=sorted(facts.dropped, key=lambda rule: -rule[2])[:RULES_LISTED],
        steps={step.name: step for step in facts.steps},
        licences=licences,
        conditions={name: conditions(name) for name in licences if conditions(name)},
        files=facts.files if len(facts.files) <= FILES_LISTED else (),
    )


def configs(files: Iterable[DataFile]) -> list[dict[str, Any]]:
    """The hub's configurations: all languages together, and, if there are several, each of them.

    Args:
        files: of the data set.
    """
    languages: dict[str, set[str]] = {}
    for file in files:
        languages.setdefault(file.language, set()).add(file.split)
    order = [split for split in SPLITS.values() if any(split in splits for splits in languages.values())]
    if len(languages) < 2:
        return [_config("default", DATA, order, is_default=False)]
    return [
        _config("default", f"{DATA}/*", order, is_default=True),
        *(
            _config(language, f"{DATA}/{language}", [split for split in order if split in splits], False)
            for language, splits in sorted(languages.items())
        ),
    ]


def _config(name: str, folder: str, splits: Iterable[str], is_default: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "config_name": name,
        "data_files": [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits],
    }
    return config | ({"default": True} if is_default else {})


def _front_matter(facts: CorpusCardFacts) -> dict[str, Any]:
    languages = _languages(facts)
    codes = [code.partition("_")[0] for code in languages]
    documents = sum(source.amount.documents for source in facts.sources)
    hub_ids = list(dict.fromkeys(source.hub_id for source in facts.sources if source.hub_id))
    return {
        "pretty_name": facts.name,
        "language": list(dict.fromkeys(codes)),
        **_licence_metadata(facts),
        "size_categories": [next(name for end, name in SIZE_CATEGORIES if documents < end)],
        "task_categories": ["text-generation", "fill-mask"],
        "multilinguality": ["multilingual" if len(codes) > 1 else "monolingual"],
        "annotations_creators": ["no-annotation"],
        "language_creators": ["found"],
        "source_datasets": hub_ids or ["original"],
        "tags": ["pretraining", "normistral"],
        "configs": configs(facts.files),
    }


def _licence_metadata(facts: CorpusCardFacts) -> dict[str, Any]:
    names = list(dict.fromkeys(name for source in facts.sources for name in source.licences))
    on_hub = [hub_licence(name) for name in names]
    if all(on_hub):
        known = list(dict.fromkeys(name for name in on_hub if name))
        return {"license": known[0] if len(known) == 1 else known}
    return {
        "license": "other",
        "license_name": "-and-".join(name.lower().replace(" ", "-") for name in names),
    }


def _languages(facts: CorpusCardFacts) -> list[str]:
    """Codes in the order of the sources; program text as `code`, as the hub has it too."""
    return list(dict.fromkeys(source.language for source in facts.sources))


def _parts(files: Iterable[DataFile]) -> list[tuple[str, str, int, int]]:
    """Language, split, documents and bytes of text."""
    parts: dict[tuple[str, str], tuple[int, int]] = {}
    for file in files:
        documents, size = parts.get((file.language, file.split), (0, 0))
        parts[file.language, file.split] = documents + file.documents, size + file.text_bytes
    return [(*key, *amounts) for key, amounts in parts.items()]


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _count(number: int) -> str:
    return f"{number:,}"


def _licences(counts: Mapping[str, int]) -> str:
    """Licences of a source, the most frequent first, with the documents of each if there are several."""
    if len(counts) == 1:
        return next(iter(counts))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count:,})" for name, count in ordered)


def _outcome(step: StepFacts) -> str:
    """What a step did, without what it did not do."""
    done = [
        f"{count:,} {'was' if count == 1 else 'were'} {what}"
        for count, what in ((step.changed, "changed"), (step.dropped, "dropped"))
        if count
    ]
    return " and ".join(done) or "none was changed or dropped"


def _size(size: int) -> str:
    for bound, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= bound:
            return f"{size / bound:.1f} {unit}"
    return f"{size} bytes"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
