"""A tokenizer folder opens here and in transformers with the same ids; a bad one is named."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from normistral.errors import UserError
from normistral.tokenizer import (
    BOS_ID,
    BOS_TOKEN,
    EOS_ID,
    MASK_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    UNK_ID,
    check_special_tokens,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

PROBES = [
    "Oslo er<mask> i Norge.",
    "Oslo er <mask> i Norge.</s><pad>",
    "linje\n\n  innrykk\tog 2024 <special_3>",
    "c\u030ca\u0301ppat 😀 \u200b",
    "",
    " ledende mellomrom",
]


def test_the_folder_opens_with_the_ids_it_was_saved_with(tiny_tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer_folder)
    again = Tokenizer.from_file(str(tiny_tokenizer_folder / "tokenizer.json"))
    for text in PROBES:
        assert tokenizer.encode(text).ids == again.encode(text).ids


def test_auto_tokenizer_opens_it_silently_with_equal_ids(
    tiny_tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = load_tokenizer(tiny_tokenizer_folder)
    logging.getLogger("transformers").propagate = True
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        theirs = AutoTokenizer.from_pretrained(tiny_tokenizer_folder)
    assert not caplog.records
    for text in PROBES:
        assert theirs(text).input_ids == ours.encode(text).ids
        assert theirs("a", "b " + text).input_ids == ours.encode("a", "b " + text).ids
        plain = ours.encode(text, add_special_tokens=False).ids
        assert theirs(text, add_special_tokens=False).input_ids == plain
        assert theirs.decode(plain, skip_special_tokens=False) == ours.decode(
            plain, skip_special_tokens=False
        )
    assert len(theirs) == ours.get_vocab_size()


def test_auto_tokenizer_knows_the_roles_of_the_special_tokens(tiny_tokenizer_folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny_tokenizer_folder)
    assert (theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        UNK_ID,
        BOS_ID,
        EOS_ID,
        PAD_ID,
    )
    assert theirs.mask_token_id == MASK_ID
    assert theirs.model_max_length == 128
    with_space, without = (theirs(f"Oslo er{space}<mask> i").input_ids for space in (" ", ""))
    assert with_space == without
    padded = theirs(["Oslo", "Oslo er hovedstaden"], padding=True)
    assert padded.input_ids[0][0] == PAD_ID, "on the left"
    assert padded.attention_mask[0][-1] == 1
    text = "Hei , du ! Det er n't ."
    assert theirs.decode(theirs(text).input_ids, skip_special_tokens=True) == text, "spaces stay as they are"


def test_saved_again_by_transformers_it_still_gives_equal_ids(
    tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    AutoTokenizer.from_pretrained(tiny_tokenizer_folder).save_pretrained(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tiny_tokenizer_folder)
    for text in PROBES:
        assert theirs(text).input_ids == ours.encode(text).ids
    assert load_tokenizer(tmp_path).encode(PROBES[1]).ids == ours.encode(PROBES[1]).ids


def test_saving_again_replaces_the_folder(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "stale.json").write_text("{}")
    save_tokenizer(load_tokenizer(tiny_tokenizer_folder), folder, 77)
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert (config["model_max_length"], config["clean_up_tokenization_spaces"]) == (77, False)
    saved, before = ((each / "tokenizer.json").read_bytes() for each in (folder, tiny_tokenizer_folder))
    assert saved == before


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"tokenizer folder {tmp_path}/absent does not exist"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(UserError, match=f"tokenizer folder {tmp_path} has no tokenizer.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"no json", b'{"version": "1.0"}', b"\xff\xfe"])
def test_a_broken_tokenizer_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path}/tokenizer.json is no tokenizer"):
        load_tokenizer(tmp_path)


def test_special_tokens_at_other_ids_are_refused(tmp_path: Path) -> None:
    check_special_tokens(train_tokenizer(["aaaa aaaa"], 273), "here")
    vocabulary = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    swapped = vocabulary | {"</s>": 3, "<pad>": 2}
    with pytest.raises(UserError, match=r"tokenizer here: special token </s> has id 3 and must have id 2"):
        check_special_tokens(Tokenizer(models.BPE(swapped, [])), "here")
    del vocabulary[BOS_TOKEN]
    with pytest.raises(UserError, match=r"special token <s> is missing and must have id 1"):
        save_tokenizer(Tokenizer(models.BPE(vocabulary, [])), tmp_path / "tokenizer", 128)
    assert not (tmp_path / "tokenizer").exists()
