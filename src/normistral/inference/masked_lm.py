"""The model as a masked language model: `AutoModelForMaskedLM` for the same weights that write.

The model was trained to predict a masked token from the position before it. This class reads with full
attention and moves the logits one place to the right, so that the logits at a `<mask>` are its own
prediction, as every tool for masked language models expects (the `fill-mask` pipeline, the collator for
masked language modelling, `Trainer`). Labels are not shifted.

The file stands alone on `transformers`, because a published folder carries a copy of it (config.json names it
for `AutoModelForMaskedLM` and for nothing else; writing needs none of it). Weights and config are those of
`MistralForCausalLM`: full attention is asked for in each call and not written into the config, so that a
folder saved from this class still writes causally.

Shapes: B texts, T positions, V vocabulary.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch.nn.functional import cross_entropy
from transformers import MistralForCausalLM
from transformers.modeling_outputs import MaskedLMOutput

if Version(transformers.__version__) < Version("5.2"):
    raise ImportError(
        f"NorMistralForMaskedLM needs transformers 5.2 or later; {transformers.__version__} does not "
        "listen to is_causal, and would read padded texts causally without a word"
    )

MODELLING_FILE = "modeling_normistral.py"
"""What this file is called in a model's folder."""


class NorMistralForMaskedLM(MistralForCausalLM):  # type: ignore[no-untyped-call]
    """`MistralForCausalLM` that reads both ways; the logits at position i are the prediction of token i."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Predict every token with both sides in sight.

        Args:
            input_ids: [B, T]; texts begin with a start token, from which a mask in first place is predicted.
            attention_mask: [B, T], 1 for tokens and 0 for padding, on either side.
            position_ids: [B, T]; not needed, since only distances count.
            inputs_embeds: [B, T, D] in place of `input_ids`.
            labels: [B, T], the tokens that were masked, and −100 elsewhere; the first position has no
                prediction and is left out.
            num_items_in_batch: divides the summed loss, where `Trainer` accumulates gradients.
            output_hidden_states: also return them.
            output_attentions: also return them.
            return_dict: False returns a tuple.

        Raises:
            ValueError: if a text begins with `<mask>`, and nothing stands before it.
        """
        if input_ids is not None and labels is None:
            self._check_first_tokens(input_ids, attention_mask)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            is_causal=False,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        logits_BTV = self.lm_head(outputs.last_hidden_state)
        # Nothing predicts the first token: all tokens are equally likely there.
        logits_BTV = torch.cat([torch.zeros_like(logits_BTV[:, :1]), logits_BTV[:, :-1]], dim=1)
        loss = None
        if labels is not None:
            labels_BT = labels.to(logits_BTV.device).clone()
            labels_BT[:, 0] = -100
            loss = cross_entropy(
                logits_BTV.flatten(0, 1).float(),
                labels_BT.flatten(),
                reduction="mean" if num_items_in_batch is None else "sum",
            )
            if num_items_in_batch is not None:
                loss = loss / num_items_in_batch
        output = MaskedLMOutput(
            loss=loss,
            logits=logits_BTV,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output.to_tuple() if return_dict is False else output

    def _check_first_tokens(self, tokens_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> None:
        mask_id = getattr(self.config, "mask_token_id", None)
        if mask_id is None:
            return
        first_B = tokens_BT[:, 0]
        if mask_BT is not None and mask_BT.dim() == 2:
            first_B = tokens_BT.gather(1, mask_BT.long().argmax(dim=1, keepdim=True))[:, 0]
        if bool((first_B == mask_id).any()):
            raise ValueError(
                "a text begins with <mask> and nothing stands before it to predict it from: "
                "put the start token or a word first"
            )

    def save_pretrained(self, save_directory: Any, *rest: Any, **options: Any) -> None:
        """Write a folder that writes and reads as the one it was loaded from, with this file in it.

        Args:
            save_directory: the folder.
            rest: as `options`.
            options: of `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, *rest, **options)
        folder = Path(save_directory)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # Readers that know no auto_map (llama.cpp, vLLM) go by the architecture: the weights are a writer's.
        config["architectures"] = [MistralForCausalLM.__name__]
        config["auto_map"] = {"AutoModelForMaskedLM": f"{Path(MODELLING_FILE).stem}.{type(self).__name__}"}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if Path(__file__).resolve() != (folder / MODELLING_FILE).resolve():
            shutil.copyfile(__file__, folder / MODELLING_FILE)

    @classmethod
    def can_generate(cls) -> bool:
        """No: `AutoModelForCausalLM` loads the same folder to write."""
        return False

    def generate(self, *_: Any, **__: Any) -> Any:
        """Refused: the logits stand one place too far to the right for writing.

        Raises:
            TypeError: always.
        """
        raise TypeError("NorMistralForMaskedLM reads; to write, load the folder with AutoModelForCausalLM")
