"""The corpus stage: from sources to clean, deduplicated, split documents, by tasks that run anywhere.

    sources ─► tasks ─┬► clean ─┐               ┌► finish ─► documents/SOURCE/train-00000.parquet, heldout-…
                      ├► clean ─┼► deduplicate ─┼► finish    fates/SOURCE-00000.parquet
                      └► clean ─┘               └► finish ─► manifest.json

Each phase is a datatrove pipeline over tasks (`engine/`). What a phase makes lies in `work/`, named by a
fingerprint of all that it was made from: run again, the stage finds what is still right and makes the rest.
No process holds more than a batch of documents.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normistral.corpus.decontamination import build_contamination_index, contamination_report
from normistral.corpus.dedup import deduplicate
from normistral.corpus.engine.clean import KEYS, CleanTasks
from normistral.corpus.engine.finish import FinishPlaces, FinishTasks, read_record
from normistral.corpus.engine.manifest import SourceCounts, count_source, make_manifest
from normistral.corpus.engine.phases import phase_runner
from normistral.corpus.engine.plan import (
    METHOD_VERSION,
    Task,
    language_model_state,
    plan_tasks,
    write_plan,
)
from normistral.corpus.evaluation_sets import list_evaluation_files
from normistral.corpus.messages import source_error
from normistral.corpus.removal import read_removal_list, write_removal_list
from normistral.corpus.sources import check_licences, source_state
from normistral.corpus.steps.chain import steps_for
from normistral.errors import UserError
from normistral.languages import check_language, language_name
from normistral.recipe import CorpusExecutionSettings, CorpusSettings
from normistral.records import RunFolder, read_json, sha256_of_json, write_json

FOLDER_DIGITS = 12
WORK_FOLDER = "work"


@dataclass(frozen=True)
class _Phases:
    """Fingerprints of what the phases read, and their folders."""

    work: Path
    clean: str
    dedup: str
    finish: str

    @property
    def cleaned(self) -> Path:
        """What the tasks of the phase `clean` make, a folder each."""
        return self.work / "cleaned"

    def folder(self, phase: str) -> Path:
        return self.work / f"{phase}-{getattr(self, phase)[:FOLDER_DIGITS]}"

    @property
    def plan(self) -> Path:
        return self.folder("clean") / "plan.jsonl"


def build_corpus(
    settings: CorpusSettings, execution: CorpusExecutionSettings, cache: Path, run: RunFolder
) -> dict[str, Any]:
    """Make the train and held-out documents of every source, their fates, and the manifest.

    Args:
        settings: the recipe's `corpus` section.
        execution: where tasks run; changes no byte of what is made.
        cache: folder for what can be fetched again; on a disk that all workers see.
        run: where the corpus goes (`run.documents(source, split)`).

    Returns:
        The fields of `SourceCounts` by source.

    Raises:
        UserError: if a source is missing, broken or empty, a language code is wrong, or a language has too
            little held-out text.
        LostProcess: if a worker was killed from outside; the same call goes on.
        Stopped: after a dry run.
    """
    for source in settings.sources:
        check_language(source.language, f"corpus.sources.{source.name}.language")
    check_licences(settings.sources, settings.allowed_licences)
    outside = outside_state(settings, cache)
    if "://" not in settings.folder:  # workers may start elsewhere
        settings = settings.model_copy(update={"folder": str(Path(settings.folder).expanduser().resolve())})
    cache = cache.resolve()
    for source in settings.sources:
        steps_for(settings, source)  # what is not installed is said before hours of reading
    tasks = plan_tasks(settings, cache)
    phases = _phases(settings, tasks, outside, run)
    _remove_others(phases)
    places = FinishPlaces(
        phases.plan,
        phases.cleaned,
        phases.folder("dedup"),
        phases.folder("finish"),
        run.stage("corpus").resolve(),
    )

    keys = [phases.cleaned / task.fingerprint / KEYS for task in tasks]
    with phase_runner(execution) as runner:
        write_plan(phases.plan, tasks)
        clean = CleanTasks(settings, phases.plan, phases.cleaned, cache)
        runner(phases.folder("clean"))("clean", [clean], len(tasks))

        places.dedup.mkdir(parents=True, exist_ok=True)
        deduplicate(places.dedup, keys, settings.dedup, runner(places.dedup))

        write_removal_list(places.removal_list, read_removal_list(settings.removal_list))
        if settings.decontamination.against and not places.contamination.exists():
            build_contamination_index(settings.decontamination, Path(settings.folder), places.contamination)
        _forget_manifest(run, phases)
        runner(places.work)("finish", [FinishTasks(settings, places)], len(tasks))
    records = [
        (settings.sources[task.source].name, read_record(places, rank)) for rank, task in enumerate(tasks)
    ]
    counts = {
        source.name: count_source(source, (record for name, record in records if name == source.name))
        for source in settings.sources
    }
    _check_kept(settings, counts)
    _check_heldout(settings, counts)
    manifest = make_manifest(settings, METHOD_VERSION, phases.finish, outside["sources"], records, counts)
    if settings.decontamination.against:
        finds = (record["contamination"] for _, record in records)
        manifest["decontamination"] = contamination_report(places.contamination, finds)
    _remove_unknown(run, manifest)
    write_json(run.corpus_manifest, manifest)
    _tidy(phases, tasks, execution.keep_work)
    return {name: asdict(count) for name, count in counts.items()}


def outside_state(settings: CorpusSettings, cache: Path) -> dict[str, Any]:
    """What a corpus reads from outside the run, as JSON that changes when it does.

    Raises:
        UserError: if a source or a list is missing.
    """
    listed = sorted(read_removal_list(settings.removal_list).entries)
    return {
        "sources": {source.name: source_state(source, settings.folder, cache) for source in settings.sources},
        "language_models": {
            source.name: state
            for source in settings.sources
            if (state := language_model_state(settings, source)) is not None
        },
        "removal_list": sha256_of_json(listed) if listed else None,
        "evaluation_sets": [
            [file.set_name, file.path.stat().st_size, file.path.stat().st_mtime_ns]
            for file in list_evaluation_files(settings.decontamination, Path(settings.folder))
        ],
    }


def _phases(
    settings: CorpusSettings, tasks: Sequence[Task], outside: dict[str, Any], run: RunFolder
) -> _Phases:
    clean = sha256_of_json([task.fingerprint for task in tasks])
    dedup = sha256_of_json([clean, settings.dedup.model_dump(mode="json")])
    finish = sha256_of_json(
        [
            dedup,
            [settings.share_of(source) for source in settings.sources],
            outside["removal_list"],
            [settings.decontamination.model_dump(mode="json"), outside["evaluation_sets"]],
        ]
    )
    return _Phases(run.stage("corpus").resolve() / WORK_FOLDER, clean, dedup, finish)


def _remove_others(phases: _Phases) -> None:
    """Remove the records of other finishes, whose files this one is going to overwrite."""
    for folder in phases.work.glob("finish-*"):
        if folder != phases.folder("finish"):
            shutil.rmtree(folder)


def _forget_manifest(run: RunFolder, phases: _Phases) -> None:
    """Remove the manifest of a corpus whose files are going to be overwritten."""
    manifest = run.corpus_manifest
    if manifest.exists() and read_json(manifest)["inputs"] != phases.finish:
        manifest.unlink()


def _remove_unknown(run: RunFolder, manifest: dict[str, Any]) -> None:
    """Remove what earlier recipes have left beside the corpus's files."""
    ours = {run.stage("corpus") / file["path"] for file in (*manifest["files"], *manifest["fates"])}
    for folder in (run.documents_folder, run.fates_folder):
        for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in ours:
                path.unlink()


def _tidy(phases: _Phases, tasks: Sequence[Task], keep_work: bool) -> None:
    """Remove what no later start can use."""
    if not keep_work:
        shutil.rmtree(phases.work)
        return
    present = {phases.folder(phase) for phase in ("clean", "dedup", "finish")}
    present |= {phases.cleaned / task.fingerprint for task in tasks} | {phases.cleaned}
    for folder in (*phases.work.iterdir(), *phases.cleaned.iterdir()):
        if folder not in present:
            shutil.rmtree(folder)


def _check_kept(settings: CorpusSettings, counts: dict[str, SourceCounts]) -> None:
    for source in settings.sources:
        count = counts[source.name]
        if count.read == 0:
            raise source_error(source, f"{source.path} has no documents; give files with text in them")
        if count.kept_documents == 0:
            raise source_error(
                source,
                f"none of its {count.read:,} documents is left ({_most_dropped(count)}); check text_field, "
                f"language and the profile '{source.profile or source.kind}', or remove the source",
            )
        if count.train_documents == 0 and settings.share_of(source) < 1:
            raise source_error(
                source,
                f"all {count.heldout_documents} documents fell into the held-out part and none into "
                "training; cut the text into more documents, or set heldout_share: 0 for this source",
            )


def _most_dropped(count: SourceCounts) -> str:
    rules = {f"{step}.{rule}": n for step, rules in count.dropped.items() for rule, n in rules.items()}
    most = sorted(rules.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{n:,} {rule}" for rule, n in most)


def _check_heldout(settings: CorpusSettings, counts: dict[str, SourceCounts]) -> None:
    wanted = settings.min_heldout_bytes
    for language in settings.languages:
        ours = {name: count for name, count in counts.items() if count.language == language}
        heldout = sum(count.heldout_bytes for count in ours.values())
        if heldout >= wanted:
            continue
        total = heldout + sum(count.train_bytes for count in ours.values())
        present = max(settings.share_of(source) for source in settings.sources if source.name in ours)
        share = max(wanted / total, present * wanted / max(heldout, 1))
        remedy = (
            f"raise heldout_share of {', '.join(ours)} to about {math.ceil(120 * share) / 100:g}"
            if share < 0.5
            else "give more text in this language"
        )
        raise UserError(
            f"corpus: the held-out text in {language} ({language_name(language)}) has {heldout:,} bytes and "
            f"should have at least {wanted:,}; {remedy}, or lower corpus.min_heldout_bytes"
        )
