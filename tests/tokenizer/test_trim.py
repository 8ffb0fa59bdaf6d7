"""A base's tokenizer trimmed to what text uses: the base's cuts, room for new tokens, roles, bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from base_tokenizers import ENGLISH, save_base_tokenizer

from normistral.errors import UserError
from normistral.tokenizer import TakenOver, extend_tokenizer, load_tokenizer, save_tokenizer, take_over
from normistral.tokenizer.extend import count_base_words
from normistral.tokenizer.roles import TokenRoles
from normistral.tokenizer.trim import trim_tokenizer

NORDIC = ["En søt lundefugl flyr over de vakre norske fjorder.", "Čáppa lottit girdet vuonaid badjel."] * 6
KINDS = ("smollm", "nemo", "llama3")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TakenOver]:
    root = tmp_path_factory.mktemp("bases")
    for kind in KINDS:
        save_base_tokenizer(kind, root / kind)
    return {kind: take_over(root / kind) for kind in KINDS}


def pieces(taken: TakenOver, text: str) -> list[str]:
    return taken.tokenizer.encode(text, add_special_tokens=False).tokens


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_kept_tokens_are_cut_as_the_base_cuts_them(kind: str, bases: dict[str, TakenOver]) -> None:
    base = bases[kind]
    words = count_base_words(base.tokenizer, ENGLISH[:1])
    trimmed = trim_tokenizer(base, words, base.roles.size)
    assert trimmed.roles.size < base.roles.size
    assert pieces(trimmed, ENGLISH[0]) == pieces(base, ENGLISH[0])
    smaller = trim_tokenizer(base, words, trimmed.roles.size - 8)
    assert smaller.roles.size <= trimmed.roles.size - 8
    assert len(pieces(smaller, ENGLISH[0])) > len(pieces(base, ENGLISH[0]))
    for text in (ENGLISH[0], *NORDIC):  # nothing is lost, whatever was trimmed
        if base.tokenizer.decode(base.tokenizer.encode(text, add_special_tokens=False).ids) == text:
            ids = smaller.tokenizer.encode(text, add_special_tokens=False).ids
            assert smaller.tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_ids_have_no_gaps_and_roles_follow_their_tokens(
    kind: str, bases: dict[str, TakenOver], tmp_path: Path
) -> None:
    base = bases[kind]
    trimmed = trim_tokenizer(base, count_base_words(base.tokenizer, ENGLISH[:1]), base.roles.size)
    assert sorted(trimmed.tokenizer.get_vocab().values()) == list(range(trimmed.roles.size))
    for role in ("bos", "eos", "pad", "mask"):
        before, after = getattr(base.roles, role), getattr(trimmed.roles, role)
        assert (before is None) == (after is None)
        if before is not None:
            assert base.tokenizer.id_to_token(before) == trimmed.tokenizer.id_to_token(after)
    save_tokenizer(trimmed.tokenizer, tmp_path / "trimmed", 128, trimmed.roles)
    assert TokenRoles.of(tmp_path / "trimmed") == trimmed.roles
    text = f"a{base.tokenizer.id_to_token(base.roles.mask)} b"
    assert trimmed.roles.mask in load_tokenizer(tmp_path / "trimmed").encode(text).ids


def test_room_is_filled_with_new_tokens_at_the_bases_size_or_below(bases: dict[str, TakenOver]) -> None:
    base = bases["smollm"]
    words = count_base_words(base.tokenizer, [*ENGLISH, *NORDIC])
    trimmed = trim_tokenizer(base, words, base.roles.size - 30)
    extended = extend_tokenizer(trimmed, [*ENGLISH, *NORDIC], base.roles.size)
    assert extended.roles.size == base.roles.size
    assert len(pieces(extended, NORDIC[0])) < len(pieces(base, NORDIC[0]))


def test_no_room_for_what_must_stay_is_refused(bases: dict[str, TakenOver]) -> None:
    base = bases["smollm"]
    with pytest.raises(UserError, match=r"tokenizer\.kept_base_tokens is 40, but .* stay in any case"):
        trim_tokenizer(base, {}, 40)
