"""A model folder becomes a GGUF file in which llama.cpp writes the same tokens."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from llama_server import llama_server
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from normistral.errors import UserError
from normistral.publish import publish_gguf, publish_model
from normistral.publish.gguf import GGUF_SECTION, OUR_CARDS
from normistral.tokenizer import MASK_ID
from normistral.weights import export_gguf, gguf_export, import_gguf, read_config, read_tensor, tensor_names

PROMPTS = ("Oslo er", "En søt lundefugl flyr", "Engelsk: I like coffee.\nBokmål:")
NEW_TOKENS = 24

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def scaled_folder(tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied, heads wider than width ÷ heads, Llama 3's rotary scaling, two rows that the tokenizer lacks."""
    folder = tmp_path_factory.mktemp("scaled") / "model"
    config = LlamaConfig(
        vocab_size=402,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=256,
        rms_norm_eps=1e-4,
        initializer_range=0.3,
        tie_word_embeddings=True,
        rope_parameters=LLAMA_3_ROPE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copytree(tiny_tokenizer_folder, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(params=["untied mistral", "tied llama with scaled rotary embeddings"])
def folder(request: pytest.FixtureRequest, tiny_model_folder: Path, scaled_folder: Path) -> Path:
    """A model's folder, of two kinds."""
    return tiny_model_folder if request.param == "untied mistral" else scaled_folder


def shortfalls(folder: Path, ids: list[int], written: list[int]) -> torch.Tensor:
    """How far each written token's logit lies below the highest, in transformers: 0 for a greedy choice."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([ids + written])).logits[0, len(ids) - 1 : -1]
    return logits.max(-1).values - logits.gather(1, torch.tensor(written)[:, None])[:, 0]


def broken_copy(folder: Path, place: Path, file: str, **changes: Any) -> Path:
    shutil.copytree(folder, place)
    content = json.loads((place / file).read_text(encoding="utf-8"))
    (place / file).write_text(json.dumps(content | changes), encoding="utf-8")
    return place


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_llama_cpp_writes_the_tokens_that_transformers_writes(
    folder: Path, tmp_path: Path, kind: gguf_export.GgufKind
) -> None:
    export_gguf(folder, tmp_path / "model.gguf", kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with llama_server(tmp_path / "model.gguf") as server:
        for prompt in PROMPTS:
            ids = tokenizer(prompt).input_ids
            assert server.tokenize(prompt) == ids
            written = server.greedy(ids, NEW_TOKENS)
            assert len(written) == NEW_TOKENS or written[-1] == tokenizer.eos_token_id
            lost = shortfalls(folder, ids, written)
            # Of random weights in half precision two logits may come as near as that.
            assert lost.max() <= (0 if kind == "F32" else 0.05)


def test_rounding_to_eight_and_four_bits_moves_the_probabilities_within_bounds(
    taught: Any, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(taught.folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(taught.folder)(taught.prompt + taught.translation).input_ids
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
    divergence = {}
    for kind in ("F32", "Q8_0", "Q4_0"):
        export_gguf(taught.folder, tmp_path / "model.gguf", kind)
        with llama_server(tmp_path / "model.gguf") as server:
            rows = [server.log_probabilities(ids[: place + 1], 400) for place in range(3, len(ids), 4)]
        p = expected[range(3, len(ids), 4)]
        divergence[kind] = float(np.mean((np.exp(p) * (p - np.array(rows))).sum(-1)))
    assert abs(divergence["F32"]) < 1e-4
    assert divergence["Q8_0"] < 0.02
    assert divergence["Q8_0"] < divergence["Q4_0"] < 0.5


def test_a_float32_file_imports_as_the_model_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    if "llama" in read_config(folder)["model_type"]:
        pytest.skip("scaled rotary embeddings are refused by the import")
    export_gguf(folder, tmp_path / "model.gguf", "F32")
    import_gguf(tmp_path / "model.gguf", tmp_path / "back")
    for name in tensor_names(folder):
        assert torch.equal(read_tensor(tmp_path / "back", name), read_tensor(folder, name))
    there, back = (AutoTokenizer.from_pretrained(place) for place in (folder, tmp_path / "back"))
    text = "over de <mask> norske e\u0301 EØS b'test' 1905"
    assert back(text).input_ids == there(text).input_ids
    assert back.mask_token_id == MASK_ID


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_matrices_are_rounded_as_ggml_rounds_whatever_the_blocks(
    scaled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: gguf_export.GgufKind
) -> None:
    monkeypatch.setattr(gguf_export, "BLOCK_ELEMENTS", 64 * 20)  # no divisor of any number of rows
    report = export_gguf(scaled_folder, tmp_path / "model.gguf", kind, threads=3)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert report.tensors == len(tensors) - 1  # the rotary factors are no parameters
    gives_logits = tensors["token_embd.weight"]
    assert gives_logits.tensor_type.name == ("Q8_0" if kind == "Q4_0" else kind)
    for name, source in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
    ):
        values = read_tensor(scaled_folder, source).float().numpy()
        assert np.array_equal(tensors[name].data, quantize(values, tensors[name].tensor_type))
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"


def test_rows_that_no_block_fits_stay_in_half_precision(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    shutil.copytree(tiny_tokenizer_folder, tmp_path / "model", dirs_exist_ok=True)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "Q4_0")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["blk.0.ffn_up.weight"] == "F16"
    assert types["blk.0.ffn_down.weight"] == "Q4_0"


def test_the_file_says_what_the_folder_says(tiny_model_folder: Path, tmp_path: Path) -> None:
    card = "---\nlicense: apache-2.0\nlanguage: [nb, en]\nbase_model: some/base\n---\n\n# tiny-model\n"
    publish_model(tiny_model_folder, tiny_model_folder, tmp_path / "model", "bfloat16", card)
    (report,) = publish_gguf(tmp_path / "model", ("Q8_0",))
    assert report.path == tmp_path / "model" / "tiny-model-Q8_0.gguf"
    assert report.bytes == report.path.stat().st_size
    assert report.parameters == sum(
        read_tensor(tiny_model_folder, n).numel() for n in tensor_names(tiny_model_folder)
    )
    fields = {key: field.contents() for key, field in gguf.GGUFReader(report.path).fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.name": "tiny-model",
        "general.license": "apache-2.0",
        "general.languages": ["nb", "en"],
        "general.base_model.0.repo_url": "https://huggingface.co/some/base",
        "llama.context_length": 128,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.causal": True,
        "llama.rope.freq_base": 100_000.0,
        "llama.vocab_size": 400,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert {key: fields.get(key) for key in expected} == expected
    assert fields["tokenizer.ggml.token_type"][:17] == [3] * 16 + [1]


def test_the_card_lists_the_files_of_the_folder(tiny_model_folder: Path, tmp_path: Path) -> None:
    model, begin, end = tmp_path / "model", "# tiny\n\nOf it.\n\n", f"## Attribution\n\n- {OUR_CARDS} …\n"
    publish_model(tiny_model_folder, tiny_model_folder, model, "bfloat16", begin + end)
    publish_gguf(model, ("F16",), output=tmp_path / "elsewhere.gguf")
    assert (model / "README.md").read_text(encoding="utf-8") == begin + end
    (larger,) = publish_gguf(model, ("F32",))
    (smaller,) = publish_gguf(model, ("Q8_0",))
    rows = "".join(f"| {made.path.name} | {made.bytes / 1e6:.1f} MB |\n" for made in (larger, smaller))
    card = (model / "README.md").read_text(encoding="utf-8")
    assert card == f"{begin}{GGUF_SECTION}| File | Size |\n|---|---:|\n{rows}\n{end}"


def test_a_card_of_others_is_not_touched(tiny_model_folder: Path, tmp_path: Path) -> None:
    model, card = tmp_path / "model", "---\n# a comment\n---\n# Model Card for X\n\n# Usage\n"
    publish_model(tiny_model_folder, tiny_model_folder, model, "bfloat16", card)
    (made,) = publish_gguf(model, ("F16",))
    assert made.path.name == "model-F16.gguf"  # the folder's name: the first heading is no name
    assert (model / "README.md").read_text(encoding="utf-8") == card
    (model / "README.md").write_bytes(b"# caf\xe9\n")
    assert publish_gguf(model, ("F16",))[0].path == made.path


def test_rows_without_a_token_are_marked_as_unused(scaled_folder: Path, tmp_path: Path) -> None:
    export_gguf(scaled_folder, tmp_path / "model.gguf", "F16")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents()[-2:] == ["[PAD400]", "[PAD401]"]
    assert fields["tokenizer.ggml.token_type"].contents()[-3:] == [1, 5, 5]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "RoPE scaling 'yarn'"),
        ("config.json", {"sliding_window": 16}, "sliding window of 16"),
        ("config.json", {"model_type": "qwen2"}, "architecture 'qwen2'"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights"),
        ("config.json", {"vocab_size": 399}, r"400 ids and the model's embeddings 399 rows"),
        ("config.json", {"hidden_size": 32}, "shape"),
        ("tokenizer.json", {"normalizer": {"type": "NFKC"}}, "normaliser NFKC"),
        (
            "tokenizer.json",
            {"pre_tokenizer": {"type": "Whitespace"}},
            "splits text in a way.*known: gpt-2, smollm",
        ),
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "is a Unigram"),
        ("tokenizer.json", {"model": {"type": "BPE", "byte_fallback": True}}, "SentencePiece-like"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_by_name_and_nothing_is_written(
    tiny_model_folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = broken_copy(tiny_model_folder, tmp_path / "model", file, **changes)
    with pytest.raises(UserError, match=message):
        export_gguf(folder, tmp_path / "out" / "model.gguf", "F16")
    assert list(tmp_path.glob("**/*.gguf*")) == []


def test_weights_that_are_no_numbers_or_too_large_are_refused(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    weight = model.model.layers[1].mlp.up_proj.weight
    for value, message in ((1e5, "holds 100000, too large for F16"), (float("nan"), "no numbers")):
        weight.data[3, 5] = value
        model.save_pretrained(tmp_path / "model")
        with pytest.raises(UserError, match=f"up_proj.*{message}"):
            export_gguf(tmp_path / "model", tmp_path / "model.gguf", "F16")
    assert not list(tmp_path.glob("model.gguf*"))


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model.gguf"
    export_gguf(tiny_model_folder, output, "F16")
    before = output.read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gguf_export, "_write_first", fail)
        with pytest.raises(UserError, match=r"no disk space left while writing .*model\.gguf"):
            export_gguf(tiny_model_folder, output, "Q8_0")
    monkeypatch.setattr(gguf_export.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"no room for .*model\.gguf: it needs 0\.00 GB"):
        export_gguf(tiny_model_folder, output, "Q8_0")
    assert output.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


def test_wrong_places_and_kinds_are_said_in_a_sentence(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Q5_K.*F32, F16, BF16, Q8_0, Q4_0"):
        publish_gguf(tiny_model_folder, ("Q5_K",))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="given twice"):
        publish_gguf(tiny_model_folder, ("Q8_0", "Q8_0"))
    with pytest.raises(UserError, match="'org/name' cannot be part of a file's name"):
        publish_gguf(tiny_model_folder, ("Q8_0",), "org/name")
    with pytest.raises(UserError, match="one file and 2 kinds"):
        publish_gguf(tiny_model_folder, ("Q8_0", "Q4_0"), output=tmp_path / "both.gguf")
    with pytest.raises(UserError, match="is a folder"):
        export_gguf(tiny_model_folder, tmp_path, "F16")
    with pytest.raises(UserError, match="nowhere does not exist"):
        publish_gguf(tmp_path / "nowhere", ("Q8_0",))
    (tmp_path / "bare").mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model_folder / file, tmp_path / "bare")
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        publish_gguf(tmp_path / "bare", ("Q8_0",))
