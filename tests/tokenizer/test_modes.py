"""A base's tokenizer kept or extended: ids of text, roles, reach of new tokens, the same bytes each time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from base_tokenizers import BASES, ENGLISH, save_base_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from normistral.errors import UserError
from normistral.tokenizer import (
    TakenOver,
    TokenRoles,
    extend_tokenizer,
    find_roles,
    load_tokenizer,
    plain_text_tokenizer,
    save_tokenizer,
    take_over,
)
from normistral.tokenizer.extend import count_base_words

NORDIC = [
    "En søt lundefugl flyr over de vakre norske fjorder, og barna leser på skolen i Tromsø.\n\nSlik er det.",
    "Čáppa lottit girdet vuonaid badjel, ja mánát lohket jitnosit skuvllas Romssas.\r\nNu dat lea.",
] * 6
TRICKY = [
    "",
    " ",
    "<mask> <pad> <s>x</s> <|endoftext|> <SPECIAL_3>",
    "de<mask> norske",
    "\r\n\t  1234 å e\u0301 😀\u200d🔬 \u00a0 🎣" * 3,
    *ENGLISH[:2],
    *NORDIC[:2],
    "def f(x):\n    return x + 1\n\n\n",
]
SHARED = Path(__file__).parents[3] / "shared" / "corpora" / "udhr"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of each kind of base."""
    root = tmp_path_factory.mktemp("bases")
    for kind in BASES:
        save_base_tokenizer(kind, root / kind)
    return {kind: root / kind for kind in BASES}


@pytest.fixture(scope="module")
def extended(bases: dict[str, Path]) -> dict[str, TakenOver]:
    """Each byte-level base with 60 tokens more."""
    return {
        kind: extend_tokenizer(taken, NORDIC, taken.roles.size + 60)
        for kind, taken in ((kind, take_over(bases[kind])) for kind in ("smollm", "nemo", "llama3"))
    }


def same_ids(one: Tokenizer, other: Tokenizer, text: str) -> bool:
    return plain_text_tokenizer(one).encode(text).ids == plain_text_tokenizer(other).encode(text).ids


@pytest.mark.parametrize("kind", BASES)
def test_a_kept_tokenizer_gives_the_bases_ids_for_any_text(kind: str, bases: dict[str, Path]) -> None:
    base, kept = load_tokenizer(bases[kind]), take_over(bases[kind]).tokenizer
    for text in TRICKY:
        assert same_ids(base, kept, text), text
        if "<" not in text:  # a prompt without the name of a special token
            assert base.encode(text).ids == kept.encode(text).ids


@pytest.mark.parametrize("kind", BASES)
def test_a_kept_tokenizer_gives_the_bases_ids_for_real_text(kind: str, bases: dict[str, Path]) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the shared corpora")
    base, kept = (
        plain_text_tokenizer(t) for t in (load_tokenizer(bases[kind]), take_over(bases[kind]).tokenizer)
    )
    texts = [file.read_text(encoding="utf-8")[:8000] for file in sorted(SHARED.iterdir()) if file.is_file()]
    assert texts
    assert [e.ids for e in base.encode_batch(texts)] == [e.ids for e in kept.encode_batch(texts)]


@pytest.mark.parametrize(
    ("kind", "mask", "pad", "size", "how"),
    [
        ("smollm", 320, 321, 322, "a new token behind the base's"),
        ("nemo", 3, 4, 320, "the base's reserved <SPECIAL_3>, renamed"),
        ("llama3", 302, 303, 305, "the base's reserved <|reserved_special_token_0|>, renamed"),
        ("llama2", 264, 265, 266, "a new token behind the base's"),
    ],
)
def test_mask_and_padding_take_a_reserved_token_or_a_new_one(
    kind: str, mask: int, pad: int, size: int, how: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    taken = take_over(bases[kind])
    assert (taken.roles.mask, taken.roles.pad, taken.roles.size) == (mask, pad, size)
    assert taken.how["mask"] == how
    save_tokenizer(taken.tokenizer, tmp_path / "kept", 128, taken.roles)
    assert TokenRoles.of(tmp_path / "kept") == taken.roles
    assert {mask, pad} <= set(taken.roles.special)
    assert taken.tokenizer.token_to_id("<mask>") == mask
    theirs = AutoTokenizer.from_pretrained(tmp_path / "kept")
    assert (theirs.mask_token_id, theirs.pad_token_id, theirs.eos_token_id) == (mask, pad, taken.roles.eos)
    ids = theirs("over de<mask> norske").input_ids
    assert ids == theirs("over de <mask> norske").input_ids
    assert ids.count(mask) == 1
    for text in TRICKY[4:]:
        assert theirs(text).input_ids == load_tokenizer(bases[kind]).encode(text).ids


def test_a_base_that_has_both_keeps_them(tiny_tokenizer_folder: Path) -> None:
    taken = take_over(tiny_tokenizer_folder)
    assert (taken.roles.mask, taken.roles.pad, taken.roles.size) == (4, 3, 400)
    assert taken.how == {"mask": "the base's own <mask>", "pad": "the base's own <pad>"}
    assert taken.tokenizer.to_str() == load_tokenizer(tiny_tokenizer_folder).to_str()


@pytest.mark.parametrize("kind", ["smollm", "nemo", "llama3"])
def test_tokens_of_an_extended_base_keep_their_ids(
    kind: str, bases: dict[str, Path], extended: dict[str, TakenOver]
) -> None:
    base, taken, new = load_tokenizer(bases[kind]), take_over(bases[kind]), extended[kind]
    renamed = {f"<SPECIAL_{n}>" for n in (3, 4)} | {f"<|reserved_special_token_{n}|>" for n in (0, 1)}
    for token, token_id in base.get_vocab().items():
        if token not in renamed:
            assert new.tokenizer.token_to_id(token) == token_id
    assert new.roles.size == taken.roles.size + 60
    assert sorted(new.tokenizer.get_vocab().values()) == list(range(new.roles.size))
    assert (new.roles.mask, new.roles.eos) == (taken.roles.mask, taken.roles.eos)
    assert set(new.roles.special) == set(taken.roles.special)


@pytest.mark.parametrize("kind", ["smollm", "nemo", "llama3"])
def test_every_new_token_is_reached_and_mixes_no_line_break_with_text(
    kind: str, bases: dict[str, Path], extended: dict[str, TakenOver]
) -> None:
    new = extended[kind]
    first = new.roles.size - 60
    for token_id in range(first, new.roles.size):
        token = new.tokenizer.id_to_token(token_id)
        assert [piece.id for piece in new.tokenizer.model.tokenize(token)] == [token_id], token
        assert not set("Ċč") & set(token) or set(token) <= set("Ċč"), token
    met = {each for text in NORDIC for each in new.tokenizer.encode(text).ids}
    assert len(met & set(range(first, new.roles.size))) > 30
    before = sum(len(load_tokenizer(bases[kind]).encode(text).ids) for text in NORDIC)
    assert sum(len(new.tokenizer.encode(text).ids) for text in NORDIC) < 0.75 * before


def test_what_was_learnt_is_what_encoding_does(
    bases: dict[str, Path], extended: dict[str, TakenOver]
) -> None:
    """A slow BPE learner that goes on from the base's pieces takes the same merges."""
    taken, new = take_over(bases["smollm"]), extended["smollm"]
    words = {
        word: ([taken.tokenizer.id_to_token(p.id) for p in taken.tokenizer.model.tokenize(word)], count)
        for word, count in count_base_words(taken.tokenizer, NORDIC).items()
    }
    known = set(taken.tokenizer.get_vocab())
    merges = json.loads(new.tokenizer.to_str())["model"]["merges"][-60:]
    for left, right in merges:
        counts: dict[tuple[str, str], int] = {}
        for pieces, count in words.values():
            for pair in itertools.pairwise(pieces):
                counts[pair] = counts.get(pair, 0) + count
        possible = {
            pair: count
            for pair, count in counts.items()
            if "".join(pair) not in known
            and (set("".join(pair)) <= set("Ċč") or not set("".join(pair)) & set("Ċč"))
        }
        # counts of pairs that overlap themselves (`aaa`) are an upper bound; none is among the merges here
        assert counts[left, right] == max(possible.values())
        known.add(left + right)
        for pieces, _ in words.values():
            place = 0
            while place + 1 < len(pieces):
                if pieces[place] == left and pieces[place + 1] == right:
                    pieces[place : place + 2] = [left + right]
                place += 1
    for word, (pieces, _) in words.items():
        assert [token.value for token in new.tokenizer.model.tokenize(word)] == pieces


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_an_extended_tokenizer_loses_nothing(text: str) -> None:
    new = _extended_once()
    assert new.decode(new.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def _extended_once() -> Tokenizer:
    if not _CACHE:
        base = BASES["smollm"][0]()
        roles = find_roles(base, BASES["smollm"][1])
        taken = TakenOver(base, roles, {}, roles.size, None)
        _CACHE.append(plain_text_tokenizer(extend_tokenizer(taken, NORDIC, roles.size + 60).tokenizer))
    return _CACHE[0]


_CACHE: list[Tokenizer] = []


def test_the_same_texts_give_the_same_file(
    bases: dict[str, Path], extended: dict[str, TakenOver], tmp_path: Path
) -> None:
    taken = take_over(bases["nemo"])
    again = extend_tokenizer(taken, NORDIC, taken.roles.size + 60)
    for name, each in (("one", extended["nemo"]), ("other", again)):
        save_tokenizer(each.tokenizer, tmp_path / name, 128, each.roles)
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "one")
    for text in TRICKY:
        assert theirs(text).input_ids == again.tokenizer.encode(text).ids


def test_what_cannot_be_extended_is_refused_by_name(bases: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"extend needs a base with byte-level BPE .* is SentencePiece's BPE"):
        extend_tokenizer(take_over(bases["llama2"]), NORDIC, 1000)
    taken = take_over(bases["smollm"])
    with pytest.raises(UserError, match=r"vocabulary_size is 322, but the base has 322 tokens already"):
        extend_tokenizer(taken, NORDIC, 322)
    with pytest.raises(UserError, match=r"100000 is larger than the text can fill: only \d+ tokens"):
        extend_tokenizer(taken, NORDIC, 100_000)


def test_a_base_without_an_end_of_text_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((bases["smollm"] / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match=r"says which token ends a text \(eos_token_id\); add it there"):
        take_over(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json is no JSON object"):
        take_over(tmp_path)


def test_a_chat_template_of_the_base_is_kept(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "base"
    save_base_tokenizer("smollm", folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    taken = take_over(folder)
    save_tokenizer(taken.tokenizer, tmp_path / "kept", 128, taken.roles, taken.chat_template)
    assert AutoTokenizer.from_pretrained(tmp_path / "kept").chat_template == "{{ messages }}"


def test_roles_of_a_base_come_from_its_config_first(bases: dict[str, Path]) -> None:
    roles = TokenRoles.of(bases["llama3"])
    assert (roles.bos, roles.eos, roles.start, roles.end) == (300, 301, 300, 301)
    assert (roles.first_ordinary, roles.later_special) == (0, (300, 301, 302, 303, 304))
    assert (roles.size, roles.text_size) == (305, 300)
    tokenizer = load_tokenizer(bases["llama3"])
    found = find_roles(
        tokenizer, {"eos_token": "<|end_of_text|>"}, {"eos_token_id": [304, 301], "pad_token_id": -1}
    )
    assert (found.eos, found.pad, found.bos) == (304, None, None)
    assert find_roles(tokenizer, {"eos_token": "<|end_of_text|>"}, {"eos_token_id": 304}, rows=304).eos == 301
    assert found.shown_as_mask == found.start == 304
