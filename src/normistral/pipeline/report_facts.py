"""Gather from the records what report.html and the closing screen say."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from normistral.corpus.reports import corpus_stats, find_corpus
from normistral.evaluation import LanguageScore, ModelExamples, ModelScore
from normistral.languages import language_name
from normistral.pipeline.corpus_stage import dropped_by_step
from normistral.pipeline.data_stages import MODE_NOTES, tokenizer_comparison, tokenizer_mode
from normistral.pipeline.dataset_stages import mixture_plan
from normistral.pipeline.machine import machine_facts, software_versions
from normistral.pipeline.stage import RunContext
from normistral.records import StageRecord, read_metrics
from normistral.report import Example, ReportFacts, StageCurves, Table, corpus_tables, fates_drawing

MODEL_NAMES = {"base": "base", "swap": "after the swap", "realign": "after realign", "adapt": "after adapt"}

MEANING = (
    "Bits per byte: how many bits the model needs for a byte of held-out text, read left to right; lower is "
    "better, and it compares across tokenizers. Masked figures: of held-out tokens hidden in their sentence "
    "and read both ways, the share guessed right and the bits needed for each."
)
STAND_IN_NOTE = (
    "The base has no <mask>: another special token stands in for it, and its masked figures are over its own "
    "tokens."
)


def evaluation_rows(
    scores: dict[str, ModelScore],
) -> list[tuple[str, str, float, str, float | None, float | None]]:
    """Language, model, bits per byte, change against the base, masked accuracy, bits per masked token."""
    rows = []
    for before in scores["base"].languages:
        for stage, score in scores.items():
            after: LanguageScore = score.of(before.language)
            change = "" if stage == "base" else f"{after.bits_per_byte / before.bits_per_byte - 1:+.1%}"
            rows.append(
                (
                    language_name(before.language),
                    MODEL_NAMES[stage],
                    after.bits_per_byte,
                    change,
                    after.masked_accuracy,
                    after.bits_per_masked_token,
                )
            )
    return rows


def meaning_of_scores(context: RunContext, scores: dict[str, ModelScore]) -> str:
    """A few sentences on what the evaluation's figures mean, the recipe's own note last."""
    stand_in = "" if scores["base"].has_mask_token else STAND_IN_NOTE
    return " ".join(filter(None, (MEANING, stand_in, context.recipe.evaluation.note)))


def report_facts(
    context: RunContext, scores: dict[str, ModelScore], examples: dict[str, ModelExamples]
) -> ReportFacts:
    """All that the report says."""
    recipe, run = context.recipe, context.run
    base, adapted = examples["base"], examples["adapt"]
    fates = corpus_stats(find_corpus(run.root))
    return ReportFacts(
        title=recipe.name,
        description=recipe.description,
        finished_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine_facts(context.runtime) | {"precision": context.runtime.dtype} | software_versions(),
        corpus=_corpus_table(context),
        corpus_drawing=fates_drawing(fates),
        corpus_rules=corpus_tables(fates).rules,
        tokenizer=_tokenizer_table(context),
        mixture=_mixture_table(context),
        stages=_stages_table(context),
        curves=tuple(
            StageCurves.from_metrics(name, read_metrics(run.stage(name) / "metrics.jsonl"))
            for name in ("realign", "adapt")
        ),
        evaluation=Table(
            (
                "language",
                "model",
                "bits per byte",
                "against base",
                "masked accuracy",
                "bits per masked token",
            ),
            tuple(evaluation_rows(scores)),
            meaning_of_scores(context, scores),
        ),
        continuations=tuple(
            Example(one.prompt, one.text, other.text)
            for one, other in zip(base.continuations, adapted.continuations, strict=True)
        ),
        masks=tuple(
            Example(one.sentence, one.text, other.text)
            for one, other in zip(base.masks, adapted.masks, strict=True)
        ),
        places=places(context),
        commands=next_commands(context),
    )


def places(context: RunContext) -> dict[str, str]:
    """Where everything is."""
    run = context.run
    return {
        "published model": str(run.published_model),
        "report": str(run.report),
        "resolved recipe": str(run.recipe),
        "metrics": str(run.stage("adapt") / "metrics.jsonl"),
        "evaluation": str(run.stage("evaluation")),
    }


def next_commands(context: RunContext) -> dict[str, str]:
    """Commands to try next, which work as typed."""
    run, recipe = context.run, context.recipe
    model, program = shlex.quote(str(run.published_model)), context.program
    commands = {}
    for prompt in recipe.evaluation.continuations[:1]:
        typed = shlex.quote(prompt.replace("\n", "\\n"))
        commands["let it write"] = f"{program} generate {model} {typed} --max-new-tokens 64"
    for sentence in recipe.evaluation.masked_sentences[:1]:
        commands["let it read both ways"] = f"{program} fill-mask {model} {shlex.quote(sentence)}"
    commands["talk to it over HTTP and in the browser"] = f"{program} serve {model}"
    longer = shlex.quote(f"{run.root}-longer")
    steps = 3 * recipe.adapt.steps
    commands["train three times as long"] = (
        f"{program} run {shlex.quote(str(run.recipe))} --out {longer} --set adapt.steps={steps}"
    )
    return commands


def _corpus_table(context: RunContext) -> Table:
    headings = ("source", "language", "licence", "read", "dropped", "train", "words", "held out")
    rows = tuple(
        (
            name,
            language_name(count["language"]),
            count["licence"],
            count["read"],
            sum(dropped_by_step(count).values()),
            count["train_documents"],
            count["train_words"],
            count["heldout_documents"],
        )
        for name, count in context.record("corpus").counts.items()
    )
    return Table(headings, rows, "Documents; words are pieces between white space in the training part.")


def _tokenizer_table(context: RunContext) -> Table:
    rows = tuple(
        (
            row.tokenizer,
            row.vocabulary_size,
            language_name(row.language),
            row.tokens_per_word,
            row.bytes_per_token,
        )
        for row in tokenizer_comparison(context)
    )
    headings = ("tokenizer", "vocabulary", "language", "tokens per word", "bytes per token")
    note = f"On held-out text; a word is a piece between white space. {MODE_NOTES[tokenizer_mode(context)]}"
    return Table(headings, rows, note.strip())


def _mixture_table(context: RunContext) -> Table:
    plan = mixture_plan(context)
    rows = tuple(
        (source.name, source.unique_tokens, source.tokens, f"{source.share:.1%}", source.repeats)
        for source in plan.sources
    )
    note = f"{plan.sequences:,} sequences of {plan.sequence_length:,} tokens, realign and adapt together."
    return Table(("source", "unique tokens", "tokens", "share", "repeats"), rows, note)


def _stages_table(context: RunContext) -> Table:
    records = [
        StageRecord.read(context.run.stage(name))
        for name in (
            "corpus",
            "base",
            "tokenizer",
            "shards",
            "mixture",
            "swap",
            "realign",
            "adapt",
            "evaluation",
        )
    ]
    rows = tuple(
        (record.stage, record.seconds, _gigabytes(record.peak_memory_bytes), record.finished_at)
        for record in records
        if record
    )
    headings = ("stage", "seconds", "memory at most", "finished")
    return Table(headings, rows, "Of the process that finished the stage; memory in GB.")


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e9
