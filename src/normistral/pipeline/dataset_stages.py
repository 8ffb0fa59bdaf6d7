"""The stages that turn documents into training sequences: shards and mixture."""

from __future__ import annotations

from typing import Any

from normistral.dataset import (
    MixturePlan,
    ShardManifest,
    SourceTokens,
    import_shards,
    imported_files,
    plan_by_policy,
    plan_warnings,
    tokenise_documents,
)
from normistral.errors import UserError
from normistral.model import ModelConfig
from normistral.pipeline.stage import RunContext, Stage
from normistral.planning import MIXTURE_HEADINGS, mixture_rows
from normistral.recipe import Recipe
from normistral.records import read_json, write_json
from normistral.tokenizer import TokenRoles
from normistral.tokenizer.load import TOKENIZER_FILE
from normistral.weights import read_config

# --- shards
# ---------------------------------------------------------------------------------------------------------


def _run_shards(context: RunContext) -> dict[str, Any]:
    recipe, run = context.recipe, context.run
    folder, tokenizer_file = run.stage("shards"), run.tokenizer / TOKENIZER_FILE
    roles = TokenRoles.of(run.tokenizer)
    imported = {source.name: import_shards(source, tokenizer_file) for source in recipe.shards.imported}
    manifest, choice = tokenise_documents(
        {source.name: run.documents(source.name, "train") for source in recipe.corpus.sources},
        folder,
        tokenizer_file,
        (roles.start, roles.end),
        recipe.shards.shard_bytes,
        recipe.shards.encoder,
        context.runtime.threads,
        imported,
    )
    manifest.write(folder)
    context.screen.say(f"      encoder: {choice.name} ({choice.reason})")
    return {
        name: {
            "documents": manifest.documents(name),
            "tokens": manifest.tokens(name),
            "shards": len(manifest.sources[name]),
        }
        for name in manifest.sources
    }


def _show_shards(context: RunContext) -> None:
    counts = context.record("shards").counts
    context.screen.say(
        "      unique tokens: " + ", ".join(f"{name} {count['tokens']:,}" for name, count in counts.items())
    )


def _shard_settings(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.shards.model_dump(mode="json")
    del settings["encoder"]  # the ids are the same
    return settings | {"sources": [source.name for source in recipe.corpus.sources]}


def _imported_state(context: RunContext) -> Any:
    """Sizes and times of the imported files."""
    return {
        source.name: [
            [str(path), path.stat().st_size, path.stat().st_mtime_ns]
            for prefix in imported_files(source)
            for path in (prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx"))
            if path.exists()
        ]
        for source in context.recipe.shards.imported
    }


SHARDS = Stage(
    name="shards",
    purpose="tokenise each source once",
    above=("corpus", "tokenizer"),
    settings=_shard_settings,
    outside=_imported_state,
    run=_run_shards,
    outputs=("manifest.json",),  # which has the checksums of all shards
    show=_show_shards,
    method_version=2,
)


def shard_manifest(context: RunContext) -> ShardManifest:
    """The manifest that the shards stage wrote."""
    return ShardManifest.read(context.run.stage("shards"))


# --- mixture
# --------------------------------------------------------------------------------------------------------


def _run_mixture(context: RunContext) -> dict[str, Any]:
    recipe = context.recipe
    context_length = ModelConfig.from_hugging_face(read_config(context.run.base_model)).context_length
    for setting, length in (
        ("mixture.sequence_length", recipe.mixture.sequence_length),
        ("publish.context_length", recipe.published_context_length),  # now rather than after training
    ):
        if length > context_length:
            raise UserError(
                f"{setting} is {length}, but the base model reads {context_length} tokens at most; shorten it"
            )
    manifest = shard_manifest(context)
    sources = [
        SourceTokens(name, language, manifest.tokens(name))
        for name, language in recipe.source_languages.items()
    ]
    plan = plan_by_policy(sources, recipe.mixture, recipe.total_sequences)
    write_json(context.run.stage("mixture") / "plan.json", plan.to_json())
    return {"sequences": plan.sequences, "tokens": plan.sequences * plan.sequence_length}


def mixture_plan(context: RunContext) -> MixturePlan:
    """The plan that the mixture stage made."""
    return MixturePlan.from_json(read_json(context.run.stage("mixture") / "plan.json"))


def _show_mixture(context: RunContext) -> None:
    plan = mixture_plan(context)
    context.screen.table(
        f"Mixture: {plan.sequences:,} sequences of {plan.sequence_length:,} tokens",
        MIXTURE_HEADINGS,
        mixture_rows(plan),
    )
    for warning in plan_warnings(plan, context.recipe.mixture.max_repeats):
        context.screen.say(f"      {warning}")


MIXTURE = Stage(
    name="mixture",
    purpose="plan tokens and repeats per source",
    above=("shards",),
    settings=lambda recipe: {
        **recipe.mixture.model_dump(mode="json"),
        "sequences": recipe.total_sequences,
        "languages": recipe.source_languages,
    },
    run=_run_mixture,
    outputs=("plan.json",),
    show=_show_mixture,
    method_version=2,
    cheap=True,
)
