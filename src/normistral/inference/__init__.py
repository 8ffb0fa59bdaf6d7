"""Use a model: load it, quantise it, let it write (causal), fill masks, score and embed (bidirectional).

Importing this room teaches `AutoModelForMaskedLM` to open published folders without their own code.
"""

from transformers import AutoModelForMaskedLM, MistralConfig

from normistral.inference.embed import Neighbour, embed, nearest
from normistral.inference.fill_mask import Candidate, MaskFilling, fill_mask, fill_masks
from normistral.inference.generate import Generation, WritingSettings, generate, generate_batch
from normistral.inference.leak import future_leak, probe_attention
from normistral.inference.load import LoadedModel, load
from normistral.inference.masked_lm import NorMistralForMaskedLM
from normistral.inference.quantised_folder import save_quantised
from normistral.inference.score import PairScore, TextScore, score_pairs, score_texts
from normistral.inference.sentence_transformer import save_sentence_transformer
from normistral.inference.translate import Translation, read_examples, translate, translation_prompt

AutoModelForMaskedLM.register(MistralConfig, NorMistralForMaskedLM, exist_ok=True)

__all__ = [
    "Candidate",
    "Generation",
    "LoadedModel",
    "MaskFilling",
    "Neighbour",
    "NorMistralForMaskedLM",
    "PairScore",
    "TextScore",
    "Translation",
    "WritingSettings",
    "embed",
    "fill_mask",
    "fill_masks",
    "future_leak",
    "generate",
    "generate_batch",
    "load",
    "nearest",
    "probe_attention",
    "read_examples",
    "save_quantised",
    "save_sentence_transformer",
    "score_pairs",
    "score_texts",
    "translate",
    "translation_prompt",
]
