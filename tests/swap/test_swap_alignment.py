"""New tokens are segmented by the base's model alone; special tokens are mapped by what they do."""

from __future__ import annotations

import pytest
from tiny_swap import BASE_VOCABULARY, base_tokenizer, new_tokenizer, reference_pieces
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from normistral.errors import UserError
from normistral.swap import align
from normistral.tokenizer import (
    BOS_ID,
    EOS_ID,
    FIRST_ORDINARY_ID,
    MASK_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    UNK_ID,
    TokenRoles,
    byte_alphabet,
    find_roles,
)


def base_roles(**ids: int | None) -> TokenRoles:
    return TokenRoles(size=BASE_VOCABULARY, special=(0, 1, 2, 3), **ids)


ROLES = base_roles(unk=1, bos=3, eos=0, pad=2, mask=None)


def test_pieces_are_those_of_the_bare_model() -> None:
    base, new = base_tokenizer(), new_tokenizer()
    alignment = align(base, new, ROLES)
    expected = reference_pieces(base, new)
    assert len(alignment.pieces) == new.get_vocab_size()
    for token_id, pieces in expected.items():
        assert list(alignment.pieces[token_id]) == pieces
    assert any(len(pieces) > 1 for pieces in alignment.pieces)


def test_the_bases_normaliser_prefix_space_and_template_have_no_say() -> None:
    base, new = base_tokenizer(), new_tokenizer()
    alignment = align(base, new, ROLES)
    capital = new.get_vocab()["H"]
    assert alignment.pieces[capital] == (base.get_vocab()["H"],)
    assert base.encode("H").tokens == ["<|im_start|>", "Ġh"]


def test_pieces_spell_the_token_they_stand_for() -> None:
    base, new = base_tokenizer(), new_tokenizer()
    alignment = align(base, new, ROLES)
    for token_id in range(FIRST_ORDINARY_ID, new.get_vocab_size()):
        if alignment.pieces[token_id]:
            spelt = "".join(base.id_to_token(piece) or "" for piece in alignment.pieces[token_id])
            assert spelt == new.id_to_token(token_id)


def test_exact_matches_are_counted_among_ordinary_tokens() -> None:
    base, new = base_tokenizer(), new_tokenizer()
    alignment = align(base, new, ROLES)
    shared = {
        token_id
        for token, token_id in new.get_vocab().items()
        if token_id >= FIRST_ORDINARY_ID and token in base.get_vocab()
    }
    assert alignment.exact == shared
    assert alignment.exact_share == len(shared) / (new.get_vocab_size() - FIRST_ORDINARY_ID)
    assert 0 < alignment.exact_share < 1
    assert alignment.mean_pieces > 1


def test_a_byte_that_the_base_lacks_has_no_pieces() -> None:
    alignment = align(base_tokenizer(), new_tokenizer(), ROLES)
    assert alignment.pieces[new_tokenizer().get_vocab()["Ā"]] == ()


def test_special_tokens_are_mapped_by_what_they_do() -> None:
    pieces = align(base_tokenizer(), new_tokenizer(), ROLES).pieces
    assert pieces[UNK_ID] == (1,)
    assert pieces[BOS_ID] == (3,)
    assert pieces[EOS_ID] == (0,)
    assert pieces[PAD_ID] == (2,)
    assert pieces[MASK_ID] == ()
    assert pieces[MASK_ID + 1 : FIRST_ORDINARY_ID] == ((),) * 11


def test_padding_falls_back_to_the_end_of_text_and_a_mask_is_taken_where_there_is_one() -> None:
    roles = base_roles(unk=None, bos=None, eos=0, pad=None, mask=4)
    pieces = align(base_tokenizer(mask=True), new_tokenizer(), roles).pieces
    assert pieces[PAD_ID] == (0,)
    assert pieces[MASK_ID] == (4,)
    assert pieces[UNK_ID] == pieces[BOS_ID] == ()


def test_roles_come_from_the_config_first_and_the_tokenizer_config_next() -> None:
    base = base_tokenizer(mask=True)
    config = {"bos_token_id": 3, "eos_token_id": [0, 2], "pad_token_id": -1}
    tokenizer_config = {
        "unk_token": {"content": "<|endoftext|>"},
        "eos_token": "<|pad|>",
        "pad_token": "<|pad|>",
    }
    found = find_roles(base, tokenizer_config, config, rows=BASE_VOCABULARY)
    assert (found.unk, found.bos, found.eos, found.pad, found.mask) == (1, 3, 0, 2, 4)
    none = find_roles(base_tokenizer(), {}, {}, BASE_VOCABULARY)
    assert (none.unk, none.bos, none.eos, none.pad, none.mask) == (None, None, None, None, None)
    assert find_roles(base, {}, config, rows=2).bos is None


def test_the_byte_alphabet_is_the_one_tokenizers_uses() -> None:
    alphabet = byte_alphabet()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert len(set(alphabet)) == 256
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    for text in ("å", "\n \t", "Čáhp", "\x00\x7f\xa0\xad", "🎣"):
        written = "".join(token for token, _ in byte_level.pre_tokenize_str(text))
        assert written == "".join(alphabet[byte] for byte in text.encode())


def sentencepiece_base() -> Tokenizer:
    """BPE as Llama 2 and Mistral 7B have it: ▁ for a space, bytes as <0xNN>."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", "e", "r", "d", "t", "er", "▁er", "▁d", "å"]
    merges = [("e", "r"), ("▁", "er"), ("▁", "d")]
    vocabulary = {word: number for number, word in enumerate(words)}
    base = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    base.add_special_tokens(["<unk>", "<s>", "</s>"])
    base.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return base


def test_a_sentencepiece_base_is_read_in_its_own_spelling() -> None:
    base, new = sentencepiece_base(), new_tokenizer()
    alignment = align(base, new, base_roles(unk=0, bos=1, eos=2, pad=None, mask=None))
    of_base, of_new = base.get_vocab(), new.get_vocab()
    assert alignment.pieces[of_new["Ġer"]] == (of_base["▁er"],)
    assert alignment.pieces[of_new["Ġ"]] == (of_base["▁"],)
    assert alignment.pieces[of_new["x"]] == (of_base["<0x78>"],)
    assert alignment.pieces[of_new["Ã¥"]] == (of_base["å"],)
    half_of_a_letter = of_new["Ã"]
    assert alignment.pieces[half_of_a_letter] == (of_base["<0xC3>"],)
    assert of_new["Ġer"] in alignment.exact
    assert half_of_a_letter not in alignment.exact
    assert all(alignment.pieces[FIRST_ORDINARY_ID:])


def test_a_base_of_another_kind_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(UserError, match="neither byte-level BPE nor SentencePiece"):
        align(words, new_tokenizer(), ROLES)


def test_a_new_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="not byte-level"):
        align(base_tokenizer(), sentencepiece_base(), ROLES)
    spaced = new_tokenizer()
    spaced.add_tokens([AddedToken("two words", normalized=False)])
    with pytest.raises(UserError, match="not spelt in bytes"):
        align(base_tokenizer(), spaced, ROLES)


def test_the_tests_cover_all_sixteen_special_tokens() -> None:
    assert len(SPECIAL_TOKENS) == FIRST_ORDINARY_ID == 16
