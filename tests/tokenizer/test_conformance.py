"""The published tokenizer gives the same ids in every library that reads it, or it is known where not."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llama_server import LlamaServer, llama_server
from tokenizers import Tokenizer
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from normistral.dataset.encoder import DIFFICULT_TEXTS
from normistral.publish import publish_model
from normistral.tokenizer import BOS_ID, MASK_ID, save_tokenizer, train_tokenizer
from normistral.weights import export_gguf

VOCABULARY = 445
SAAMI = "čáŋŧžđš ČÁŊŦŽĐŠ Čáhppes áhkku, gievrras eanu. Åsa ærlig øre Ǥåetie"
ADVERSARIAL = (
    *DIFFICULT_TEXTS,
    "👩‍👩‍👧‍👦 👍🏽 🇳🇴🇸🇯 ☃️ ✈︎",
    "ŋ̌ đ̌ m̃ a̧̐",  # letters with marks that no single character stands for
    unicodedata.normalize("NFC", SAAMI),
    unicodedata.normalize("NFD", SAAMI),
    "a\r\nb\r\n\r\nc\rd",
    "\t\tx\t y\t\n\t",
    "a\u200bb\u200dc\u200cd\ufeffe\u2060f\u00adg",
    "1234567890 3,14 10.000,50 kr ½ ² Ⅻ ٣ 0x1F",
    "def f(x: int) -> int:\n    return x**2  # æøå\n\n\nclass A:\n\tpass\n",
    "a" * 10_000,
    "ærlig" * 2_000,
    "ÆØÅ" * 3_334,
    "\x00\x01\x1f\x7f\x1b[0m\x85",
    "<s> </s> <mask> <unk> < mask> <MASK> <mask > <|endoftext|> <special_0> <special_99> <s",
    "Привет שלום こんにちは नमस्ते abcДef ไทย 한국어",
    "",
    "   ",
    "\n\n\n",
    "En søt lundefugl flyr over de<mask> norske fjorder.",
    "over de <mask> norske",
    "over de  \t<mask>norske",
    "linje\n<mask>.",
    "<mask><mask> <mask>",
    "EØS MÅL SÁMI ÆØÅ abcÅdef aÅÆb TÆL iPhoneÅr McØrn",
    "it's we're O'Brien's L'ÉTÉ DON'T 'sola",
    "https://no.wikipedia.org/wiki/Åre?x=1&y=2#æ",
    "!!!///\n\n?!…—»«",
    "x\u0085y\u2028z\u2029",
    "ﬁ ﬀ ＡＢＣ ǅ ʰ ß ẞ İ ı ǆ",
    "=====-----_____",
)
"""What encoders are known to differ on. (A Python string with a lone surrogate is no text: see below.)"""

SPLIT_OTHERWISE = ("b'test' f'{x}' O'Donnell Alpha'th", "sti:\n/usr/bin !!!\n/path")
"""What llama.cpp splits otherwise, after any preparation; at most these two kinds."""

TEXTS = (
    "Hun har 12 søsken, og de er ærlige. EØS og BOKMÅL. L'été, O'Donnell.\n",
    "Sámegiella lea čáppat; ČÁHCI ja ŊŊ. Áhkku.\n\n\n    def f(x):\n\treturn 'test'\n",
    "can't won't don't isn't the test they're it's O'Brien's\n",
    "/path /path/data /path /usr/bin/test /path\n",
    "Engelsk: I like coffee. Bokmål: Jeg liker kaffe. Ei jente gjekk på skule i Ålesund.\n",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model with a tokenizer of its own, and its GGUF file."""
    place = tmp_path_factory.mktemp("conformance")
    save_tokenizer(train_tokenizer(TEXTS * 5, VOCABULARY), place / "tokenizer", 1 << 20)
    return published(place, VOCABULARY)


def published(place: Path, vocabulary: int) -> Path:
    """Publish a random model of almost no size with the tokenizer in `place`."""
    config = MistralConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1 << 14,  # more than the longest text: a longer one is warned of
        sliding_window=None,
        tie_word_embeddings=True,
    )
    MistralForCausalLM(config).save_pretrained(place / "trained")
    publish_model(place / "trained", place / "tokenizer", place / "model", "bfloat16", card="")
    export_gguf(place / "model", place / "model.gguf", "F16")
    return place / "model"


@pytest.fixture(scope="module")
def reference(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def llama(folder: Path) -> Iterator[LlamaServer]:
    with llama_server(folder.parent / "model.gguf") as server:
        yield server


def transformers_encoder(folder: Path) -> Callable[[str], list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda text: list(tokenizer(text).input_ids)


def gigatoken_encoder(folder: Path) -> Callable[[str], list[int]]:
    gigatoken = pytest.importorskip("gigatoken")
    tokenizer = gigatoken.Tokenizer(str(folder)).as_hf()
    return lambda text: list(tokenizer(text)["input_ids"])


def fastokens_encoder(folder: Path) -> Callable[[str], list[int]]:
    native = pytest.importorskip("fastokens._native")
    tokenizer = native.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=True).ids)


def prepared(text: str) -> str:
    """A text as llama.cpp must be given it: composed, and without white space before `<mask>`."""
    parts = unicodedata.normalize("NFC", text).split("<mask>")
    return "<mask>".join([*(part.rstrip() for part in parts[:-1]), parts[-1]])


@pytest.mark.parametrize(
    "encoder", [transformers_encoder, gigatoken_encoder, fastokens_encoder], ids=lambda one: one.__name__
)
def test_every_library_gives_the_same_ids(
    folder: Path, reference: Tokenizer, encoder: Callable[[Path], Callable[[str], list[int]]]
) -> None:
    encode = encoder(folder)
    for text in (*ADVERSARIAL, *SPLIT_OTHERWISE):
        assert encode(text) == reference.encode(text).ids, text[:80]


def test_llama_cpp_gives_the_same_ids_on_prepared_text(reference: Tokenizer, llama: LlamaServer) -> None:
    for text in ADVERSARIAL:
        assert llama.tokenize(prepared(text)) == reference.encode(text).ids, text[:80]


def test_llama_cpp_differs_on_other_text_only_by_nfc_and_the_space_before_a_mask(
    reference: Tokenizer, llama: LlamaServer
) -> None:
    for text in ADVERSARIAL:
        if llama.tokenize(text) != reference.encode(text).ids:
            assert prepared(text) != text, text[:80]


@pytest.mark.parametrize("text", SPLIT_OTHERWISE)
def test_what_llama_cpp_splits_otherwise_is_still_the_same_text(
    reference: Tokenizer, llama: LlamaServer, text: str
) -> None:
    ids = llama.tokenize(text, add_special=False)
    assert reference.decode(ids) == text
    assert ids != reference.encode(text, add_special_tokens=False).ids, "no limit any more: say so in docs"


def test_llama_cpp_writes_the_text_that_transformers_writes(
    folder: Path, reference: Tokenizer, llama: LlamaServer
) -> None:
    for text in ADVERSARIAL:
        if "<" not in text and text and len(text) < 3000:
            ids = reference.encode(text, add_special_tokens=False).ids
            assert llama.detokenize(ids) == reference.decode(ids) == unicodedata.normalize("NFC", text)


def test_transformers_opens_the_fast_class_and_warns_of_nothing(folder: Path) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    transformers_logging.warning_once.cache_clear()
    for name in ("transformers", "tokenizers"):
        logging.getLogger(name).addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tokenizer = AutoTokenizer.from_pretrained(folder)
            for text in ADVERSARIAL:
                tokenizer(text)
    finally:
        for name in ("transformers", "tokenizers"):
            logging.getLogger(name).removeHandler(handler)
    assert [record.getMessage() for record in records] == []
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.is_fast


def test_saving_it_with_transformers_changes_no_id(
    folder: Path, reference: Tokenizer, tmp_path: Path
) -> None:
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ADVERSARIAL:
        assert again(text).input_ids == reference.encode(text).ids


def test_every_text_comes_back_in_nfc(reference: Tokenizer) -> None:
    for text in (*ADVERSARIAL, *SPLIT_OTHERWISE):
        if "<" not in text:
            ids = reference.encode(text, add_special_tokens=False).ids
            assert reference.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_a_lone_surrogate_is_no_text_and_refused(reference: Tokenizer) -> None:
    with pytest.raises((UnicodeEncodeError, TypeError)):
        reference.encode("a\ud800b")


@pytest.mark.parametrize(
    "before", ["over de <mask> norske", "over de<mask> norske", "over de \n <mask> norske"]
)
def test_the_mask_takes_the_space_before_it(reference: Tokenizer, before: str) -> None:
    ids = reference.encode(before).ids
    assert ids == reference.encode("over de<mask> norske").ids
    assert ids[0] == BOS_ID
    assert ids.count(MASK_ID) == 1


def test_what_follows_the_mask_keeps_its_own_space(reference: Tokenizer) -> None:
    with_space = reference.encode("de<mask> norske").ids
    without = reference.encode("de<mask>norske").ids
    place = with_space.index(MASK_ID)
    assert with_space[: place + 1] == without[: place + 1]
    assert reference.decode(with_space[place + 1 :]) == " norske"
    assert reference.decode(without[place + 1 :]) == "norske"


def test_a_gguf_tokenizer_in_the_smollm_manner_gives_the_same_ids(tmp_path: Path) -> None:
    """The base's own tokenizer, as the mode `keep` publishes it."""
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS * 5,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<mask>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    MistralForCausalLM(
        MistralConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            sliding_window=None,
        )
    ).save_pretrained(tmp_path / "model")
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    report = export_gguf(tmp_path / "model", tmp_path / "model.gguf", "F16")
    assert (report.pre_tokenizer, report.limits) == ("smollm", ())
    with llama_server(tmp_path / "model.gguf") as server:
        for text in (*ADVERSARIAL, *SPLIT_OTHERWISE):
            assert server.tokenize(text) == tokenizer.encode(text).ids, text[:80]
