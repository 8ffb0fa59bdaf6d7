"""The trained tokenizer loses nothing, keeps its special tokens apart, and is the same every time."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from normistral.errors import UserError
from normistral.tokenizer import (
    BOS_ID,
    FIRST_ORDINARY_ID,
    MASK_ID,
    SPECIAL_TOKENS,
    plain_text_tokenizer,
    train_tokenizer,
)

TEXTS = [
    "fjord (substantiv, hankjønn)\nsmal innskjæring av havet\n" * 3,
    "De norske fjordene er lange, dype og 1 300 meter høye; i 2024 kom 12 000 båter.\n\n" * 3,
    "Sámi giella lea čáppat, ja mun hupman dan ruovttus. Ođđa áigi, šaddá beaivi!\n" * 3,
    "def lengde(fjord):\n    return fjord.lengde if fjord else 0\n\n\nclass Fjord:\n    pass\n" * 3,
    "ETTER KRIGEN kom NRK, OG ÅRENE GIKK. McDonald og iPhone.\n" * 3,
]
SIZE = 440
ADVERSARIAL = [
    "",
    " ",
    "\n",
    "\t\tinnrykk\r\nCRLF\r\r\n\n  \n",
    "\u00a0hardt\u2003mellomrom\u200b\u200d\ufeff",
    "👩‍👩‍👧‍👦🇳🇴🏳️‍🌈",
    "z̷̢̛a̴͎͗l̸̘̈g̶͙̃o",
    "a\u0301" * 50,
    "čđŋšŧžáČĐŊŠŦŽÁ",
    unicodedata.normalize("NFD", "čáppat ođđa šaddá blåbærøl ÅÄÖ"),
    "x" * 10_000,
    "æ" * 10_000,
    "ab" * 5_000,
    "1234567890 ٣٤ ½ ² Ⅷ",
    "ﬁ … № ™ ㎏",
    "\x00\x01\x7f\x80\x85",
    "<unk><s></s><pad><mask><special_0>",
    "नमस्ते 你好 สวัสดี שלום",
    "😀" * 1000,
    "\U0010ffff\ufffe\ue000",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NORDIC_TEXT = st.text("aeiouæøåáčđŋšŧžAEÆØÅČ .,\n\r\t\u030a\u030c0123456789<>/_-'\"(){}")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, SIZE)


@pytest.fixture(scope="module")
def plain(tokenizer: Tokenizer) -> Tokenizer:
    return plain_text_tokenizer(tokenizer)


def round_trip(plain: Tokenizer, text: str) -> str:
    ids = plain.encode(text, add_special_tokens=False).ids
    assert all(FIRST_ORDINARY_ID <= each < SIZE for each in ids)
    decoded: str = plain.decode(ids, skip_special_tokens=False)
    return decoded


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
def test_any_unicode_comes_back_in_nfc(plain: Tokenizer, text: str) -> None:
    # The tokenizer's tables may be of a newer Unicode than Python's, so its own NFC is the reference.
    assert round_trip(plain, text) == normalizers.NFC().normalize_str(text)


@settings(max_examples=300, deadline=None)
@given(text=NORDIC_TEXT)
@example(text="c\u030ca\u030c")
def test_text_of_the_north_comes_back_in_nfc(plain: Tokenizer, text: str) -> None:
    assert round_trip(plain, text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("text", ADVERSARIAL, ids=lambda text: ascii(text[:12]))
def test_adversarial_text_comes_back_in_nfc(plain: Tokenizer, text: str) -> None:
    assert round_trip(plain, text) == unicodedata.normalize("NFC", text)


@given(text=NORDIC_TEXT)
@settings(max_examples=100, deadline=None)
def test_composed_and_decomposed_letters_are_the_same_tokens(plain: Tokenizer, text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert plain.encode(composed).ids == plain.encode(decomposed).ids


def test_special_tokens_stand_at_their_ids_and_every_byte_follows(tokenizer: Tokenizer) -> None:
    assert [tokenizer.id_to_token(number) for number in range(FIRST_ORDINARY_ID)] == list(SPECIAL_TOKENS)
    assert SPECIAL_TOKENS[:5] == ("<unk>", "<s>", "</s>", "<pad>", "<mask>")
    assert SPECIAL_TOKENS[-1] == "<special_10>"
    assert len(SPECIAL_TOKENS) == 16
    bytes_ = [tokenizer.id_to_token(number) for number in range(FIRST_ORDINARY_ID, FIRST_ORDINARY_ID + 256)]
    assert all(len(token) == 1 for token in bytes_)
    assert len(set(bytes_)) == 256


def test_the_vocabulary_has_the_size_that_was_asked_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(SIZE))


def test_the_beginning_of_text_is_put_before_each_text_and_no_end(tokenizer: Tokenizer) -> None:
    single = tokenizer.encode("fjord")
    pair = tokenizer.encode("fjord", "båt")
    assert single.ids == [BOS_ID, *tokenizer.encode("fjord", add_special_tokens=False).ids]
    assert pair.ids == single.ids + tokenizer.encode("båt").ids
    assert pair.type_ids == [0] * len(single) + [1] * (len(pair) - len(single))


def test_the_mask_takes_the_space_before_it(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("over de <mask> norske fjorder").ids
    assert ids == tokenizer.encode("over de<mask> norske fjorder").ids
    before, after = ids[: ids.index(MASK_ID)], ids[ids.index(MASK_ID) + 1 :]
    assert before == tokenizer.encode("over de").ids
    assert after == tokenizer.encode(" norske fjorder", add_special_tokens=False).ids
    assert ids != tokenizer.encode("over de<mask>norske fjorder").ids


def test_other_special_tokens_leave_the_space(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a </s>").ids != tokenizer.encode("a</s>").ids


def test_in_documents_special_tokens_are_only_characters(tokenizer: Tokenizer, plain: Tokenizer) -> None:
    text = "et <s>strøket</s> ord og <mask>"
    assert min(plain.encode(text, add_special_tokens=False).ids) >= FIRST_ORDINARY_ID
    assert plain.encode("uten").ids == tokenizer.encode("uten").ids
    assert MASK_ID in tokenizer.encode(text).ids, "and the original is left as it was"


def test_every_digit_stands_alone(tokenizer: Tokenizer, plain: Tokenizer) -> None:
    many_years = train_tokenizer(["i 2024 og 2024 kom 2024 båter, 20 24\n"] * 50, 282)
    for trained in (tokenizer, many_years):
        assert not [token for token in trained.get_vocab() if re.search(r"\d", token) and len(token) > 1
                    and token not in SPECIAL_TOKENS]  # fmt: skip
    assert [token for token in plain.encode("år 2024").tokens if token.isdigit()] == ["2", "0", "2", "4"]


def test_no_token_mixes_a_line_break_with_anything_else(tokenizer: Tokenizer, plain: Tokenizer) -> None:
    line_break = "Ċ"  # how ByteLevel writes the byte 10
    assert "Ċ" in tokenizer.get_vocab()
    assert not [token for token in tokenizer.get_vocab() if line_break in token and set(token) - {"Ċ", "č"}]
    tokens = plain.encode("a:\n\n  b.\n", add_special_tokens=False).tokens
    assert "".join(token for token in tokens if line_break in token) == "ĊĊĊ"
    assert tokenizer.encode("\n").ids == [BOS_ID, tokenizer.token_to_id("Ċ")]


def test_a_word_keeps_the_space_before_it_and_splits_where_the_case_changes(tokenizer: Tokenizer) -> None:
    split = tokenizer.pre_tokenizer.pre_tokenize_str("De norskeFjordene  iDag NRKs 12.5")
    words = [word for word, _ in split]
    assert words == ["De", "Ġnorske", "Fjordene", "Ġ", "Ġi", "Dag", "ĠNRKs", "Ġ", "1", "2", ".", "5"]


def test_the_same_texts_make_the_same_file(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(iter(TEXTS), SIZE).to_str() == tokenizer.to_str()


def test_a_token_of_the_vocabulary_is_one_token_by_itself(tokenizer: Tokenizer, plain: Tokenizer) -> None:
    """`ignore_merges`: a word that stands in the vocabulary is taken whole."""
    for token, number in tokenizer.get_vocab().items():
        text = tokenizer.decode([number])
        if number >= FIRST_ORDINARY_ID and "\ufffd" not in text and text.isalpha():
            assert plain.encode(text, add_special_tokens=False).ids == [number], token


def test_fast_encoders_and_llama_cpp_will_know_the_file(tokenizer: Tokenizer) -> None:
    saved = json.loads(tokenizer.to_str())
    assert saved["normalizer"] == {"type": "NFC"}
    split, to_bytes = saved["pre_tokenizer"]["pretokenizers"]
    assert (split["type"], split["behavior"], to_bytes["type"]) == ("Split", "Isolated", "ByteLevel")
    assert split["pattern"]["Regex"] == (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert saved["model"]["ignore_merges"] is True
    assert saved["decoder"]["type"] == "ByteLevel"


def test_a_vocabulary_larger_than_the_text_can_fill_is_refused_with_the_size_that_fits() -> None:
    with pytest.raises(
        UserError, match=r"vocabulary_size 5000 is larger than the text can fill: only \d+"
    ) as refusal:
        train_tokenizer(TEXTS, 5000)
    fits = int(re.findall(r"set it to (\d+) or less", str(refusal.value))[0])
    assert train_tokenizer(TEXTS, fits).get_vocab_size() == fits
    with pytest.raises(UserError):
        train_tokenizer(TEXTS, fits + 1)


def test_no_text_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="only 272 tokens were found"):
        train_tokenizer([], 300)
