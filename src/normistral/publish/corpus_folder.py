"""Write a built corpus, or some of its sources, as a data set folder that is given away.

    documents/SOURCE/*.parquet ─► data/…          the texts (corpus_data.py)
    manifest.json ─► corpus.json                  settings and counts, without places on this machine
    fates and manifest ─► README.md               the card (corpus_card.py)
                          SHA256SUMS

`datasets.load_dataset` loads the folder as it is, from a disk or from the hub.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from normistral.corpus.reports import BuiltCorpus, CorpusStats, GroupStats, corpus_stats, in_step_order
from normistral.errors import UserError
from normistral.publish.corpus_card import (
    CorpusCardFacts,
    CorpusSourceFacts,
    StepFacts,
    corpus_card,
)
from normistral.publish.corpus_data import DATA, write_data
from normistral.publish.licences import may_be_shared
from normistral.recipe import CorpusSettings, ProfileSettings, SourceSettings
from normistral.recipe.checks import suggest_name
from normistral.records import sha256_of_file, whole_folder, write_json
from normistral.samples import SAMPLES

CARD_FILE, FACTS_FILE, SUMS_FILE = "README.md", "corpus.json", "SHA256SUMS"
HOSTS_NAMED = 5
PRIVATE = {"path", "storage", "removal_list", "against", "model"}
"""Settings that tell of this machine and of no document."""
SECTIONS = {"language": "language_id"}
"""Settings of a step, where they are not called as the step is."""
OF_CORPUS = {"exact_dedup": "", "near_dedup": "dedup", "decontamination": "decontamination", "removal": ""}
"""Steps whose settings stand in the corpus's own sections and in no profile."""


def publish_corpus(
    corpus: BuiltCorpus,
    output: Path,
    name: str = "",
    description: str = "",
    contact: str = "",
    sources: Sequence[str] = (),
    accepted_licences: Sequence[str] = (),
    repository: str = "",
) -> dict[str, Any]:
    """Write a data set folder, whole or not at all.

    Args:
        corpus: as `find_corpus` gives it.
        output: the folder to write; an earlier data set of this kind there is replaced.
        name: what the data set is called; empty: as the folder.
        description: the card's first sentences.
        contact: whom to ask to take a text out; empty: by a discussion at the repository.
        sources: only these; none: all.
        accepted_licences: names or patterns of licences that may be passed on though they are not known here
            as ones that may.
        repository: what the card's example loads; empty: the folder's name.

    Returns:
        `documents`, `words`, `text_bytes`, `files`, `languages`.

    Raises:
        UserError: if there is no such source, a licence does not allow it, `output` holds other things, a
            file is broken, or the disk is full.
    """
    settings = CorpusSettings.model_validate(corpus.manifest["settings"])
    chosen = _chosen(settings, sources)
    check_replaceable(output)
    stats = corpus_stats(corpus)
    names = {source.name for source in chosen}
    kept = tuple(group for group in stats.groups if group.source in names and group.kept.documents)
    if not kept:
        raise UserError(
            f"{corpus.folder} has no document of {', '.join(sorted(names))}; there is nothing to publish"
        )
    _check_licences(kept, accepted_licences)
    with whole_folder(output) as folder:
        files = write_data(corpus, [source.name for source in chosen], folder)
        total = sum(group.kept.documents for group in kept)
        if sum(file.documents for file in files) != total:
            raise UserError(
                f"{corpus.folder} has {sum(file.documents for file in files):,} documents in its files and "
                f"{total:,} in its fates; make it again with `normistral run RECIPE --redo corpus`"
            )
        facts = CorpusCardFacts(
            name=name or output.name,
            repository=repository or output.name,
            description=description,
            contact=contact,
            read=sum(group.read.documents for group in stats.groups if group.source in names),
            sources=tuple(_source_facts(settings, stats, chosen)),
            steps=tuple(_step_facts(settings, stats, chosen)),
            dropped=tuple(_dropped(stats, names)),
            evaluation_sets=stats.evaluation_sets,
            files=tuple(files),
            version=metadata.version("normistral"),
        )
        (folder / CARD_FILE).write_text(corpus_card(facts), encoding="utf-8")
        write_json(folder / FACTS_FILE, _facts_json(corpus, settings, stats, chosen, facts))
        _write_sums(folder)
    return {
        "documents": total,
        "words": sum(group.kept.words for group in kept),
        "text_bytes": sum(group.kept.bytes for group in kept),
        "files": [file.path for file in files],
        "languages": list(dict.fromkeys(group.language for group in kept)),
    }


def check_replaceable(output: Path) -> None:
    """Refuse to replace a folder that holds something else than a published corpus.

    Raises:
        UserError: if `output` is a file, or a folder with other content.
    """
    ours = (output / FACTS_FILE).is_file() and (output / DATA).is_dir()
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not ours):
        raise UserError(f"output folder {output} holds other things and is not replaced; give a new folder")


def _chosen(settings: CorpusSettings, wanted: Sequence[str]) -> list[SourceSettings]:
    known = [source.name for source in settings.sources]
    for name in wanted:
        if name not in known:
            raise UserError(
                f"the corpus has no source '{name}' (it has: {', '.join(known)}){suggest_name(name, known)}"
            )
    return [source for source in settings.sources if not wanted or source.name in wanted]


def _check_licences(groups: Sequence[GroupStats], accepted: Sequence[str]) -> None:
    refused: dict[str, Counter[str]] = {}
    for group in groups:
        for licence, count in group.licences.items():
            if not may_be_shared(licence, accepted):
                refused.setdefault(licence, Counter())[group.source] += count
    for licence, counts in refused.items():
        where = ", ".join(f"{count:,} of source '{source}'" for source, count in counts.items())
        raise UserError(
            f"documents under the licence '{licence}' ({where}) may not be passed on, or it is not known "
            f"here that they may: leave the source out (--source), or say --accept-licence '{licence}' if "
            "you have the right"
        )


def _source_facts(
    settings: CorpusSettings, stats: CorpusStats, chosen: Sequence[SourceSettings]
) -> Iterator[CorpusSourceFacts]:
    for source in chosen:
        origin, attribution = _origin(source, stats)
        for group in stats.groups:
            if group.source == source.name and group.kept.documents:
                yield CorpusSourceFacts(
                    name=source.name,
                    language=group.language,
                    kind=group.kind,
                    licences=group.licences,
                    amount=group.kept,
                    origin=origin,
                    attribution=attribution,
                    hub_id=_hub_id(source),
                )


def _origin(source: SourceSettings, stats: CorpusStats) -> tuple[str, str]:
    """Where a source comes from, as far as everybody may know, and whom to name."""
    hub_id = _hub_id(source)
    sample = SAMPLES.get(source.path.removeprefix("sample:")) if source.path.startswith("sample:") else None
    number = stats.host_counts.get(source.name, 0)
    if hub_id:
        origin = f"[{hub_id}](https://huggingface.co/datasets/{hub_id})"
    elif source.home_page or sample:
        home_page = source.home_page or (sample.home_page if sample else "")
        origin = f"[{sample.description if sample else home_page}]({home_page})"
    elif number:
        hosts = [host.host for host in stats.hosts if host.source == source.name][:HOSTS_NAMED]
        most = f", most from {', '.join(hosts)}" if number > len(hosts) else f": {', '.join(hosts)}"
        origin = f"{number:,} host{'s' if number > 1 else ''} of the web{most}"
    else:
        origin = "files"
    return origin, source.attribution or (sample.attribution if sample else "")


def _hub_id(source: SourceSettings) -> str | None:
    return source.path.removeprefix("hub:").partition("?")[0] if source.path.startswith("hub:") else None


def _step_facts(
    settings: CorpusSettings, stats: CorpusStats, chosen: Sequence[SourceSettings]
) -> Iterator[StepFacts]:
    names = {source.name for source in chosen}
    counts = [step for step in stats.steps if step.source in names]
    for name in in_step_order(list({step.step for step in counts})):
        of_step = [step for step in counts if step.step == name]
        ours = {step.source for step in of_step}
        profiles = [settings.profile_of(source) for source in chosen if source.name in ours]
        yield StepFacts(
            name,
            _simple_settings(name, settings, profiles),
            reached=sum(step.reached for step in of_step),
            changed=sum(step.changed for step in of_step),
            dropped=sum(step.dropped for step in of_step),
            actions=sum((Counter(step.actions) for step in of_step), Counter()),
        )


def _simple_settings(
    step: str, settings: CorpusSettings, profiles: Sequence[ProfileSettings]
) -> dict[str, Any]:
    """A step's numbers and switches where all profiles that use it agree on them; no lists and no paths."""
    if step in OF_CORPUS:
        sections = [getattr(settings, OF_CORPUS[step])] if OF_CORPUS[step] else []
    else:
        section = SECTIONS.get(step, step)
        sections = [getattr(profile, section) for profile in profiles if hasattr(profile, section)]
        sections = [each for each in sections if getattr(each, "enabled", True)]
    versions = [each.model_dump(mode="json", exclude=PRIVATE | {"enabled"}) for each in sections]
    if not versions or any(version != versions[0] for version in versions):
        return {}
    return {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in versions[0].items()
        if isinstance(value, (bool, int, float, str)) and value != ""
    }


def _dropped(stats: CorpusStats, names: set[str]) -> Iterator[tuple[str, str, int]]:
    total: Counter[tuple[str, str]] = Counter()
    for group in stats.groups:
        if group.source in names:
            total.update({rule: amount.documents for rule, amount in group.dropped.items()})
    for (step, rule), count in total.items():
        yield step, rule, count


def _facts_json(
    corpus: BuiltCorpus,
    settings: CorpusSettings,
    stats: CorpusStats,
    chosen: Sequence[SourceSettings],
    facts: CorpusCardFacts,
) -> dict[str, Any]:
    """What the card says, and every setting, for programs."""
    names = {source.name for source in chosen}
    profiles = {source.profile or source.kind: settings.profile_of(source) for source in chosen}
    figures = stats.to_json()
    return {
        "name": facts.name,
        "made_with": f"normistral {facts.version}",
        "corpus": corpus.manifest["inputs"],
        "sources": [_public(source.model_dump(mode="json")) for source in chosen],
        "profiles": _public({name: profile.model_dump(mode="json") for name, profile in profiles.items()}),
        "dedup": settings.dedup.model_dump(mode="json"),
        "decontamination": _public(settings.decontamination.model_dump(mode="json")),
        "figures": [group for group in figures["groups"] if group["source"] in names],
        "steps": [step for step in figures["steps"] if step["source"] in names],
        "files": [vars(file) for file in facts.files],
    }


def _public(settings: Any) -> Any:
    """Settings without those that tell of this machine; of paths that anybody can follow, the path stays."""
    if not isinstance(settings, dict):
        return settings
    return {
        key: _public(value)
        for key, value in settings.items()
        if key not in PRIVATE or (isinstance(value, str) and value.startswith(("hub:", "sample:")))
    }


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")
