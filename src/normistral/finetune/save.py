"""Write the fine-tuned folder, so that every loader reads it the way it was trained.

The folder is a whole model in plain safetensors, also after LoRA: the base's tensors pass through one at a
time and LoRA's change is added on the way, so that it is in full precision also after training over 4 bits,
and memory holds a shard. `is_causal`, labels and padding stand in its config.json.

    OUT/                  config.json, model.safetensors, tokenizer, finetune.json
      adapter/            LoRA alone: PEFT's adapter …
        base/             … and the base as it needs it: config.json with is_causal and labels, links
      modules.json, 1_Pooling/ …     similarity alone: what makes it a folder of sentence-transformers

An adapter's config can hold neither attention mode nor labels: `AutoPeftModelFor*` takes them from the base
that it names. So it names a base folder of its own, which lies beside it; when that is moved, loading fails
instead of going wrong silently. Where the task's class calls the decoder otherwise than the base does
(question answering by Llama: `transformer.` for `model.`), that folder has a copy with those names instead of
links.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from normistral.finetune.base import DECODER, decoder_prefix
from normistral.finetune.settings import FinetuneSettings
from normistral.finetune.tasks import AnyTask
from normistral.records import write_json
from normistral.weights import StoredTensors, copy_files, read_config, tensor_names, write_model_folder
from normistral.weights.model_folder import write_config

RECORD_FILE = "finetune.json"
ADAPTER, ADAPTER_BASE = "adapter", "base"
LM_HEAD = "lm_head.weight"
WRAPPED = "base_model.model."
"""What PEFT puts before a tensor's name."""
LORA_TENSOR = re.compile(r"(.+)\.lora_([AB])\.weight")

POOLING_FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "config_sentence_transformers.json": {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}


def save_finetuned(
    model: Any,
    task: AnyTask,
    settings: FinetuneSettings,
    base: Path,
    config: Any,
    max_length: int,
    record: dict[str, Any],
    output: Path,
) -> None:
    """Write a fine-tuned model, whole or not at all.

    Args:
        model: as trained, with LoRA's layers if there are any.
        task: with its labels.
        settings: method and precision.
        base: folder that training began from.
        config: that the model was built from.
        max_length: tokens of a row at most, for sentence-transformers.
        record: what finetune.json is to hold.
        output: the folder; an earlier model there is replaced.

    Raises:
        UserError: if `output` holds other things, or the disk is full.
    """
    stored = read_config(base)
    dtype_name: str = settings.save_dtype
    if dtype_name == "auto":
        dtype_name = str(stored.get("dtype") or stored.get("torch_dtype") or "float32")
    dtype = getattr(torch, dtype_name)
    written = _config(stored, config, task, dtype_name)
    prefix = decoder_prefix(config, task)
    if settings.method == "full":
        tensors = _trained_tensors(model, task, base, prefix)
    else:
        tensors = _merged_tensors(model, base, task, prefix)

    def add_files(folder: Path) -> None:
        copy_files(base, folder)
        _pad_on_the_right(folder, task)
        write_json(folder / RECORD_FILE, record)
        if task.name == "sentence-similarity":
            _add_pooling(folder, int(written["hidden_size"]), max_length)
        if settings.method != "full":
            _add_adapter(model, base, folder / ADAPTER, output.resolve() / ADAPTER, written, prefix)

    write_model_folder(
        output, written, ((name, tensor.to(dtype)) for name, tensor in tensors), add_files=add_files
    )


def _config(stored: dict[str, Any], config: Any, task: AnyTask, dtype: str) -> dict[str, Any]:
    kind = type(config).__name__.removesuffix("Config")
    dropped = ("auto_map", "torch_dtype", "quantization_config")
    written = {key: value for key, value in stored.items() if key not in dropped}
    written |= {
        "architectures": [f"{kind}{task.architecture}"],
        "is_causal": config.is_causal,
        "pad_token_id": config.pad_token_id,
        "dtype": dtype,
    }
    if task.labels:
        written |= {
            "id2label": {str(number): label for number, label in enumerate(task.labels)},
            "label2id": {label: number for number, label in enumerate(task.labels)},
        }
    return written


def _trained_tensors(model: Any, task: AnyTask, base: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    added = "" if any(name.startswith(prefix) for name in model.state_dict()) else prefix
    for name, tensor in model.state_dict().items():
        yield added + name, tensor.detach().cpu()
    if task.name == "sentence-similarity" and LM_HEAD in tensor_names(base):
        with StoredTensors(base) as stored:  # so that the folder still loads as what its class says
            yield LM_HEAD, stored.read(LM_HEAD)


def _merged_tensors(model: Any, base: Path, task: AnyTask, prefix: str) -> Iterator[tuple[str, Tensor]]:
    from peft import get_peft_model_state_dict

    adapter = model.peft_config["default"]
    scale = adapter.lora_alpha / adapter.r
    factors: dict[str, dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in get_peft_model_state_dict(model).items():
        name = name.removeprefix(WRAPPED)
        found = LORA_TENSOR.fullmatch(name)
        if found:
            target = DECODER + found[1].removeprefix(prefix)
            factors.setdefault(f"{target}.weight", {})[found[2]] = tensor.float().cpu()
        else:
            head[name] = tensor.detach().cpu()
    with StoredTensors(base) as stored:
        for name in stored.files:
            if name == LM_HEAD and task.architecture != "ForCausalLM":
                continue
            tensor = stored.read(name)
            pair = factors.pop(name, None)
            merged = tensor if pair is None else tensor.float() + scale * (pair["B"] @ pair["A"])
            yield _renamed(name, prefix), merged
    assert not factors, f"LoRA changed {next(iter(factors))}, which the base does not have"
    yield from head.items()


def _renamed(name: str, prefix: str) -> str:
    """The name of a tensor of the base in the task's class."""
    return prefix + name.removeprefix(DECODER) if name.startswith(DECODER) else name


def _pad_on_the_right(folder: Path, task: AnyTask) -> None:
    """Encoders pad on the right; a model that writes keeps the base's side."""
    file = folder / "tokenizer_config.json"
    if task.name == "causal" or not file.is_file():
        return
    settings = json.loads(file.read_text(encoding="utf-8"))
    write_json(file, settings | {"padding_side": "right"})


def _add_pooling(folder: Path, width: int, max_length: int) -> None:
    for name, content in POOLING_FILES.items():
        write_json(folder / name, content)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )


def _add_adapter(
    model: Any, base: Path, folder: Path, final: Path, config: dict[str, Any], prefix: str
) -> None:
    adapter = model.peft_config["default"]
    named_before = adapter.base_model_name_or_path
    adapter.base_model_name_or_path = str(final / ADAPTER_BASE)
    try:
        model.save_pretrained(folder, save_embedding_layers=False)
    finally:
        adapter.base_model_name_or_path = named_before
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template, with nothing filled in
    copy_files(base, folder)
    own = folder / ADAPTER_BASE
    stored_dtype = read_config(base).get("dtype") or read_config(base).get("torch_dtype")
    own_config = config | {"dtype": stored_dtype or "float32"}
    if prefix == DECODER:
        own.mkdir()
        write_config(own, own_config)
        for file in {*tensor_names(base).values(), *base.glob("model.safetensors.index.json")}:
            (own / file.name).symlink_to(file.resolve())
    else:
        with StoredTensors(base) as stored:
            copied = ((_renamed(name, prefix), stored.read(name)) for name in stored.files if name != LM_HEAD)
            write_model_folder(own, own_config, copied)
    copy_files(base, own)
