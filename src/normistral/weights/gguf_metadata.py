"""The metadata of an exported GGUF file: the model's shape, its tokenizer, what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import yaml

from normistral.errors import UserError
from normistral.weights.gguf_tokenizer import TOKENIZER_JSON
from normistral.weights.gguf_vocabulary import GgufVocabulary
from normistral.weights.model_folder import check_architecture

CARD_FILE = "README.md"


def check_config(model: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with everything written out that GGUF needs.

    Args:
        model: the folder, for messages.
        config: its parsed config.json.

    Raises:
        UserError: naming what a GGUF file of the architecture `llama` cannot hold.
    """
    check_architecture(config, f"model {model}")
    for key in (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("max_position_embeddings", "rms_norm_eps"),
    ):
        if key not in config:
            raise UserError(f"model {model}: config.json has no '{key}'; give a complete model folder")
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    rope["rope_theta"] = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    window = config.get("sliding_window")
    cannot = {
        f"activation '{config.get('hidden_act')}'": config.get("hidden_act", "silu") not in ("silu", "swish"),
        "attention_bias: true": config.get("attention_bias"),
        "mlp_bias: true": config.get("mlp_bias"),
        f"RoPE scaling '{rope['rope_type']}'": rope["rope_type"] not in ("default", "llama3"),
        f"a sliding window of {window} tokens": window is not None
        and window < config["max_position_embeddings"],
    }
    for what, is_so in cannot.items():
        if is_so:
            raise UserError(f"model {model} has {what}, which GGUF export does not support")
    heads = config["num_attention_heads"]
    return {
        **config,
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "rope_parameters": rope,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def add_metadata(
    writer: gguf.GGUFWriter,
    model: Path,
    config: dict[str, Any],
    vocabulary: GgufVocabulary,
    kind: str,
    name: str,
) -> None:
    """Put everything but tensors into a GGUF file.

    Args:
        writer: of the file.
        model: the folder; the front matter of its README.md gives licence, languages and base.
        config: as `check_config` gives it.
        vocabulary: as `gguf_vocabulary` gives it.
        kind: precision of the matrices, one of `GGUF_KINDS`.
        name: what the model is called.
    """
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    _add_card(writer, model)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_causal_attention(bool(config.get("is_causal", True)))
    file_type = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, vocabulary)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: GgufVocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    add_role = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
        "mask": writer.add_mask_token_id,
    }
    for role, token_id in vocabulary.roles.items():
        add_role[role](token_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    writer.add_add_space_prefix(False)
    writer.add_string(TOKENIZER_JSON, vocabulary.tokenizer_json)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _add_card(writer: gguf.GGUFWriter, model: Path) -> None:
    card = _front_matter(model / CARD_FILE)
    if isinstance(card.get("license"), str):
        writer.add_license(card["license"])
    languages = card.get("language")
    if isinstance(languages, str):
        languages = [languages]
    if languages and all(isinstance(language, str) for language in languages):
        writer.add_languages(languages)
    base = card.get("base_model")
    if isinstance(base, str):
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, base.rsplit("/", 1)[-1])
        if base.count("/") == 1:
            writer.add_base_model_repo_url(0, f"https://huggingface.co/{base}")


def _front_matter(card: Path) -> dict[str, Any]:
    """The YAML at the head of a model card; nothing where there is none that can be read."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    parts = text.split("---\n", 2)
    if len(parts) != 3 or parts[0].strip():
        return {}
    try:
        content = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
