"""Which tokens of the base a new token is made of.

Each new token's string is segmented by the base's BPE *model* alone, without its normaliser, pre-tokenizer
and post-processor, as the original did (ltgoslo/norallm, stage 2.1): a token is a piece of text and not a
text, so nothing may be put before it, stripped from it or cut out of it beforehand. A token that the base has
too is one piece: itself. Special tokens are mapped by what they do, not by their strings.

A tokenizer that *continues* the base's (every token of the base that stands for text has the same id in it:
`tokenizer.mode` keep or extend) takes the base's rows over by id. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer import (
    BOS_ID,
    EOS_ID,
    FIRST_ORDINARY_ID,
    MASK_ID,
    PAD_ID,
    UNK_ID,
    TokenRoles,
    byte_alphabet,
    id_count,
    is_byte_level,
)

Pieces = tuple[int, ...]
"""Ids of the base; empty where no token of the base says anything about the new one."""

ROWS_MULTIPLE = 64
"""A table that grows behind the base's rows grows to a multiple of this: matrix products on GPUs are several
times slower with an odd number of rows."""


@dataclass(frozen=True)
class Alignment:
    """The new vocabulary in terms of the base's."""

    base: Tokenizer
    new: Tokenizer
    pieces: tuple[Pieces, ...]
    """Pieces of each row of the new tables, by its id."""
    exact: frozenset[int]
    """New ids whose row is a copy: the base has the same token (of a tokenizer that continues the base's,
    special tokens and rows without a token included)."""
    special: frozenset[int] = frozenset(range(FIRST_ORDINARY_ID))
    """New ids that stand for no text."""

    @property
    def ordinary(self) -> int:
        """New tokens that stand for text."""
        return len(self.pieces) - len(self.special)

    @property
    def exact_share(self) -> float:
        """Share of ordinary new tokens that the base has too."""
        return len(self.exact - self.special) / max(self.ordinary, 1)

    @property
    def mean_pieces(self) -> float:
        """How many pieces of the base an ordinary new token has on average, those without any left out."""
        counts = [
            len(pieces)
            for token_id, pieces in enumerate(self.pieces)
            if pieces and token_id not in self.special
        ]
        return sum(counts) / max(len(counts), 1)


def align(
    base: Tokenizer,
    new: Tokenizer,
    roles: TokenRoles,
    new_roles: TokenRoles | None = None,
    rows: int | None = None,
) -> Alignment:
    """Say for every row of the new tables which tokens of the base it is made of.

    Args:
        base: the base's tokenizer: byte-level BPE (SmolLM2, Llama 3, Mistral-Nemo) or BPE in SentencePiece's
            spelling with byte tokens (Llama 2, Mistral 7B).
        new: a byte-level tokenizer, or one that continues the base's.
        roles: the base's special tokens.
        new_roles: the new one's; None: those of `normistral.tokenizer.train_tokenizer`.
        rows: of the base's tables, which may have more than its tokenizer has tokens; None: as many.

    Raises:
        UserError: if a tokenizer is of another kind, or the new one's ids have gaps.
    """
    new_roles = new_roles or _trained_roles(id_count(new))
    rows = id_count(base) if rows is None else rows
    tokens = {token_id: token for token, token_id in new.get_vocab(with_added_tokens=True).items()}
    if continues(base, new, roles):
        return _align_continued(base, new, tokens, roles, new_roles, rows)
    segment, ordinary_base = _segmenter(base)
    if not is_byte_level(new):
        raise UserError("the new tokenizer is not byte-level BPE; train it with `normistral run`")
    if set(tokens) != set(range(len(tokens))):
        raise UserError(
            f"the new tokenizer has {len(tokens)} tokens with gaps between their ids (highest: "
            f"{max(tokens)}); "
            "train it with `normistral run`"
        )
    by_role, special = _by_role(roles, new_roles), frozenset(new_roles.special)
    pieces: list[Pieces] = []
    exact: set[int] = set()
    for token_id in range(len(tokens)):
        if token_id in special:
            namesake = base.token_to_id(tokens[token_id])  # a trimmed tokenizer has the base's other ones too
            same = (namesake,) if namesake in roles.special else ()
            pieces.append(by_role.get(token_id, same))
            continue
        text = _bytes_of(tokens[token_id], token_id)
        found = segment(text)
        pieces.append(found)
        if len(found) == 1 and ordinary_base.get(found[0]) == text:
            exact.add(token_id)
    return Alignment(base, new, tuple(pieces), frozenset(exact), special)


def continues(base: Tokenizer, new: Tokenizer, roles: TokenRoles) -> bool:
    """Whether every token of the base that stands for text has the same id in a new tokenizer.

    Args:
        base: the base's tokenizer.
        new: the new one.
        roles: the base's special tokens.
    """
    vocabulary = new.get_vocab(with_added_tokens=True)
    special = frozenset(roles.special)
    return all(
        vocabulary.get(token) == token_id
        for token, token_id in base.get_vocab(with_added_tokens=True).items()
        if token_id not in special
    )


def _align_continued(
    base: Tokenizer,
    new: Tokenizer,
    tokens: dict[int, str],
    roles: TokenRoles,
    new_roles: TokenRoles,
    rows: int,
) -> Alignment:
    """Rows of the base by id; new tokens by their pieces; rows that no token has from nothing."""
    size = rows if new_roles.size <= rows else -(-new_roles.size // ROWS_MULTIPLE) * ROWS_MULTIPLE
    special = frozenset(new_roles.special) | frozenset(range(new_roles.size, size))
    of_base = {token_id: token for token, token_id in base.get_vocab(with_added_tokens=True).items()}
    by_role = _by_role(roles, new_roles)
    segment: Callable[[bytes], Pieces] | None = None
    pieces: list[Pieces] = []
    exact: set[int] = set()
    for token_id in range(size):
        token = tokens.get(token_id)
        if token_id < rows and (token is None or token == of_base.get(token_id)):
            pieces.append((token_id,))
            exact.add(token_id)
        elif token is None or token_id in special:
            pieces.append(by_role.get(token_id, ()))
        else:
            segment = segment or _segmenter(base)[0]
            pieces.append(segment(_bytes_of(token, token_id)))
    return Alignment(base, new, tuple(pieces), frozenset(exact), special)


def _by_role(roles: TokenRoles, new_roles: TokenRoles) -> dict[int, Pieces]:
    """Pieces of the new special tokens that have a role, by id.

    The others have no counterpart and no pieces: they start from the mean of all rows, which lies where the
    embeddings lie and favours no token; the original gave them ids 14 to 24 of its base, never-trained rows
    of one particular tokenizer. So does `<mask>` where the base has none, which is almost always.
    """
    counterparts = (
        (new_roles.pad, roles.pad if roles.pad is not None else roles.eos),
        (new_roles.mask, roles.mask),
        (new_roles.unk, roles.unk),
        (new_roles.bos, roles.bos),
        (new_roles.eos, roles.eos),
    )
    return {
        new_id: (base_id,) for new_id, base_id in counterparts if new_id is not None and base_id is not None
    }


def _trained_roles(size: int) -> TokenRoles:
    """Roles of a tokenizer that `train_tokenizer` made."""
    return TokenRoles(
        size=size,
        unk=UNK_ID,
        bos=BOS_ID,
        eos=EOS_ID,
        pad=PAD_ID,
        mask=MASK_ID,
        special=tuple(range(FIRST_ORDINARY_ID)),
    )


def _bytes_of(token: str, token_id: int) -> bytes:
    """A token of a byte-level vocabulary as the bytes that it stands for."""
    byte_of = _BYTE_OF
    if not all(character in byte_of for character in token):
        raise UserError(
            f"the new tokenizer's token {token_id} ({token!r}) is not spelt in bytes; "
            "train it with `normistral run`"
        )
    return bytes(byte_of[character] for character in token)


_BYTE_OF = {character: byte for byte, character in enumerate(byte_alphabet())}


def _segmenter(base: Tokenizer) -> tuple[Callable[[bytes], Pieces], dict[int, bytes]]:
    """How the base's model segments text, and the text of each of its ordinary tokens."""
    added = set(base.get_added_tokens_decoder())
    vocabulary = {
        token: token_id for token, token_id in base.get_vocab(True).items() if token_id not in added
    }
    if is_byte_level(base):
        alphabet = byte_alphabet()
        byte_of = {character: byte for byte, character in enumerate(alphabet)}
        texts = {
            token_id: bytes(byte_of[character] for character in token)
            for token, token_id in vocabulary.items()
            if all(character in byte_of for character in token)
        }
        by_text = {text: token_id for token_id, text in texts.items()}

        def segment(text: bytes) -> Pieces:
            if text in by_text:
                return (by_text[text],)
            spelt = "".join(alphabet[byte] for byte in text)
            return tuple(token.id for token in base.model.tokenize(spelt))

        return segment, texts

    if not getattr(base.model, "byte_fallback", False):
        raise UserError(
            "the base's tokenizer is neither byte-level BPE nor SentencePiece BPE with byte fallback; "
            "give a base model with such a tokenizer"
        )
    texts = {
        token_id: token.replace("▁", " ").encode()
        for token, token_id in vocabulary.items()
        if not _is_byte_token(token)
    }
    by_text = {text: token_id for token_id, text in texts.items()}

    def segment_with_fallback(text: bytes) -> Pieces:
        if text in by_text:
            return (by_text[text],)
        try:
            spelt = text.decode().replace(" ", "▁")
        except UnicodeDecodeError:  # a part of a character: the base spells its bytes
            return tuple(vocabulary[f"<0x{byte:02X}>"] for byte in text)
        return tuple(token.id for token in base.model.tokenize(spelt))

    return segment_with_fallback, texts


def _is_byte_token(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
