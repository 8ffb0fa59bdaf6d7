"""The model card: what was recorded stands in it, what was not measured does not, and its examples run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from normistral.inference import fill_mask, generate, load
from normistral.model.config import ModelConfig
from normistral.pipeline.result_stages import _hub_id
from normistral.publish import CardFacts, ScoreFacts, SourceFacts, StageFacts, model_card, publish_model
from normistral.publish.card import BYTES_PER_WEIGHT_4BIT, BYTES_PER_WEIGHT_8BIT, quantised_bytes
from normistral.publish.gguf import OUR_CARDS
from normistral.recipe import ObjectiveSettings, ScheduleSettings, TrainingSettings
from normistral.tokenizer import TokenizerRow

NORMISTRAL_11B = ModelConfig(51_200, 5120, 14_336, 40, 32, 8, 128, 4096, 1e6, None, 1e-5, tied=False)


@pytest.fixture
def facts() -> CardFacts:
    """The figures of the original's card, as far as it gives them."""
    return CardFacts(
        name="normistral-11b-warm",
        repository="somebody/normistral-11b-warm",
        description="A model that writes and reads Norwegian.",
        licence="Apache-2.0",
        base="Mistral-Nemo-Base-2407",
        base_hub_id="mistralai/Mistral-Nemo-Base-2407",
        model=NORMISTRAL_11B,
        sources=(
            SourceFacts("mimir|core", "nob", "various", 1_234_567, 9_876_543, 4.0, attribution="The library"),
            SourceFacts("saami-web", "sme", "CC-BY-4.0", hub_id="ltg/saami-web"),
            SourceFacts("stack", "code", "various"),
        ),
        stages=(
            StageFacts(
                "adapt",
                TrainingSettings(
                    steps=60_000,
                    global_batch_size=1024,
                    learning_rate=1e-4,
                    schedule=ScheduleSettings(warmup_steps=1000, decay_steps=10_000),
                ),
                tokens=60_000 * 1024 * 4096,
                seconds=8.5 * 86_400,
            ),
        ),
        objective=ObjectiveSettings(),
        sequence_length=4096,
        context_length=4096,
        precision="bfloat16",
        hardware="256 AMD MI250X GPUs (128 GB)",
        tokenizers=(
            TokenizerRow("Mistral-Nemo-Base-2407", 131_072, "nob", 9, 100, 50, 179, 500, 0),
            TokenizerRow("normistral-11b-warm", 51_200, "nob", 9, 100, 80, 122, 500, 0),
            TokenizerRow("normistral-11b-warm", 51_200, "sme", 9, 100, 60, 182, 500, 0),
        ),
        scores=(
            ScoreFacts("nob", "bits per byte", 0.75, 0.625, lower_is_better=True),
            ScoreFacts("nob", "masked accuracy", None, 0.4321, lower_is_better=False),
        ),
    )


def front_matter(card: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return content


def table_row(card: str, first_cell: str) -> list[str]:
    line = next(line for line in card.splitlines() if line.startswith(f"| {first_cell} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_front_matter_is_what_the_hub_reads(facts: CardFacts) -> None:
    metadata = front_matter(model_card(facts))
    assert metadata["license"] == "apache-2.0"
    assert metadata["language"] == ["nob", "sme"]
    assert metadata["base_model"] == "mistralai/Mistral-Nemo-Base-2407"
    assert metadata["datasets"] == ["ltg/saami-web"]
    assert metadata["library_name"] == "transformers"
    twice = replace(facts, sources=(facts.sources[1], replace(facts.sources[1], name="more")))
    assert front_matter(model_card(twice))["datasets"] == ["ltg/saami-web"]
    own = front_matter(model_card(replace(facts, licence="Llama 3.2 Community")))
    assert (own["license"], own["license_name"]) == ("other", "llama-3.2-community")


def test_a_card_made_here_is_known_as_such(facts: CardFacts) -> None:
    assert OUR_CARDS in model_card(facts)


@pytest.mark.parametrize(
    ("path", "hub_id"),
    [
        ("hub:ltg/saami-web?config=sme&split=train", "ltg/saami-web"),
        ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
        ("sample:bokmaalsordboka", None),
        ("some/deep/folder", None),
        ("/", None),
    ],
)
def test_the_hub_is_named_by_ids_alone(path: str, hub_id: str | None) -> None:
    assert _hub_id(path) == hub_id


def test_what_is_not_known_has_no_key_in_the_front_matter(facts: CardFacts) -> None:
    local = replace(facts, base_hub_id=None, sources=facts.sources[:1])
    assert not {"base_model", "datasets"} & front_matter(model_card(local)).keys()


def test_sources_stand_with_licence_documents_tokens_and_repeats(facts: CardFacts) -> None:
    card = model_card(facts)
    assert table_row(card, r"mimir\|core") == [
        r"mimir\|core",
        "Norwegian Bokmål",
        "various",
        "1,234,567",
        "9,876,543",
        "4.00",
    ]
    assert table_row(card, "saami-web") == ["saami-web", "Northern Sámi", "CC-BY-4.0", "–", "–", "–"]
    assert "- mimir|core (various): The library" in card


def test_tokenizers_are_compared_as_on_the_original_card(facts: CardFacts) -> None:
    card = model_card(facts)
    tokenizers = card[card.index("## Tokenizer") : card.index("## Evaluation")]
    assert table_row(tokenizers, "Mistral-Nemo-Base-2407")[1:] == ["131,072", "1.79", "–"]
    assert table_row(tokenizers, "normistral-11b-warm")[1:] == ["51,200", "1.22", "1.82"]


def test_scores_stand_before_and_after(facts: CardFacts) -> None:
    card = model_card(facts)
    scores = [line for line in card.splitlines() if "bits per byte" in line or "masked accuracy" in line]
    assert scores == [
        "| Norwegian Bokmål | bits per byte | 0.750 | 0.625 | lower |",
        "| Norwegian Bokmål | masked accuracy | – | 0.432 | higher |",
    ]


def test_what_was_not_measured_is_absent(facts: CardFacts) -> None:
    bare = model_card(
        replace(
            facts,
            tokenizers=(),
            scores=(ScoreFacts("nob", "bits per byte", 0.75, None, lower_is_better=True),),
            stages=tuple(replace(stage, seconds=None) for stage in facts.stages),
        )
    )
    for absent in ("## Tokenizer", "## Evaluation", "bits per byte", "Training time", "None", "nan"):
        assert absent not in bare
    for present in ("## Tokenizer", "## Evaluation", "bits per byte", "Training time"):
        assert present in model_card(facts)


def test_model_and_training_are_described_as_on_the_original_card(facts: CardFacts) -> None:
    card = model_card(facts)
    for line in (
        "- 40 transformer layers",
        "- Hidden dimension: 5,120",
        "- Intermediate dimension: 14,336",
        "- 32 query heads and 8 key & value heads (dimension 128)",
        "- Vocabulary size: 51,200 tokens",
        "- Total parameters: 11.4 billion (11,429,893,120)",
        "| Training tokens | 251.7 billion |",
        "| Batch size (sequences × tokens) | 1,024 × 4,096 |",
        "| Training steps | 60,000 |",
        "| Peak learning rate | 0.0001 |",
        "| Warm-up steps | 1,000 |",
        "| Learning rate decay steps | 10,000 |",
        "| AdamW β₁, β₂, ε | 0.9, 0.95, 1e-08 |",
        "| Weight decay | 0.1 |",
        "| Training time | 8.5 days |",
        "- Training precision: bfloat16",
        "- Hardware: 256 AMD MI250X GPUs (128 GB)",
    ):
        assert line in card.splitlines()
    assert "90 % of the sequences are trained causally, 10 % by masked next-token prediction" in card
    assert "is not finetuned to follow instructions" in card


def test_sizes_in_lower_precision_are_those_of_the_original_card() -> None:
    assert quantised_bytes(NORMISTRAL_11B, BYTES_PER_WEIGHT_8BIT) == pytest.approx(12e9, rel=0.01)
    assert quantised_bytes(NORMISTRAL_11B, BYTES_PER_WEIGHT_4BIT) == pytest.approx(7.18e9, rel=0.01)


def test_tables_have_a_cell_for_every_column(facts: CardFacts) -> None:
    widths: list[int] = []
    for line in model_card(facts).splitlines():
        if line.startswith("|"):
            widths.append(len(re.split(r"(?<!\\)\|", line)))
            assert widths[-1] == widths[0], line
        else:
            widths.clear()


@pytest.fixture
def published_card(taught: Any, facts: CardFacts, tiny_tokenizer_folder: Path, tmp_path: Path) -> str:
    """A card whose model is published beside it and knows the answers to its examples."""
    card = model_card(
        replace(
            facts,
            repository=str(tmp_path / "model"),
            prompt_template="Engelsk: {0}\nBokmål:",
            prompt_text="I like coffee.",
            # The original card's spelling of a mask.
            masked_sentence=taught.masked_sentence.replace("<mask> ", "<mask>"),
        )
    )
    publish_model(taught.folder, tiny_tokenizer_folder, tmp_path / "model", "float32", card)
    return (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def run_example(card: str, heading: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a usage example as it stands in the card, on the CPU; return its variables."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code = card[card.index(heading) :].split("```python\n")[1].split("```")[0]
    variables: dict[str, Any] = {}
    exec(compile(code, heading, "exec"), variables)
    return variables


def test_the_first_example_translates_and_stops_at_the_newline(
    published_card: str,
    taught: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = run_example(published_card, "### Causal language model", monkeypatch)
    assert capsys.readouterr().out.strip() == taught.translation.strip()
    loaded = load(tmp_path / "model", device="cpu")
    for text in ("I like coffee.", "Oslo", "def hello(name):"):
        ours = generate(loaded, f"Engelsk: {text}\nBokmål:", max_new_tokens=64, stop=("\n",)).text
        assert example["generate"](text).strip("\ufffd") == ours.strip().strip("\ufffd")
    answer = load(tmp_path / "model").tokenizer(taught.translation + "\n", add_special_tokens=False).input_ids
    generated = generated_lengths(example["model"], lambda: example["generate"]("I like coffee."))
    assert generated == [len(example["tokenizer"](taught.prompt).input_ids) + len(answer)]


def generated_lengths(model: Any, act: Callable[[], object]) -> list[int]:
    """How long the sequences are that the model's `generate` returns while `act` runs."""
    lengths = []
    generate_ids = model.generate

    def noting(*args: Any, **kwargs: Any) -> Any:
        ids = generate_ids(*args, **kwargs)
        lengths.append(ids.size(1))
        return ids

    model.generate = noting
    act()
    return lengths


def test_the_second_example_loads_in_lower_precision(
    published_card: str, taught: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = published_card[published_card.index("### Memory-efficient loading") :].split("```python\n")[1]
    eight, four = code.split("```")[0].split("# or 4-bit\n")
    variables: dict[str, Any] = {}
    exec(eight, variables)
    assert variables["model"].is_loaded_in_8bit
    exec(four, variables)
    model = variables["model"]
    assert model.is_loaded_in_4bit
    projection = model.model.layers[0].self_attn.q_proj
    assert projection.weight.quant_state.quant_type == "nf4"


def test_the_third_example_fills_the_mask_as_fill_mask_does(
    published_card: str,
    taught: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_example(published_card, "### Bidirectional masked language model", monkeypatch)
    given, _, filled = capsys.readouterr().out.strip().partition(" -> ")
    assert given == taught.masked_sentence
    assert filled == taught.masked_sentence.replace("<mask>", taught.masked_word)
    assert filled == fill_mask(load(tmp_path / "model", device="cpu"), taught.masked_sentence).text
