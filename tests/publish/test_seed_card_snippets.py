"""The three snippets of NorMistral-11b-warm's card on a published folder: unchanged, but for the device (no
`.cuda()`), the id, and today's spelling of quantised loading and of `torch_dtype`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from normistral.publish import publish_model

FIRST = '''
from transformers import AutoTokenizer, AutoModelForCausalLM
import torch

# Import the tokenizer and model
tokenizer = AutoTokenizer.from_pretrained("norallm/normistral-11b")
model = AutoModelForCausalLM.from_pretrained("norallm/normistral-11b").eval()

# Define zero-shot translation prompt template
prompt = """Engelsk: {0}
Bokmål:"""

# Generation function
@torch.no_grad()
def generate(text):
    text = prompt.format(text)
    input_ids = tokenizer(text, return_tensors='pt').input_ids
    prediction = model.generate(
        input_ids,
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=tokenizer('\\n').input_ids
    )
    return tokenizer.decode(prediction[0, input_ids.size(1):]).strip()
'''

SECOND = """
import torch
from transformers import AutoTokenizer, AutoModelForCausalLM, BitsAndBytesConfig

tokenizer = AutoTokenizer.from_pretrained("norallm/normistral-11b-warm")

# Load in 8-bit mode (requires ~12GB VRAM)
model8 = AutoModelForCausalLM.from_pretrained(
    "norallm/normistral-11b",
    device_map='auto',
    quantization_config=BitsAndBytesConfig(load_in_8bit=True),
    dtype=torch.bfloat16
)

# Or load in 4-bit mode (requires ~8GB VRAM)
model4 = AutoModelForCausalLM.from_pretrained(
    "norallm/normistral-11b",
    device_map='auto',
    quantization_config=BitsAndBytesConfig(load_in_4bit=True),
    dtype=torch.bfloat16
)
"""

THIRD = """
from transformers import AutoTokenizer, AutoModelForCausalLM

# First, we will have to import the tokenizer and the language model
# we can use CausalLM instead of MaskedLM just fine
tokenizer = AutoTokenizer.from_pretrained(
    "norallm/normistral-11b-warm"
)
model = AutoModelForCausalLM.from_pretrained(
    "norallm/normistral-11b-warm"
).eval()

# A partially-masked input text string
text = "En søt lundefugl flyr over de<mask>norske fjorder."
input_ids = tokenizer(text, return_tensors='pt').input_ids

# An empty attention mask allows uncontrained bidirectional attention
attention_mask = torch.zeros(
    input_ids.size(0), 1, input_ids.size(1), input_ids.size(1), device=input_ids.device
)

output_logits = model(
    input_ids=input_ids,
    attention_mask=attention_mask,
    return_dict=True
).logits
predictions = output_logits[0, :, :].argmax(dim=-1)

# Expected output:
# En søt lundefugl flyr over de<mask> norske fjorder. -> En søt lundefugl flyr over de vakre norske fjorder.
print(f"{tokenizer.decode(input_ids[0, 1:])} -> {tokenizer.decode(predictions[:-1])}")
"""


@pytest.fixture(scope="module")
def published(taught: Any, tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("card") / "model"
    publish_model(taught.folder, tiny_tokenizer_folder, folder, "float32", card="")
    return str(folder)


def run(snippet: str, folder: str) -> dict[str, Any]:
    for name in ("norallm/normistral-11b-warm", "norallm/normistral-11b"):
        snippet = snippet.replace(f'"{name}"', repr(folder))
    variables: dict[str, Any] = {"torch": torch}  # the third one forgets to import it
    exec(compile(snippet, "card", "exec"), variables)
    return variables


def test_the_first_translates(published: str, taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    example = run(FIRST, published)
    assert example["generate"]("I like coffee.") == taught.translation.strip()
    # The list holds the start token beside the newline; it is never written, so nothing ends early.
    start, newline = example["tokenizer"]("\n").input_ids
    assert (start, example["tokenizer"].decode([newline])) == (1, "\n")


def test_the_second_loads_in_eight_and_four_bits(published: str) -> None:
    example = run(SECOND, published)
    assert example["model8"].is_loaded_in_8bit
    assert example["model4"].is_loaded_in_4bit


def test_the_third_reads_both_ways(published: str, taught: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(THIRD, published)
    assert capsys.readouterr().out.startswith("En søt lundefugl flyr over de<mask>norske fjorder. -> ")
    example = run(
        THIRD.replace("En søt lundefugl flyr over de<mask>norske fjorder.", taught.masked_sentence), published
    )
    place = example["input_ids"][0].tolist().index(example["tokenizer"].mask_token_id)
    assert example["tokenizer"].decode(example["predictions"][place - 1]) == taught.masked_word
