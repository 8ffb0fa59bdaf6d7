"""What `normistral finetune` can be told; the docstrings are the reference (docs/finetune.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from normistral.recipe.settings import Settings, Share

TaskName = Literal[
    "text-classification", "token-classification", "question-answering", "sentence-similarity", "causal"
]
Attention = Literal["causal", "bidirectional"]
Method = Literal["full", "lora", "lora-4bit"]
Subtoken = Literal["first", "last"]


class FinetuneSettings(Settings):
    """Everything that decides what a fine-tuned model becomes, and where it is made."""

    model: str
    """Folder of a published model in full precision, or a hub id."""
    task: TaskName
    """What it is to learn."""
    data: Path
    """Training examples: .jsonl, .csv, .tsv, .conllu (a .gz or .zst of them too)."""
    out: Path
    """Folder to write."""
    dev: Path | None = None
    """Examples that decide when to stop; without them `dev_share` of the training examples are held out."""
    dev_share: Share = 0.1
    """Share of the training examples held out where no `dev` is given; 0: train to the end, keep the last."""
    test: Path | None = None
    """Examples to measure the saved folder on, once."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Names that the file's fields have, by ours: {"text": "review", "label": "sentiment"}."""

    attention: Attention | None = None
    """Default: bidirectional; for the task `causal`, causal."""
    label_subtoken: Subtoken | None = None
    """Which sub-token of a word carries its label; default: the first, with causal attention the last."""
    method: Method = "full"
    """All weights; LoRA; or LoRA over a base held in 4 bits."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the two factors of each projection's change."""
    lora_alpha: int = Field(32, ge=1)
    """The change is scaled by alpha / rank."""
    lora_dropout: Share = 0.05
    """Dropout before the first factor."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training examples at most."""
    max_steps: int | None = Field(None, ge=1)
    """Steps at most; overrides `epochs`."""
    batch_size: int = Field(16, ge=1)
    """Examples a forward pass."""
    accumulate: int = Field(1, ge=1)
    """Forward passes a step."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak; default 5e-5 for all weights, 2e-4 for LoRA."""
    warmup_share: Share = 0.1
    """Share of the steps in which the learning rate rises; it falls linearly to 0 after."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    patience: int = Field(3, ge=1)
    """Measurements on the dev examples without improvement after which training stops."""
    measure_every: int | None = Field(None, ge=1)
    """Steps between measurements (and checkpoints); default: an epoch."""
    max_length: int | None = Field(None, ge=8)
    """Tokens of an example at most; default 512, or the model's context where that is shorter."""
    recompute: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    seed: int = 0
    """Of the head's first weights, the order of the examples and dropout."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; auto: bfloat16 where it is faster. Trained weights are float32."""
    save_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the saved weights; auto: the base's."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""

    @property
    def resolved_attention(self) -> Attention:
        """The attention mode, with the default filled in."""
        return self.attention or ("causal" if self.task == "causal" else "bidirectional")

    @property
    def resolved_learning_rate(self) -> float:
        """The peak learning rate, with the default filled in."""
        return self.learning_rate or (5e-5 if self.method == "full" else 2e-4)

    @property
    def resolved_subtoken(self) -> Subtoken:
        """The sub-token that carries a word's label: a causal reader has seen the whole word only at its
        last."""
        return self.label_subtoken or ("first" if self.resolved_attention == "bidirectional" else "last")
