"""Load a fine-tuned folder as any user of `transformers` would; check that it reads as it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from normistral.errors import UserError
from normistral.finetune.base import chosen_device, four_bits, load_tokenizer_of, pad_id_of
from normistral.finetune.direction import check_direction
from normistral.finetune.encoder import Encoder
from normistral.finetune.quiet import quiet_library
from normistral.finetune.save import RECORD_FILE
from normistral.finetune.tasks import AnyTask, task_from
from normistral.records import read_json


@dataclass(frozen=True)
class FinetunedModel:
    """A fine-tuned model, ready to answer."""

    model: Any
    task: AnyTask
    encoder: Encoder
    record: dict[str, Any]
    """What finetune.json holds."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The folder's tokenizer."""
        tokenizer: PreTrainedTokenizerBase = self.encoder.tokenizer
        return tokenizer


def load_finetuned(
    folder: str | Path,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    quantize: Literal["4bit"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> FinetunedModel:
    """Load what `normistral finetune` has written.

    Args:
        folder: its --out.
        dtype: precision; `auto` as stored.
        quantize: `4bit` holds the projections in nf4.
        device: where to put it.

    Raises:
        UserError: if it is no such folder, or reads another way than it was trained.

    Example:
        >>> tagger = load_finetuned("runs/tagger")  # doctest: +SKIP
    """
    with quiet_library():
        return _load(Path(folder), dtype, quantize, device)


def _load(folder: Path, dtype: str, quantize: str | None, device: str) -> FinetunedModel:
    if not (folder / RECORD_FILE).is_file():
        raise UserError(
            f"{folder} is no fine-tuned folder: it has no {RECORD_FILE}; "
            "give the --out of normistral finetune"
        )
    record = read_json(folder / RECORD_FILE)
    task = task_from(record["task"], record["facts"])
    options: dict[str, Any] = {}
    place = chosen_device(device)
    if quantize:
        options = {"quantization_config": four_bits(task), "device_map": {"": place}}
        dtype = "bfloat16" if dtype == "auto" else dtype
    model, report = task.auto_class.from_pretrained(
        folder,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    if report["missing_keys"]:
        raise UserError(f"{folder} lacks the tensor {min(report['missing_keys'])}; make it anew")
    if not options:
        model.to(place)
    model.eval()
    tokenizer = load_tokenizer_of(folder)
    check_direction(model, record["attention"], f"the saved model {folder}")
    encoder = Encoder(tokenizer, record["max_length"], pad_id_of(tokenizer))
    return FinetunedModel(model, task, encoder, record)
