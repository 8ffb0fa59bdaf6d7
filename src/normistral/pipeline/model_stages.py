"""The stages that make models: swap, realign, adapt."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from normistral.dataset import PackedDataset, open_sources
from normistral.objective import MaskingRule
from normistral.pipeline.corpus_stage import corpus_texts
from normistral.pipeline.data_stages import heldout_texts, tokenizer_mode
from normistral.pipeline.dataset_stages import mixture_plan, shard_manifest
from normistral.pipeline.stage import RunContext, Stage
from normistral.recipe import Recipe, TrainingSettings
from normistral.records import STARTED_FILE, read_json, read_metrics, sha256_of_json
from normistral.scoring import encode_heldout
from normistral.swap import swap_vocabulary
from normistral.tokenizer import TokenRoles
from normistral.tokenizer.sample import spread
from normistral.training import HeldOutJob, TrainingJob, train
from normistral.training.parallel import Trainable

METHODS_WITH_TEXT = ("focus", "calibrated", "distilled")


def _run_swap(context: RunContext) -> dict[str, Any]:
    run, settings = context.run, context.recipe.swap
    report = swap_vocabulary(
        run.base_model,
        run.tokenizer,
        run.swapped_model,
        _swap_method(context.recipe),
        texts=_swap_texts(context),
        settings=settings,
        seed=context.recipe.seed,
        device=context.runtime.device,
    )
    return dataclasses.asdict(report)


def _swap_method(recipe: Recipe) -> str:
    """The recipe's; a tokenizer that is kept has no row that a method could make."""
    return "mean" if recipe.tokenizer.mode == "keep" else recipe.swap.method


def _swap_texts(context: RunContext) -> dict[str, list[str]]:
    """Training text for methods that learn, each source's share spread evenly over it."""
    recipe = context.recipe
    if _swap_method(recipe) not in METHODS_WITH_TEXT:
        return {}
    corpus = context.record("corpus").counts
    texts: dict[str, list[str]] = {}
    for name, weight in recipe.tokenizer_weights.items():
        wanted = weight * recipe.swap.sample_bytes
        if available := corpus[name]["train_bytes"]:
            texts[name] = list(spread(corpus_texts(context, name, "train"), min(1.0, wanted / available)))
    return texts


def _swap_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides the rows; the settings of methods that learn only where one does."""
    method = _swap_method(recipe)
    if method not in METHODS_WITH_TEXT:
        return {"method": method} | ({"seed": recipe.seed} if method == "random" else {})
    return {
        **recipe.swap.model_dump(mode="json"),
        "weights": recipe.tokenizer_weights,
        "seed": recipe.seed,
    }


def _show_swap(context: RunContext) -> None:
    counts = context.record("swap").counts
    if tokenizer_mode(context) == "keep":
        context.screen.say(f"      the base's tokenizer and rows; {counts['vocabulary']:,} of them")
        return
    others = {"mean": "the mean of", "random": "drawn, of"}.get(counts["method"], f"{counts['method']}, of")
    context.screen.say(
        f"      {counts['base_vocabulary']:,} → {counts['vocabulary']:,} tokens, "
        f"{counts['exact_match_share']:.0%} copied from an equal token, others {others} "
        f"{counts['mean_pieces']:.2f} pieces on average; "
        f"{'one tied matrix' if counts['tied'] else 'embeddings and head'}; "
        f"{counts['parameters_before'] / 1e6:,.1f} → {counts['parameters_after'] / 1e6:,.1f} M parameters"
    )
    if counts.get("text_bytes"):
        context.screen.say(
            f"      learned from {counts['text_bytes'] / 1e6:,.1f} MB of text, "
            f"{counts['model_tokens']:,} tokens of it read by the model, {counts['flops'] / 1e12:,.2f} TFLOP"
        )


SWAP = Stage(
    name="swap",
    purpose="rewrite embeddings and head for the new vocabulary",
    above=("corpus", "base", "tokenizer"),
    settings=_swap_settings,
    run=_run_swap,
    outputs=("model/*",),
    show=_show_swap,
)


def _run_training(
    context: RunContext,
    name: str,
    initial: Path,
    settings: TrainingSettings,
    first_sequence: int,
    part: Trainable,
) -> dict[str, Any]:
    recipe, run = context.recipe, context.run
    plan = mixture_plan(context)
    names = [source.name for source in plan.sources]
    manifest = shard_manifest(context)
    sources = open_sources(run.stage("shards"), manifest, names)
    objective, roles = recipe.objective, TokenRoles.of(run.tokenizer)
    job = TrainingJob(
        name=name,
        initial_model=initial,
        folder=run.stage(name),
        settings=settings,
        rule=MaskingRule(
            masked_share=objective.masked_share,
            mask_ratio=objective.mask_ratio,
            span_lengths=objective.span_lengths,
            replace_with_mask=objective.replace_with_mask,
            replace_with_random=objective.replace_with_random,
            mask_id=roles.shown_as_mask,
            first_ordinary_id=roles.first_ordinary,
            vocabulary_size=roles.size,
            final_masked_share=objective.final_masked_share,
            sequences=plan.sequences,
            later_special_ids=roles.later_special,
        ),
        dataset=PackedDataset(plan, sources, recipe.seed, manifest=manifest.digest),
        first_sequence=first_sequence,
        seed=recipe.seed,
        trainable=part,
        execution=recipe.runtime,
        runtime=context.runtime,
        fingerprint=sha256_of_json(read_json(run.stage(name) / STARTED_FILE)),
        loss=recipe.loss,
        heldout=_heldout(context, initial, settings),
    )
    return train(job)


def _heldout(context: RunContext, initial: Path, settings: TrainingSettings) -> HeldOutJob | None:
    """What is measured while the stage trains, and what it is held against."""
    if settings.heldout_every is None:
        return None
    recipe = context.recipe
    texts = heldout_texts(context, recipe.evaluation.heldout_bytes)
    sources: dict[str, tuple[str, ...]] = {}
    for name, language in recipe.source_languages.items():
        if recipe.mixture.includes(name):
            sources[language] = (*sources.get(language, ()), name)
    return HeldOutJob(
        text=encode_heldout(initial, texts, recipe.objective),
        base_model=context.run.base_model,
        base_texts={budget.language: texts[budget.language] for budget in settings.forgetting},
        sources=sources,
        max_repeats=recipe.mixture.max_repeats,
    )


def _run_realign(context: RunContext) -> dict[str, Any]:
    return _run_training(
        context, "realign", context.run.swapped_model, context.recipe.realign, 0, "embeddings"
    )


def _run_adapt(context: RunContext) -> dict[str, Any]:
    # The run's sequences go on where realign ended, which may be early.
    taken = int(context.record("realign").counts["steps"])
    first_sequence = taken * context.recipe.realign.global_batch_size
    initial = context.run.trained_model("realign")
    return _run_training(context, "adapt", initial, context.recipe.adapt, first_sequence, "all")


def _show_training(context: RunContext, name: str) -> None:
    lines = list(read_metrics(context.run.stage(name) / "metrics.jsonl"))
    counts = context.record(name).counts
    edge = max(1, len(lines) // 10)

    def mean(key: str, part: list[dict[str, Any]]) -> str:
        values = [line[key] for line in part if line[key] is not None]
        return f"{sum(values) / len(values):.2f}" if values else "–"

    losses = ", ".join(
        f"{label} {mean(key, lines[:edge])} → {mean(key, lines[-edge:])}"
        for label, key in (("causal loss", "causal_loss"), ("masked", "masked_loss"))
    )
    speed = sorted(line["tokens_per_second"] for line in lines)[len(lines) // 2]
    context.screen.say(f"      {counts['tokens']:,} tokens, {losses}; median {speed:,.0f} tokens/s")


def _training_settings(recipe: Recipe, settings: TrainingSettings) -> dict[str, Any]:
    described = settings.model_dump(mode="json")
    if settings.early_stop is None:
        del described["early_stop"]  # as before there was such a setting
    if any(budget.action == "replay" for budget in settings.forgetting):
        described["heldout_bytes"] = recipe.evaluation.heldout_bytes
    else:  # measuring changes nothing of what is trained, and may be changed on the way
        del described["heldout_every"], described["forgetting"]
    return {
        **described,
        "objective": recipe.objective.model_dump(mode="json"),
        "loss": recipe.loss.model_dump(mode="json"),
        "seed": recipe.seed,
    }


REALIGN = Stage(
    name="realign",
    purpose="train embeddings and head, body frozen",
    above=("shards", "mixture", "swap"),
    settings=lambda recipe: _training_settings(recipe, recipe.realign),
    run=_run_realign,
    outputs=("model/*",),
    show=lambda context: _show_training(context, "realign"),
    method_version=2,
)

ADAPT = Stage(
    name="adapt",
    purpose="train everything with the hybrid masked-causal objective",
    above=("shards", "mixture", "realign"),
    settings=lambda recipe: _training_settings(recipe, recipe.adapt),
    run=_run_adapt,
    outputs=("model/*",),
    show=lambda context: _show_training(context, "adapt"),
    method_version=2,
)
