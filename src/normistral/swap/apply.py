"""Swap a model's vocabulary: new embeddings and LM head, everything else as it was, in a new folder.

Out of place from end to end: rows are read from the base's own files and written into another folder's, so
that no row is ever built from one that was already rewritten. (The released code of NorMistral's stage 2.1
rewrites the table that it reads, in ascending order, and leaves the LM head to chance.) Memory: the new
tables that stand in one file. Files without a table are linked; a call that was killed is gone on with.

Shape suffixes: `V` base vocabulary, `W` new vocabulary, `D` model width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer
from torch import Tensor

from normistral.errors import UserError
from normistral.records import read_json, sha256_of_file
from normistral.swap.alignment import Alignment, align, base_roles
from normistral.swap.mean import mean_rows
from normistral.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    TOKENIZER_FILE,
    check_special_tokens,
    load_tokenizer,
)
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


class SwapMethod(Protocol):
    """Builds the new vocabulary's rows out of a table of the base; called once for each table."""

    def __call__(self, table_VD: Tensor, alignment: Alignment) -> Tensor:
        """Rows [W, D] in the type of `table_VD`, which must not be changed."""


METHODS: dict[str, SwapMethod] = {"mean": mean_rows}
"""By the name that `swap.method` has in a recipe."""


@dataclass(frozen=True)
class SwapReport:
    """What a swap did."""

    method: str
    vocabulary: int
    """Tokens of the new vocabulary, its special tokens included."""
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


def swap_vocabulary(
    base: Path, tokenizer: Path, output: Path, method: str = "mean", link: bool = True
) -> SwapReport:
    """Give a base model a new vocabulary.

    Args:
        base: the base's model folder, with its tokenizer.json.
        tokenizer: folder of the new tokenizer, as `normistral.tokenizer` trains it.
        output: the model folder to make; neither of the others may lie in it.
        method: a name in `METHODS`.
        link: whether weights files that the vocabulary does not touch may be hard links to the base's.

    Returns:
        What was done. The same call makes the same bytes.

    Raises:
        UserError: if a folder is missing, incomplete or broken; if the architecture, a tokenizer or the
            method is not supported; if `output` would overwrite an input; or if the disk is full.

    Example:
        >>> swap_vocabulary(Path("base"), Path("tokenizer"), Path("swapped")).tied  # doctest: +SKIP
        True
    """
    if method not in METHODS:
        raise UserError(f"swap.method is '{method}': expected one of {', '.join(METHODS)}")
    config = read_config(base)
    check_architecture(config, f"base model {base}")
    new = load_tokenizer(tokenizer)
    check_special_tokens(new, str(tokenizer))
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
    rows = read_tensor(base, EMBEDDINGS).shape[0]
    alignment = _align(base, config, new, rows)
    written = rewrite_model_folder(
        base,
        output,
        _new_config(config, len(alignment.pieces)),
        replace={name: _maker(base, name, METHODS[method], alignment) for name in tables},
        add_files=lambda folder: copy_files(tokenizer, folder),
        made_from=[method, *(sha256_of_file(folder / TOKENIZER_FILE) for folder in (base, tokenizer))],
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
    )


def _align(base: Path, config: dict[str, Any], new: Tokenizer, rows: int) -> Alignment:
    base_tokenizer = load_tokenizer(base)
    file = base / "tokenizer_config.json"
    tokenizer_config = read_json(file) if file.is_file() else {}
    return align(base_tokenizer, new, base_roles(config, tokenizer_config, base_tokenizer, rows))


def _maker(base: Path, name: str, method: SwapMethod, alignment: Alignment) -> Callable[[], Tensor]:
    return lambda: method(read_tensor(base, name), alignment)


def _new_config(config: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """The base's config for the new vocabulary; its precision and everything else stay."""
    return config | {
        "vocab_size": vocabulary,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
    }
