"""A Tekken file gives the ids that merging by rank gives, behind its special tokens."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer import open_tokenizer

SPECIALS = 20
PATTERN = r" ?[a-zæøåčáđŋšŧž]+|\s+|."
LEARNT = ("er", "en", " e", "de", "ør", "fj", "fjor", "fjord", " en", "den", "ord", "č", "áč", "en d", "ene")


def tekken_file(folder: Path, **config: object) -> Path:
    tokens = [bytes([byte]) for byte in range(256)] + [token.encode() for token in LEARNT]
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(tokens)
    ]
    settings = {
        "pattern": PATTERN,
        "default_vocab_size": len(tokens) - 1 + SPECIALS,  # the file may list more than the model uses
        "default_num_special_tokens": SPECIALS,
    }
    file = folder / "tekken_240718.json"
    file.write_text(json.dumps({"config": settings | config, "vocab": vocab}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_tokenizer(tekken_file(tmp_path_factory.mktemp("tekken")))


def merged_by_rank(text: str) -> list[int]:
    """The ids by definition: while two neighbours make a known token, merge those of the lowest rank."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {token.encode(): 256 + number for number, token in enumerate(LEARNT[:-1])}
    ids = []
    for word in re.findall(PATTERN, text, re.DOTALL):
        whole = word.encode()
        pieces = [whole] if whole in ranks else [bytes([byte]) for byte in whole]
        while True:
            known = [
                (ranks[left + right], place)
                for place, (left, right) in enumerate(pairwise(pieces))
                if left + right in ranks
            ]
            if not known:
                break
            place = min(known)[1]
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        ids += [SPECIALS + ranks[piece] for piece in pieces]
    return ids


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="fjordenes áčæ!\n", max_size=30))
def test_ids_are_those_of_merging_by_rank(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == merged_by_rank(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_special_tokens_come_first(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == SPECIALS + 256 + len(LEARNT) - 1
    assert [tokenizer.token_to_id(token) for token in ("<unk>", "<s>", "</s>", "<pad>")] == [0, 1, 2, 10]
    assert tokenizer.encode("fjord").ids == [1, SPECIALS + 256 + LEARNT.index("fjord")]


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '{"config": {}, "vocab": []}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tekken.json").write_text(content)
    with pytest.raises(UserError, match="is no Tekken file"):
        open_tokenizer(tmp_path)


def test_a_missing_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_tokenizer(tmp_path / "tekken.json")
    with pytest.raises(UserError, match="does not exist"):
        open_tokenizer(tmp_path / "tokenizer")


def test_a_tokenizer_file_or_its_folder_are_the_same(tiny_tokenizer_folder: Path) -> None:
    by_folder = open_tokenizer(tiny_tokenizer_folder)
    by_file = open_tokenizer(tiny_tokenizer_folder / "tokenizer.json")
    assert by_folder.to_str() == by_file.to_str()
