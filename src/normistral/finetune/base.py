"""Load a base model with a task's head, to be trained: all of it, by LoRA, or by LoRA over 4 bits.

Trained weights are float32 whatever the base is stored in; what LoRA leaves alone stays in the precision of
the computation. The attention mode is set in the config that the model is built from, where every head of
`transformers` looks for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase

from normistral.errors import UserError
from normistral.finetune.settings import FinetuneSettings
from normistral.finetune.tasks import AnyTask
from normistral.inference.load import HUB_PREFIX
from normistral.inference.quantise import require_packages
from normistral.weights import check_architecture, read_config, tensor_names

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What LoRA changes. (PEFT's "all-linear" takes the head too, which is trained in full, and fails.)"""
DECODER = "model."
"""What stands before the names of a stored decoder's tensors."""


def base_folder(model: str) -> Path:
    """The folder of a base model, fetched first where a hub id was given (`hub:ORG/NAME`, or `ORG/NAME` where
    there is no such folder).

    Raises:
        UserError: if it is no folder that can be trained from.
    """
    folder = Path(model)
    if model.startswith(HUB_PREFIX):
        folder = _fetched(model.removeprefix(HUB_PREFIX))
    elif not folder.exists() and model.count("/") == 1 and not model.startswith((".", "/")):
        folder = _fetched(model)
    hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / "config.json").is_file() else ""
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no model folder: it has no config.json{hint}")
    check_architecture(read_config(folder), str(folder))
    tensor_names(folder)
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} has no tokenizer.json: copy the tokenizer's files into it")
    return folder


def load_tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """A folder's tokenizer."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer


def pad_id_of(tokenizer: Any) -> int:
    """What rows are filled with: the padding token, or the end of text where a base has none."""
    for number in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if number is not None:
            return int(number)
    raise AssertionError("0 is a number")


def chosen_device(device: str) -> str:
    """`auto` resolved.

    Raises:
        UserError: if a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UserError("--device cuda: there is no GPU, or torch is built without it; use --device cpu")
    return ("cuda" if has_gpu else "cpu") if device == "auto" else device


def task_config(folder: Path, task: AnyTask, attention: str, pad_id: int) -> Any:
    """The config of the model to be trained, which is also what is saved.

    Args:
        folder: of the base.
        task: with its labels.
        attention: `causal` or `bidirectional`.
        pad_id: the padding token, which classification needs to find a row's last token.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.is_causal = attention == "causal"
    config.pad_token_id = pad_id
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: number for number, label in enumerate(task.labels)}
    return config


def decoder_prefix(config: Any, task: AnyTask) -> str:
    """What stands before the names of the decoder's tensors in the library's class for a task: `model.`, as
    in the base, but for question answering by Llama, which calls it `transformer.`

    Args:
        config: of the model.
        task: of any labels.
    """
    kind = type(config).__name__.removesuffix("Config")
    return f"{getattr(transformers, kind + task.architecture).base_model_prefix}."


def load_for_training(
    folder: Path, config: Any, task: AnyTask, settings: FinetuneSettings, dtype: torch.dtype
) -> Any:
    """A model with the task's head, its weights that are to be trained in float32.

    Args:
        folder: of the base.
        config: from `task_config`.
        task: with its labels.
        settings: method, LoRA, seed, device.
        dtype: precision of the computation.

    Raises:
        UserError: if a library is missing, or the folder lacks tensors.
    """
    options: dict[str, Any] = {}
    device = chosen_device(settings.device)
    if settings.method == "lora-4bit":
        options["quantization_config"] = four_bits(task)
        options["device_map"] = {"": device}
    prefix = decoder_prefix(config, task)
    if prefix != DECODER:
        options["key_mapping"] = {f"^{re.escape(DECODER)}": prefix}
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model, report = task.auto_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32 if settings.method == "full" else dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        missing = [name for name in sorted(report["missing_keys"]) if name.split(".")[0] not in task.head]
        if missing:
            raise UserError(
                f"model {folder} lacks {len(missing)} tensors, the first is {missing[0]}; get it anew"
            )
        if prefix != DECODER:
            del model._weight_conversions  # else checkpoints have the base's names, which are not read again
        if settings.method == "lora-4bit":
            keep_differentiable(model)
        if settings.method != "full":
            model = _with_lora(model, task, settings)
    if settings.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model if "device_map" in options else model.to(device)


def four_bits(task: AnyTask) -> BitsAndBytesConfig:
    """nf4 weights with bfloat16 products; the task's head is left alone.

    Raises:
        UserError: if bitsandbytes is missing.
    """
    require_packages("4bit loading")
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", *task.head],
    )


def keep_differentiable(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU.

    Its layers do so at the first forward pass in evaluation mode, for good, into a form whose product has no
    gradient: after the first measuring, training would silently go on without what flows back through them.

    Args:
        model: with 4-bit layers, before its first forward pass.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _with_lora(model: Any, task: AnyTask, settings: FinetuneSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type=task.peft_type,
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=list(PROJECTIONS),
        ),
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model {model} is neither a folder here nor could it be fetched from the hub: {reason}"
        ) from error
