"""Load a model folder (or a hub id) with `transformers`, in full or lower precision, to write or to read.

What users hit most is settled here: precision comes from the checkpoint, 8- and 4-bit have good settings
(`quantise`), no code of the folder is ever run, tensors missing from the folder are refused instead of left
random, and a folder's own sampling defaults do not change what `generate` was asked for. Every model is
probed before it is handed out: asked to be causal it must not see the future, asked to be bidirectional it
must.

Shards are mapped, not read: memory holds what the model is made of, and of full weights not even that until
they are used.
"""

from __future__ import annotations

import re
import sys
import threading
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
from normistral.inference.leak import is_leaky, probe_attention
from normistral.inference.memory import LoadReport, LoadWatch
from normistral.inference.quantise import (
    Quantization,
    quantization_settings,
    require_packages,
    stored_quantization,
)
from normistral.weights import read_config, tensor_names

Mode = Literal["causal", "bidirectional"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

HUB_PREFIX = "hub:"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for `generate`, `fill_mask` and the rest; several threads may use it, one at a time."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    report: LoadReport | None = None
    """What loading it took."""
    quantised_before: bool = False
    """Whether the folder's weights were in 8 or 4 bits already."""

    @property
    def mode(self) -> Mode:
        """What a plain call of the model does."""
        return "causal" if getattr(self.model.config, "is_causal", True) else "bidirectional"


def load(
    path: str | Path,
    dtype: str = "auto",
    quantize: Quantization | None = None,
    device: str = "auto",
    mode: Mode | Literal["auto"] = "auto",
    attention: str = "auto",
    probe: bool = True,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        path: a model folder, or a hub id (`hub:ORG/NAME`, or `ORG/NAME` where no such folder exists).
        dtype: `auto` (as the checkpoint; with `quantize`, bfloat16), `float32`, `bfloat16` or `float16`.
        quantize: `8bit` (int8) or `4bit` (nf4 with bfloat16 compute) weights, on GPU and on CPU alike;
            embeddings and LM head stay as they are.
        device: `auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1` …
        mode: what a plain call of the model does: `causal`, `bidirectional` (for encoding), or `auto`, as the
            folder says (causal unless it was fine-tuned to read both ways). `generate`, `fill_mask`, `embed`
            and `score_texts` ask for the attention they need in either mode.
        attention: which implementation: `auto`, `sdpa`, `eager`, or on a GPU what else `transformers` knows.
        probe: see what the model's attention does before it is handed out (six short forward passes).

    Returns:
        The model in evaluation mode, the tokenizer, and the device they work on.

    Raises:
        UserError: if the folder is missing, no model folder or damaged, an argument is none of the above,
            CUDA or bitsandbytes is missing, the model does not fit into the GPU's memory, or its attention
            is not what was asked for.

    Example:
        >>> loaded = load("runs/quickstart/model")  # doctest: +SKIP
    """
    location = _location(path)
    if mode not in ("auto", "causal", "bidirectional"):
        raise UserError(f"mode '{mode}' is not known: expected 'auto', 'causal' or 'bidirectional'")
    chosen_device = _device(device)
    _check_attention_name(attention, chosen_device)
    chosen_dtype = _dtype(dtype, quantize)
    quantization = quantization_settings(quantize)
    with LoadWatch(chosen_device) as watch:
        try:
            config = AutoConfig.from_pretrained(location, trust_remote_code=False)
            _check_is_language_model(config)
            stored = stored_quantization(config)
            if mode != "auto":
                config.is_causal = mode == "causal"
            tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
            if stored:
                _check_agreement(path, stored, quantize)
                quantization = None  # the folder says it itself
            with bar_on_terminals_alone():
                model = _load_model(location, config, chosen_dtype, quantization, chosen_device, attention)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"model {path} does not fit into the memory of {chosen_device}: "
                "quantize it to '8bit' or '4bit', or load it on the device 'cpu'"
            ) from error
        except UserError as error:
            raise UserError(f"model {path} cannot be loaded: {error}") from error
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            RuntimeError,
            ImportError,
            SafetensorError,
        ) as error:
            raise UserError(_cannot_load(path, error)) from error
        if not tokenizer.is_fast:
            raise UserError(f"model {path} has no tokenizer.json: save its tokenizer with a fast tokenizer")
        _one_thread_at_a_time(model)
        if probe:
            _check_directions(path, model)
        report = watch.report(model)
    return LoadedModel(model, tokenizer, chosen_device, report, stored is not None)


def _check_directions(path: str | Path, model: PreTrainedModel) -> None:
    """Refuse a model that does not attend as it is asked to."""
    try:
        leak = probe_attention(model)
    except UserError as error:
        raise UserError(f"model {path} cannot be used: {error}") from None
    if leak.bidirectional == 0.0:
        raise UserError(
            f"model {path} stays causal when asked to be bidirectional: its architecture "
            f"'{model.config.model_type}' does not listen to is_causal; use it with plain transformers"
        )
    if is_leaky(leak):
        raise UserError(
            f"model {path} sees the future when asked to be causal (an earlier logit moves by "
            f"{leak.causal:.2g} when the last token changes): update transformers, or take another attention "
            "implementation"
        )


def _check_is_language_model(config: PreTrainedConfig) -> None:
    """Refuse a fine-tuned classifier, whose tied LM head would load without a word."""
    for kind in getattr(config, "architectures", None) or ():
        if kind.endswith(("ForTokenClassification", "ForSequenceClassification", "ForQuestionAnswering")):
            raise UserError(
                f"it was fine-tuned to answer, not to write ({kind}): use normistral predict, or "
                "normistral.finetune.load_finetuned in Python"
            )


def _one_thread_at_a_time(model: PreTrainedModel) -> None:
    """Put a lock around each forward pass: `transformers` turns `is_causal=…` of a call into a passing change
    of the model's config, which a call in another thread would take for its own."""
    lock = threading.RLock()
    decoder: Any = model.base_model
    decoder.register_forward_pre_hook(lambda *_: lock.acquire() and None)
    decoder.register_forward_hook(lambda *_: lock.release(), always_call=True)


def _load_model(
    location: str,
    config: PreTrainedConfig,
    dtype: torch.dtype | Literal["auto"],
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
    attention: str,
) -> PreTrainedModel:
    placement: dict[str, Any] = {}
    already_quantised = getattr(config, "quantization_config", None) is not None
    if quantization is not None or already_quantised:
        placement["device_map"] = {"": str(device)}
    if quantization is not None:
        placement["quantization_config"] = quantization
    if attention != "auto":
        placement["attn_implementation"] = attention
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
    if "device_map" not in placement:
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


def _check_agreement(path: str | Path, stored: Quantization, quantize: str | None) -> None:
    """A folder in 8 or 4 bits needs no settings, only the packages."""
    if quantize not in (None, stored):
        raise UserError(f"its weights are in {stored} already: leave quantize out, or load the full weights")
    require_packages(f"{path}, whose weights are in {stored},")


def _check_attention_name(attention: str, device: torch.device) -> None:
    if attention == "flex_attention" and device.type == "cpu":
        raise UserError(
            "attention 'flex_attention' ends the process on a CPU (a fault of torch): take 'sdpa' or 'eager'"
        )


@contextmanager
def bar_on_terminals_alone() -> Iterator[None]:
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
