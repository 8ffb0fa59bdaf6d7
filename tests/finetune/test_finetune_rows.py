"""From examples to rows of token ids, and from outputs to answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from normistral.errors import UserError
from normistral.finetune.answering import NO_ANSWER, Answering, Question
from normistral.finetune.base import pad_id_of
from normistral.finetune.classification import Classification, LabelledText
from normistral.finetune.continuation import Continuation, Passage
from normistral.finetune.encoder import Encoder
from normistral.finetune.order import LengthGroupedOrder
from normistral.finetune.tagging import TaggedSentence, Tagging
from normistral.finetune.task import IGNORED, Feature

WORDS = ("Lundefuglen", "flyr", ",", "(", "Ålesund", ")", ".")
SPACES = (True, False, True, False, False, False, True)
TAGS = ("N", "V", "P", "P", "N", "P", "P")
TEXT = "Lundefuglen flyr, (Ålesund)."


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer_folder: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(tiny_tokenizer_folder), 64, 3)


@pytest.fixture(scope="module")
def metaspace_encoder() -> Encoder:
    """A tokenizer as Llama's and Mistral's first ones: no byte-level pieces; without special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<end>"])
    tokenizer.train_from_iterator([TEXT, "Jeg liker kaffe."] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    return Encoder(fast, 64, pad_id_of(fast))


def tagged(words: tuple[str, ...] = WORDS, spaces: tuple[bool, ...] = SPACES) -> TaggedSentence:
    labels = tuple(TAGS[at % len(TAGS)] for at in range(len(words)))
    return TaggedSentence("x, line 1", words, spaces, labels)


@pytest.mark.parametrize("subtoken", ["first", "last"])
def test_the_label_stands_at_the_first_or_last_piece_of_its_word(encoder: Encoder, subtoken: str) -> None:
    task = Tagging(("N", "P", "V"), subtoken)  # type: ignore[arg-type]
    (row,) = task.features([tagged()], encoder).rows
    assert encoder.tokenizer.decode(row.ids, skip_special_tokens=True) == TEXT
    pieces = encoder.pieces(WORDS, SPACES)
    assert len(pieces[0]) > 1
    begins = [len(encoder.prefix) + sum(map(len, pieces[:at])) for at in range(len(WORDS))]
    places = begins if subtoken == "first" else [a + len(p) - 1 for a, p in zip(begins, pieces, strict=True)]
    assert [place for _, place in row.extra] == places
    assert [task.labels[row.target[place]] for place in places] == list(TAGS)
    assert sum(target != IGNORED for target in row.target) == len(WORDS)


def test_a_long_sentence_becomes_rows_that_fit_and_no_word_is_lost(encoder: Encoder) -> None:
    sentence = tagged(WORDS * 10, SPACES * 10)
    task = Tagging(("N", "P", "V"))
    made = task.features([sentence], encoder)
    assert made.parted == 1
    assert made.cut == 0
    assert len(made.rows) > 1
    assert all(row.length <= encoder.max_length for row in made.rows)
    assert [word for row in made.rows for word, _ in row.extra] == list(range(70))
    perfect = [
        torch.nn.functional.one_hot(torch.tensor([row.target[place] for _, place in row.extra]), 3).float()
        for row in made.rows
    ]
    answers = task.answers([sentence], made.rows, perfect)
    assert task.measure([sentence], answers)["accuracy"] == 1.0


def test_words_without_a_label_are_neither_learned_nor_measured(encoder: Encoder) -> None:
    sentence = TaggedSentence("x", ("a", "b"), (True, True), ("N", None))
    task = Tagging(("N", "V"))
    (row,) = task.features([sentence], encoder).rows
    assert [target for target in row.target if target != IGNORED] == [0]
    assert task.measure([sentence], [torch.tensor([[1.0, 0.0], [0.0, 1.0]])])["accuracy"] == 1.0


def test_names_in_bio_are_measured_whole() -> None:
    sentence = TaggedSentence("x", tuple("abcd"), (True,) * 4, ("B-X", "I-X", "O", "B-X"))
    task = Tagging(("B-X", "I-X", "O"))
    assert task.metric == "f1"
    found = torch.nn.functional.one_hot(torch.tensor([0, 2, 2, 0]), 3).float()  # the first name cut short
    metrics = task.measure([sentence], [found])
    assert metrics["accuracy"] == 0.75
    assert metrics["f1"] == 0.5


def test_a_tokenizer_without_bytes_and_special_tokens_keeps_words_apart_too(
    metaspace_encoder: Encoder,
) -> None:
    assert (metaspace_encoder.prefix, metaspace_encoder.suffix, metaspace_encoder.pad_id) == ([], [], 1)
    pieces = metaspace_encoder.pieces(WORDS, SPACES)
    assert [metaspace_encoder.tokenizer.decode(piece).strip() for piece in pieces] == list(WORDS)
    (row,) = Continuation().features([Passage("x", "", "kaffe")], metaspace_encoder).rows
    assert row.ids[0] == 1  # the end of text stands before the first token, which something must predict
    assert row.target == 1


def test_an_unknown_label_is_named_with_its_line(encoder: Encoder) -> None:
    task = Classification(("ja", "nei"))
    with pytest.raises(UserError, match=r"dev\.jsonl, line 7: label 'kanskje' is not among .* \(ja, nei\)"):
        task.features([LabelledText("dev.jsonl, line 7", "a", "kanskje")], encoder)


def test_a_text_longer_than_the_limit_is_cut_and_counted(encoder: Encoder) -> None:
    task = Classification(("ja", "nei"))
    made = task.features([LabelledText("x", "fjord " * 100, "ja"), LabelledText("x", "a", "nei")], encoder)
    assert made.cut == 1
    assert made.rows[0].length == encoder.max_length


def question(context: str, answer: str | None) -> Question:
    answers = () if answer is None else ((answer, context.index(answer)),)
    return Question("x", "Hvor er hun?", context, answers)


def test_every_window_that_holds_the_answer_points_at_it(encoder: Encoder) -> None:
    context = "Jeg liker kaffe. " * 8 + "Hun er i Ålesund nå. " + "Jeg liker kaffe. " * 8
    made = Answering().features([question(context, "Ålesund")], encoder)
    assert made.parted == 1
    hits = 0
    for row in made.rows:
        assert row.length <= encoder.max_length
        start, end = row.target
        if (start, end) != (NO_ANSWER, NO_ANSWER):
            hits += 1
            assert encoder.tokenizer.decode(row.ids[start : end + 1]).strip() == "Ålesund"
    assert 1 <= hits < len(made.rows)


def test_the_best_window_gives_the_answer_and_its_place(encoder: Encoder) -> None:
    context = "Jeg liker kaffe. " * 8 + "Hun er i Ålesund nå."
    example = question(context, "Ålesund")
    task = Answering(may_lack=True)
    rows = task.features([example], encoder).rows

    class Oracle:
        device = torch.device("cpu")

        def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            starts, ends = torch.zeros(input_ids.shape), torch.zeros(input_ids.shape)
            for at, row in enumerate(rows):
                starts[at, row.target[0]] = ends[at, row.target[1]] = 9.0
            return type("Said", (), {"start_logits": starts, "end_logits": ends})

    answers = task.answers([example], rows, task.outputs(Oracle(), rows, encoder))
    assert answers[0].text == "Ålesund"
    assert answers[0].start == context.index("Ålesund")
    assert task.measure([example], answers) == {"exact_match": 1.0, "f1": 1.0}
    lacking = question("Jeg liker kaffe.", None)
    rows = task.features([lacking], encoder).rows
    assert task.answers([lacking], rows, task.outputs(Oracle(), rows, encoder))[0].text == ""


def test_answers_are_compared_without_case_and_punctuation() -> None:
    example = Question("x", "?", "den store, grønne fjorden", (("Den store, grønne fjorden", 0),))
    from normistral.finetune.answering import Span

    metrics = Answering().measure([example], [Span("store grønne", 0, 1.0)])
    assert metrics["exact_match"] == 0.0
    assert metrics["f1"] == pytest.approx(2 / 3)


def test_of_a_prompt_with_completion_only_the_completion_is_learned(encoder: Encoder) -> None:
    made = Continuation().features([Passage("x", "Engelsk: coffee\n", "kaffe")], encoder)
    (row,) = made.rows
    assert encoder.tokenizer.decode(row.ids[row.target :]) == "kaffe</s>"
    behind, counted = row.extra
    assert encoder.tokenizer.decode(row.ids[row.target : behind]) == "kaffe"
    assert counted == len("kaffe")


def test_a_long_text_is_learned_whole(encoder: Encoder) -> None:
    text = "Jeg liker kaffe. " * 40
    made = Continuation().features([Passage("x", "", text)], encoder)
    learned = [number for row in made.rows for number in row.ids[row.target : row.extra[0]]]
    assert encoder.tokenizer.decode(learned) == text
    assert sum(row.extra[1] for row in made.rows) == len(text.encode())


def test_bits_per_byte_count_the_bytes_of_what_was_kept(encoder: Encoder) -> None:
    example = Passage("x", "Engelsk: coffee\n", "Hun så på Ålesund. " * 40)
    made = Continuation().features([example], encoder)
    (row,) = made.rows
    assert made.cut == 1
    kept = encoder.tokenizer.decode(row.ids[row.target : row.extra[0]])
    assert example.text.startswith(kept)
    assert row.extra[1] == len(kept.encode()) < len(example.text.encode())

    class Knowing:
        """Gives every token one bit."""

        device = torch.device("cpu")

        def __call__(self, input_ids: torch.Tensor, **_: object) -> object:
            return type("Said", (), {"logits": torch.zeros(*input_ids.shape, 2)})

    bits = Knowing()
    row = Feature([0] * row.length, 0, row.target, row.extra)
    answers = Continuation().answers([example], [row], Continuation().outputs(bits, [row], encoder))
    share = (row.length - row.target) / len(kept.encode())
    assert Continuation().measure([example], answers)["bits_per_byte"] == pytest.approx(share)
    assert Continuation().told(example, answers[0])["bits_per_byte"] == pytest.approx(share, abs=1e-6)


def test_a_prompt_without_room_for_an_answer_is_refused(encoder: Encoder) -> None:
    with pytest.raises(UserError, match="leaves no room for the completion in 64"):
        Continuation().features([Passage("x, line 1", "kaffe " * 100, "ja")], encoder)


def test_the_order_is_a_function_of_seed_and_pass_and_groups_lengths() -> None:
    lengths = [(at * 37) % 101 for at in range(403)]
    order = LengthGroupedOrder(lengths, 8, 5)
    first = list(order)
    assert sorted(first) == list(range(403))
    assert first == list(LengthGroupedOrder(lengths, 8, 5))
    order.set_epoch(1)
    assert list(order) != first
    spread = [max(b) - min(b) for b in ([lengths[n] for n in first[a : a + 8]] for a in range(0, 400, 8))]
    assert sum(spread) / len(spread) < 10  # of random batches: about 80


def test_rows_of_unequal_length_get_a_mask(encoder: Encoder) -> None:
    batch = Classification(("a", "b")).collate([Feature([1, 20, 21], 0, 0), Feature([1, 20], 1, 1)], encoder)
    assert batch["input_ids"].tolist() == [[1, 20, 21], [1, 20, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
