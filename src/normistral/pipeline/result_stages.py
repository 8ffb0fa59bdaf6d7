"""The stages that look at models and give them away: evaluation, publish, report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from normistral.evaluation import ModelExamples, ModelScore, measure_model, show_model
from normistral.model import ModelConfig
from normistral.pipeline.data_stages import heldout_texts, tokenizer_comparison, tokenizer_mode
from normistral.pipeline.dataset_stages import mixture_plan
from normistral.pipeline.machine import machine_facts, software_versions
from normistral.pipeline.report_facts import report_facts
from normistral.pipeline.stage import RunContext, Stage
from normistral.publish import (
    CardFacts,
    ScoreFacts,
    SourceFacts,
    StageFacts,
    model_card,
    publish_gguf,
    publish_model,
)
from normistral.records import RunFolder, read_json, write_json
from normistral.report import write_report
from normistral.samples import SAMPLES, Sample
from normistral.tokenizer import FIRST_ORDINARY_ID, TokenRoles, load_tokenizer
from normistral.weights import read_config

MEASURED = ("base", "swap", "realign", "adapt")
"""Models that are measured, by the stage that made them."""

SHOWN = ("base", "adapt")
"""Models that write and read the examples."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

DEFAULT_MASKED_SENTENCE = "En søt lundefugl flyr over de<mask> norske fjorder."
"""The card's, for recipes without a masked sentence of their own."""

SCORES_NOTE = (
    "Bits per byte compare across tokenizers; figures per masked token only where the vocabulary is the same "
    "(not the base's)."
)

# --- evaluation
# -----------------------------------------------------------------------------------------------------


def _folder_of(run: RunFolder, stage: str) -> Path:
    return {
        "base": run.base_model,
        "swap": run.swapped_model,
        "realign": run.trained_model("realign"),
        "adapt": run.trained_model("adapt"),
    }[stage]


def _run_evaluation(context: RunContext) -> dict[str, Any]:
    recipe, run = context.recipe, context.run
    folder = run.stage("evaluation")
    texts = heldout_texts(context, recipe.evaluation.heldout_bytes)
    for stage in MEASURED:
        # One file per model measured: an interrupted evaluation goes on with the next.
        done = folder / f"{stage}.json"
        if not done.exists():
            score = measure_model(stage, _folder_of(run, stage), texts, recipe.objective, context.runtime)
            write_json(done, score.to_json())
    for stage in SHOWN:
        done = folder / f"{stage}.examples.json"
        if not done.exists():
            examples = show_model(stage, _folder_of(run, stage), recipe.evaluation, context.runtime)
            write_json(done, examples.to_json())
    return {
        language: sum(len(text.encode()) for text in of_language) for language, of_language in texts.items()
    }


def model_scores(run: RunFolder) -> dict[str, ModelScore]:
    """What the evaluation measured, by the stage that made the model."""
    folder = run.stage("evaluation")
    return {stage: ModelScore.from_json(read_json(folder / f"{stage}.json")) for stage in MEASURED}


def model_examples(run: RunFolder) -> dict[str, ModelExamples]:
    """What base and adapted model wrote and read."""
    folder = run.stage("evaluation")
    return {stage: ModelExamples.from_json(read_json(folder / f"{stage}.examples.json")) for stage in SHOWN}


EVALUATION = Stage(
    name="evaluation",
    purpose="measure base, swapped start, realigned and adapted model on held-out text",
    above=("corpus", "base", "swap", "realign", "adapt"),
    settings=lambda recipe: {
        **recipe.evaluation.model_dump(mode="json", exclude={"note"}),
        "mask_ratio": recipe.objective.mask_ratio,
        "span_lengths": list(recipe.objective.span_lengths),
    },
    run=_run_evaluation,
    method_version=2,  # tokens a second
    outputs=("*.json",),
    show=lambda context: None,  # the closing screen shows it
)

# --- publish
# --------------------------------------------------------------------------------------------------------


def _run_publish(context: RunContext) -> dict[str, Any]:
    recipe, run = context.recipe, context.run
    counts = publish_model(
        run.trained_model("adapt"),
        run.tokenizer,
        run.published_model,
        recipe.publish.dtype,
        model_card(_card_facts(context)),
        recipe.publish.licence,
        recipe.published_context_length,
    )
    exported = publish_gguf(run.published_model, recipe.publish.gguf, recipe.name)
    return counts | {
        "files": sorted(file.name for file in run.published_model.iterdir()),
        "gguf": {report.path.name: report.bytes for report in exported},
    }


def _card_facts(context: RunContext) -> CardFacts:
    recipe, run = context.recipe, context.run
    corpus, shards = context.record("corpus").counts, context.record("shards").counts
    plan = {source.name: source for source in mixture_plan(context).sources}
    scores = model_scores(run)
    base_sample = _sample_of(recipe.base.model)
    roles = TokenRoles.of(run.tokenizer)
    runtime = context.runtime
    return CardFacts(
        name=recipe.name,
        repository=recipe.publish.repository or str(run.published_model),
        description=recipe.description,
        licence=recipe.publish.licence,
        base=_public_name(recipe.base.model),
        model=ModelConfig.from_hugging_face(read_config(run.trained_model("adapt"))),
        sources=tuple(
            SourceFacts(
                name=source.name,
                language=source.language,
                licence=source.licence,
                documents=corpus[source.name]["train_documents"],
                tokens=shards[source.name]["tokens"],
                repeats=plan[source.name].repeats,
                attribution=source.attribution or (sample.attribution if sample else None),
                home_page=source.home_page or (sample.home_page if sample else None),
                hub_id=_hub_id(source.path) if source.path.startswith("hub:") else None,
            )
            for source in recipe.corpus.sources
            for sample in (_sample_of(source.path),)
        ),
        stages=tuple(
            StageFacts(
                name,
                settings,
                context.record(name).counts["tokens"],
                context.record(name).counts["training_seconds"],
                context.record(name).counts["steps"],
            )
            for name, settings in (("realign", recipe.realign), ("adapt", recipe.adapt))
        ),
        objective=recipe.objective,
        sequence_length=recipe.mixture.sequence_length,
        context_length=recipe.published_context_length,
        precision=f"{runtime.dtype} compute, float32 weights and optimizer state",
        hardware=", ".join(machine_facts(runtime).values()),
        base_hub_id=_hub_id(recipe.base.model),
        base_home_page=base_sample.home_page if base_sample else None,
        base_licence=base_sample.licence if base_sample else None,
        base_attribution=base_sample.attribution if base_sample else None,
        tokenizers=tuple(tokenizer_comparison(context)),
        tokenizer_mode=tokenizer_mode(context),
        special_ids_first=not roles.later_special and roles.first_ordinary == FIRST_ORDINARY_ID,
        begins_with_start=load_tokenizer(run.tokenizer).encode("").ids == [roles.bos],
        scores=tuple(
            score
            for language in (entry.language for entry in scores["base"].languages)
            for score in _score_facts(language, scores["base"], scores["adapt"])
        ),
        scores_note=f"{SCORES_NOTE} {recipe.evaluation.note}".strip(),
        prompt_template=recipe.publish.translation_prompt,
        prompt_text=recipe.publish.translation_text,
        masked_sentence=next(iter(recipe.evaluation.masked_sentences), DEFAULT_MASKED_SENTENCE),
        versions=software_versions(),
    )


def _hub_id(path: str) -> str | None:
    """`ORG/NAME` of `hub:ORG/NAME?config=…`, or of a bare `ORG/NAME` that is no folder here; else None."""
    name = path.removeprefix("hub:").partition("?")[0]
    is_on_hub = path.startswith("hub:") or not Path(path).exists()
    return name if is_on_hub and HUB_ID.fullmatch(name) else None


def _public_name(base: str) -> str:
    """What a card calls the base: a sample's or hub id's own name, of a local path only its end."""
    if base.startswith(("sample:", "hub:")):
        return base.partition(":")[2]
    return base if HUB_ID.fullmatch(base) and not Path(base).exists() else Path(base).name


def _score_facts(language: str, base: ModelScore, adapted: ModelScore) -> tuple[ScoreFacts, ...]:
    before, after = base.of(language), adapted.of(language)
    accuracy = before.masked_accuracy if base.has_mask_token else None
    return (
        ScoreFacts(
            language, "bits per byte", before.bits_per_byte, after.bits_per_byte, lower_is_better=True
        ),
        ScoreFacts(language, "masked accuracy", accuracy, after.masked_accuracy, lower_is_better=False),
    )


def _sample_of(path: str) -> Sample | None:
    return SAMPLES.get(path.removeprefix("sample:")) if path.startswith("sample:") else None


def _show_publish(context: RunContext) -> None:
    counts = context.record("publish").counts
    context.screen.say(
        f"      {context.run.published_model}: {counts['parameters']:,} parameters in {counts['dtype']}, "
        f"{counts['bytes'] / 1e6:,.0f} MB"
    )
    for name, size in counts["gguf"].items():
        context.screen.say(f"      {context.run.published_model / name}: {size / 1e6:,.0f} MB, for llama.cpp")


PUBLISH = Stage(
    name="publish",
    purpose="write the Hugging Face folder and its card",
    above=("corpus", "tokenizer", "shards", "mixture", "adapt", "evaluation"),
    settings=lambda recipe: {
        **recipe.publish.model_dump(mode="json"),
        "name": recipe.name,
        "description": recipe.description,
        "note": recipe.evaluation.note,
        "context_length": recipe.published_context_length,
    },
    run=_run_publish,
    outputs=("*",),
    place=lambda context: context.run.published_model,
    show=_show_publish,
    cheap=True,
)

# --- report
# ---------------------------------------------------------------------------------------------------------


def _run_report(context: RunContext) -> dict[str, Any]:
    write_report(
        report_facts(context, model_scores(context.run), model_examples(context.run)), context.run.report
    )
    return {"bytes": context.run.report.stat().st_size}


REPORT = Stage(
    name="report",
    purpose="write report.html",
    above=("corpus", "tokenizer", "mixture", "realign", "adapt", "evaluation", "publish"),
    settings=lambda recipe: {
        "name": recipe.name,
        "description": recipe.description,
        "note": recipe.evaluation.note,
    },
    run=_run_report,
    outputs=("report.html",),
    place=lambda context: context.run.root,
    show=lambda context: None,
    cheap=True,
)
