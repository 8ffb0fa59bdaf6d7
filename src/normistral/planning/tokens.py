"""Unique tokens of each source: counted where it is tokenised, else the best that is known, as assumed.

In this order: the run's shard manifest; what the recipe declares; the bytes of the built corpus and the bytes
a token that the run's tokenizer has on held-out text; the size of the source's files.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from normistral.corpus.sources import list_files
from normistral.dataset import ShardManifest, SourceTokens, imported_files, open_shard
from normistral.dataset.manifest import MANIFEST_FILE
from normistral.errors import UserError
from normistral.recipe import Recipe, SourceSettings
from normistral.records import RunFolder, StageRecord, read_json
from normistral.samples import SAMPLES
from normistral.tokenizer import TokenizerRow

BYTES_PER_TOKEN = {"prose": 4.4, "code": 3.3}
"""UTF-8 bytes of a token of a vocabulary of 51,200 that knows the language (docs/tokenizer.md)."""
TEXT_PER_BYTE = {".gz": 3.5, ".zst": 4.0, ".parquet": 2.0}
"""Bytes of text in a byte of such a file, about; other files are text."""
DEFAULT_TEXT_PER_BYTE = 0.9
"""Of a file that is not packed: ids and field names take the rest."""
SAMPLE_PREFIX = "sample:"
SAMPLE_TEXT_BYTES = {"bokmaalsordboka": 10_300_000, "python-docs": 440_000, "python-stdlib": 11_000_000}
"""Of the samples, measured."""


def count_tokens(recipe: Recipe, cache: Path, run: RunFolder | None = None) -> list[SourceTokens]:
    """Unique tokens of all sources of the mixture, in order.

    Args:
        recipe: checked settings.
        cache: folder for samples.
        run: of the recipe, if it has begun; what it has counted or built is used.

    Raises:
        UserError: if nothing is known of a source that takes part.
    """
    counted = _counted(run)
    corpus = StageRecord.read(run.stage("corpus")) if run else None
    bytes_per_token = _bytes_per_token(run)
    tokens: list[SourceTokens] = []
    for source in recipe.corpus.sources:
        if source.name in counted:
            tokens.append(SourceTokens(source.name, source.language, counted[source.name]))
            continue
        per_token = bytes_per_token.get(source.language, BYTES_PER_TOKEN[source.kind])
        if source.declared_tokens is not None:
            known = source.declared_tokens
        elif corpus and source.name in corpus.counts:
            known = round(corpus.counts[source.name]["train_bytes"] / per_token)
        elif recipe.mixture.includes(source.name):
            known = round(_text_bytes(source, recipe.corpus.folder, cache) / per_token)
        else:
            known = 0
        tokens.append(SourceTokens(source.name, source.language, known, assumed=True))
    for imported in recipe.shards.imported:
        total = counted.get(imported.name) or sum(
            len(open_shard(prefix).tokens) for prefix in imported_files(imported)
        )
        tokens.append(SourceTokens(imported.name, imported.language, total))
    return tokens


def _counted(run: RunFolder | None) -> dict[str, int]:
    if run is None or not (run.stage("shards") / MANIFEST_FILE).exists():
        return {}
    manifest = ShardManifest.read(run.stage("shards"))
    return {name: manifest.tokens(name) for name in manifest.sources}


def _bytes_per_token(run: RunFolder | None) -> dict[str, float]:
    """Of the run's new tokenizer on held-out text, by language."""
    if run is None or not (file := run.stage("tokenizer") / "comparison.json").exists():
        return {}
    rows = [TokenizerRow(**row) for row in read_json(file)]
    return {row.language: row.bytes_per_token for row in rows if row.tokenizer == "new" and row.tokens}


def _text_bytes(source: SourceSettings, folder: str, cache: Path) -> float:
    """UTF-8 bytes of a source's text, by the size of its files.

    Raises:
        UserError: if there is no file, or nothing tells how much is in one.
    """
    if source.path.startswith(SAMPLE_PREFIX) and (name := source.path.removeprefix(SAMPLE_PREFIX)) in SAMPLES:
        return SAMPLE_TEXT_BYTES[name]
    sizes = [(file.name, file.size) for file in list_files(source, folder, cache)]
    if any(size is None for _, size in sizes):
        raise UserError(
            f"corpus source '{source.name}': nothing tells yet how much text {source.path} has; give "
            "declared_tokens, or build the corpus first (normistral run RECIPE --until corpus)"
        )
    return sum(
        (size or 0) * TEXT_PER_BYTE.get(PurePath(name).suffix, DEFAULT_TEXT_PER_BYTE) for name, size in sizes
    )
