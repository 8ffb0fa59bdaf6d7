"""Swap a model's vocabulary: new embeddings and LM head, everything else as it was, in a new folder.

Out of place from end to end: rows are read from the base's own files and written into another folder's, so
that no row is ever built from one that was already rewritten. (The released code of NorMistral's stage 2.1
rewrites the table that it reads, in ascending order, and leaves the LM head to chance.) Memory: the new
tables that stand in one file. Files without a table are linked; a call that was killed is gone on with.

Shape suffixes: `V` base vocabulary, `W` new vocabulary, `D` model width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.recipe import SwapSettings
from normistral.records import sha256_of_file
from normistral.swap.alignment import Alignment, align
from normistral.swap.calibration import calibrated
from normistral.swap.composition import composition
from normistral.swap.distillation import distilled
from normistral.swap.focus import focus
from normistral.swap.mean import mean
from normistral.swap.method import SwapInput, SwapMethod, Texts
from normistral.swap.random_rows import random
from normistral.tokenizer import (
    TOKENIZER_FILE,
    TokenRoles,
    check_trainable,
    find_roles,
    load_tokenizer,
    read_settings,
)
from normistral.tokenizer.load import CONFIG_FILE
from normistral.weights import (
    check_architecture,
    copy_files,
    count_parameters,
    read_config,
    read_tensor,
    rewrite_model_folder,
    tensor_names,
)
from normistral.weights.model_folder import EMBEDDINGS, LM_HEAD

METHODS: dict[str, SwapMethod] = {
    "mean": mean,
    "random": random,
    "focus": focus,
    "composition": composition,
    "calibrated": calibrated,
    "distilled": distilled,
}
"""By the name that `swap.method` has in a recipe."""


CHECKED_ROWS = 8192
"""Rows of a memory-mapped table that are looked at together."""


@dataclass(frozen=True)
class SwapReport:
    """What a swap did."""

    method: str
    vocabulary: int
    """Rows of the new embeddings: the new vocabulary's tokens, special ones included, and what a table that
    continues the base's has beyond them."""
    base_vocabulary: int
    """Rows of the base's embeddings."""
    exact_match_share: float
    """Share of ordinary new tokens that the base has too, whose rows are copies."""
    mean_pieces: float
    """Tokens of the base in an ordinary new token, on average."""
    tied: bool
    """Whether one matrix serves as input embeddings and LM head."""
    head_rows: int
    """Rows built for a separate LM head; 0 where it is tied."""
    parameters_before: int
    parameters_after: int
    flops: float = 0.0
    """Floating-point operations of the method, a multiply-add counted as two; copying and taking means left
    out."""
    text_bytes: int = 0
    """UTF-8 bytes of text that the method read."""
    model_tokens: int = 0
    """Tokens that it ran a model over."""
    losses: tuple[float, ...] = ()
    """What it minimised, from first to last, where it did."""


def swap_vocabulary(
    base: Path,
    tokenizer: Path,
    output: Path,
    method: str = "mean",
    link: bool = True,
    *,
    texts: Texts | None = None,
    settings: SwapSettings | None = None,
    seed: int = 42,
    device: str = "cpu",
) -> SwapReport:
    """Give a base model a new vocabulary.

    Args:
        base: the base's model folder, with its tokenizer.json.
        tokenizer: folder of the new tokenizer: trained here, or the base's, extended or kept.
        output: the model folder to make; neither of the others may lie in it.
        method: a name in `METHODS`.
        link: whether weights files that the vocabulary does not touch may be hard links to the base's.
        texts: documents by source, for methods that learn from text.
        settings: of methods that learn; its `method` has no say.
        seed: of methods that draw.
        device: where methods that run a model run it.

    Returns:
        What was done. The same call makes the same bytes.

    Raises:
        UserError: if a folder is missing, incomplete or broken; if the architecture, a tokenizer or the
            method is not supported; if the method needs text and there is none; if the base's tokenizer and
            weights do not belong together; if `output` would overwrite an input; or if the disk is full.

    Example:
        >>> swap_vocabulary(Path("base"), Path("tokenizer"), Path("swapped")).tied  # doctest: +SKIP
        True
    """
    if method not in METHODS:
        raise UserError(f"swap.method is '{method}': expected one of {', '.join(METHODS)}")
    config = read_config(base)
    check_architecture(config, f"base model {base}")
    new = load_tokenizer(tokenizer)
    new_roles = TokenRoles.of(tokenizer, new)
    check_trainable(new_roles, str(tokenizer))
    if tokenizer.resolve().is_relative_to(output.resolve()):
        raise UserError(
            f"output folder {output} would overwrite the tokenizer {tokenizer} that it is made with"
        )
    names = tensor_names(base)
    tied = bool(config.get("tie_word_embeddings", False))
    tables = (EMBEDDINGS,) if tied else (EMBEDDINGS, LM_HEAD)
    for name in tables:
        if name not in names:
            raise UserError(f"base model {base} has no tensor {name}; give a complete causal language model")
    rows = _check_tables(base, config, tables)
    alignment, base_roles = _align(base, config, new, new_roles, rows)
    settings, texts = settings or SwapSettings(), texts or {}
    given = SwapInput(base, alignment, base_roles, new_roles, tied, settings, seed, texts, device)
    made = METHODS[method](given)
    written = rewrite_model_folder(
        base,
        output,
        _new_config(config, len(alignment.pieces), new_roles),
        replace={name: partial(made.rows, name) for name in tables},
        add_files=lambda folder: copy_files(tokenizer, folder),
        made_from=[
            method,
            *(sha256_of_file(folder / TOKENIZER_FILE) for folder in (base, tokenizer)),
            settings.model_dump(mode="json", exclude={"method"}),
            seed,
            _digest(texts),
        ],
        link=link,
    )
    return SwapReport(
        method=method,
        vocabulary=len(alignment.pieces),
        base_vocabulary=rows,
        exact_match_share=alignment.exact_share,
        mean_pieces=alignment.mean_pieces,
        tied=tied,
        head_rows=0 if tied else len(alignment.pieces),
        parameters_before=count_parameters(base),
        parameters_after=written.parameters,
        flops=made.flops,
        text_bytes=made.text_bytes,
        model_tokens=made.model_tokens,
        losses=made.losses,
    )


def _check_tables(base: Path, config: dict[str, Any], tables: tuple[str, ...]) -> int:
    """The rows of the base's tables.

    Raises:
        UserError: if a table has other rows than the config says, or a value that is no finite number.
    """
    rows = int(config["vocab_size"])
    for name in tables:
        table_VD = read_tensor(base, name)
        if table_VD.shape[0] != rows:
            raise UserError(
                f"base model {base}: {name} has {table_VD.shape[0]:,} rows and config.json says vocab_size "
                f"{rows:,}: they do not belong together; fetch the model again"
            )
        for number, chunk in enumerate(torch.split(table_VD, CHECKED_ROWS)):
            if not bool(chunk.isfinite().all()):
                row = number * CHECKED_ROWS + int((~chunk.isfinite()).any(dim=1).nonzero()[0])
                raise UserError(
                    f"base model {base}: row {row} of {name} has values that are no finite numbers, so that "
                    "its file is damaged; fetch the model again"
                )
    return rows


def _align(
    base: Path, config: dict[str, Any], new: Tokenizer, new_roles: TokenRoles, rows: int
) -> tuple[Alignment, TokenRoles]:
    """Refuses a base whose tokenizer is another model's: ids of text without rows."""
    base_tokenizer = load_tokenizer(base)
    roles = find_roles(base_tokenizer, read_settings(base / CONFIG_FILE), config, rows)
    if roles.text_size > rows:
        raise UserError(
            f"base model {base}: its tokenizer has id {roles.text_size - 1} and its weights only {rows} "
            "rows: they do not belong together; give the base model's own tokenizer"
        )
    return align(base_tokenizer, new, roles, new_roles, rows), roles


def _digest(texts: Texts) -> str:
    digest = hashlib.sha256()
    for source, documents in texts.items():
        for text in (source, *documents):
            digest.update(len(text).to_bytes(8, "little") + text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _new_config(config: dict[str, Any], vocabulary: int, roles: TokenRoles) -> dict[str, Any]:
    """The base's config for the new vocabulary; its precision and everything else stay."""
    unnamed = {name: None for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in config}
    return config | unnamed | {"vocab_size": vocabulary} | roles.model_ids()
