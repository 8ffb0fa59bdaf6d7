"""Load a model folder (or a hub id) with `transformers`, in full or lower precision, to write or to read.

What users hit most is settled here: precision comes from the checkpoint, 8- and 4-bit go through
`BitsAndBytesConfig` with good settings (nf4, bfloat16 compute; the library's defaults are fp4 and float32),
no code of the folder is ever run, tensors missing from the folder are refused instead of left random, and a
folder's own sampling defaults do not change what `generate` was asked for.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as progress_bars

from normistral.errors import UserError
from normistral.inference.leak import future_leak
from normistral.weights import read_config, tensor_names

Mode = Literal["causal", "bidirectional"]
Quantization = Literal["8bit", "4bit"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

HUB_PREFIX = "hub:"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

NOISY_LOGGERS = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")
"""bitsandbytes warns at each int8 product that it casts, and at import that an optional kernel is missing."""

PROBE_IDS = tuple(range(8))
"""Token ids that the probe of the attention's direction is made with; any ids do."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for `generate` and `fill_mask`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device


def load(
    path: str | Path,
    dtype: str = "auto",
    quantize: Quantization | None = None,
    device: str = "auto",
    mode: Mode = "causal",
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        path: a model folder, or a hub id (`hub:ORG/NAME`, or `ORG/NAME` where no such folder exists).
        dtype: `auto` (as the checkpoint; with `quantize`, bfloat16), `float32`, `bfloat16` or `float16`.
        quantize: `8bit` (int8) or `4bit` (nf4 with bfloat16 compute) weights, on GPU and on CPU alike;
            embeddings and LM head stay as they are.
        device: `auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1` …
        mode: what a plain call of the model does; `bidirectional` is for encoding. `generate` and
            `fill_mask` ask for the attention they need in either mode.

    Returns:
        The model in evaluation mode, the tokenizer, and the device they work on.

    Raises:
        UserError: if the folder is missing, no model folder or damaged, an argument is none of the above,
            CUDA or bitsandbytes is missing, or the model does not fit into the GPU's memory.

    Example:
        >>> loaded = load("runs/quickstart/model")  # doctest: +SKIP
    """
    location = _location(path)
    if mode not in ("causal", "bidirectional"):
        raise UserError(f"mode '{mode}' is not known: expected 'causal' or 'bidirectional'")
    chosen_device = _device(device)
    chosen_dtype = _dtype(dtype, quantize)
    quantization = _quantization(quantize)
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        config.is_causal = mode == "causal"
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
        with _bar_on_terminals_alone():
            model = _load_model(location, config, chosen_dtype, quantization, chosen_device)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"model {path} does not fit into the memory of {chosen_device}: "
            "quantize it to '8bit' or '4bit', or load it on the device 'cpu'"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(_cannot_load(path, error)) from error
    if not tokenizer.is_fast:
        raise UserError(f"model {path} has no tokenizer.json: save its tokenizer with a fast tokenizer")
    if mode == "bidirectional" and future_leak(model, PROBE_IDS) == 0.0:
        raise UserError(
            f"model {path} stays causal when asked to be bidirectional: its architecture "
            f"'{config.model_type}' does not listen to is_causal; load it with mode 'causal'"
        )
    return LoadedModel(model, tokenizer, chosen_device)


def _load_model(
    location: str,
    config: PreTrainedConfig,
    dtype: torch.dtype | Literal["auto"],
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
) -> PreTrainedModel:
    placement: dict[str, Any] = {}
    already_quantised = getattr(config, "quantization_config", None) is not None
    if quantization is not None or already_quantised:
        placement["device_map"] = {"": str(device)}
    if quantization is not None:
        placement["quantization_config"] = quantization
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        location,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **placement,
    )
    model: PreTrainedModel
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{len(missing)} tensors are missing from its safetensors, the first is {missing[0]}"
        )
    if not placement:
        model.to(device)  # type: ignore[arg-type]
    own: Any = model.generation_config
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    return model


def _location(path: str | Path) -> str:
    """What `transformers` is to load, after the faults that it would report less plainly."""
    name = str(path)
    if name.startswith(HUB_PREFIX):
        return name.removeprefix(HUB_PREFIX)
    folder = Path(path)
    if not folder.exists():
        if isinstance(path, str) and HUB_ID.fullmatch(name) and not name.startswith("."):
            return name
        raise UserError(
            f"model folder {folder} does not exist: give a folder with config.json, or hub:ORG/NAME"
        )
    if not folder.is_dir():
        raise UserError(
            f"model {folder} is a file: expected a folder with config.json, *.safetensors and tokenizer.json"
        )
    if not (folder / "config.json").is_file():
        hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / "config.json").is_file() else ""
        raise UserError(f"{folder} is no model folder: it has no config.json{hint}")
    read_config(folder)  # these two complain of damaged and of missing files by name
    tensor_names(folder)
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} is no model folder: it has no tokenizer.json; copy the tokenizer's files into it"
        )
    return str(folder)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device '{device}' is not known: expected auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"device '{device}' needs a GPU and a torch built for it, and there is none: use 'cpu'"
            )
        if chosen.index is not None and chosen.index >= torch.cuda.device_count():
            raise UserError(
                f"device '{device}' does not exist: there are {torch.cuda.device_count()} GPUs, from cuda:0"
            )
    return chosen


def _dtype(dtype: str, quantize: str | None) -> torch.dtype | Literal["auto"]:
    if dtype == "auto":
        return "auto" if quantize is None else torch.bfloat16
    if dtype not in DTYPES:
        raise UserError(f"dtype '{dtype}' is not known: expected auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _quantization(quantize: str | None) -> BitsAndBytesConfig | None:
    if quantize is None:
        return None
    if quantize not in ("8bit", "4bit"):
        raise UserError(f"quantize '{quantize}' is not known: expected '8bit' or '4bit'")
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{quantize} loading needs {package}, which is not installed: "
                "pip install 'normistral[quantise]'"
            )
    for noisy in NOISY_LOGGERS:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


@contextmanager
def _bar_on_terminals_alone() -> Iterator[None]:
    """Keep the library's progress bar out of logs."""
    if sys.stderr.isatty() or not progress_bars.is_progress_bar_enabled():
        yield
        return
    progress_bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        progress_bars.enable_progress_bar()  # type: ignore[no-untyped-call]


def _cannot_load(path: str | Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if isinstance(path, str) and not Path(path).exists():
        return f"model {path} is neither a folder here nor could it be fetched from the hub: {reason}"
    return f"model {path} cannot be loaded: {reason}"
