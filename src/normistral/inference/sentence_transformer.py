"""Write a folder that `sentence-transformers` opens, and that stays bidirectional.

Its libraries take the attention mode from config.json alone: `config_kwargs={"is_causal": False}` is silently
ignored where the config does not mention it (and a model read causally gives bad embeddings without a word).
The folder's config therefore says `is_causal: false`, so that nothing has to be asked for. Such a folder is
for encoding; write with the model's own folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from normistral.errors import UserError
from normistral.weights import StoredTensors, copy_files, read_config, tensor_names, write_model_folder

LM_HEAD = "lm_head.weight"
POOLING_FOLDER = "1_Pooling"
NORMALISE_FOLDER = "2_Normalize"
MODULE = "sentence_transformers.models"


def save_sentence_transformer(model: Path, output: Path, normalise: bool = True) -> None:
    """Write a sentence-transformers folder: the model, mean pooling, and vectors of length 1.

    Args:
        model: a model folder; its weights are copied as they are, but for the LM head.
        output: the folder to write; must not exist yet.
        normalise: leave it out for vectors of any length.

    Raises:
        UserError: if `model` is no model folder, or `output` exists.
    """
    if output.exists():
        raise UserError(f"{output} exists already: give a folder that does not")
    if not (model / "tokenizer.json").is_file():
        raise UserError(f"{model} is no model folder: it has no tokenizer.json")
    config = read_config(model)
    left_out = ("auto_map", "architectures")
    kept = {key: value for key, value in config.items() if key not in left_out} | {"is_causal": False}

    def add_files(folder: Path) -> None:
        copy_files(model, folder)
        copy_files(model, folder, ("LICENSE",))
        modules = [("", "Transformer"), (POOLING_FOLDER, "Pooling")]
        modules += [(NORMALISE_FOLDER, "Normalize")] if normalise else []
        _write(
            folder / "modules.json",
            [
                {"idx": number, "name": str(number), "path": path, "type": f"{MODULE}.{kind}"}
                for number, (path, kind) in enumerate(modules)
            ],
        )
        _write(
            folder / "sentence_bert_config.json",
            {"max_seq_length": int(config["max_position_embeddings"]), "do_lower_case": False},
        )
        (folder / POOLING_FOLDER).mkdir()
        _write(
            folder / POOLING_FOLDER / "config.json",
            {
                "word_embedding_dimension": int(config["hidden_size"]),
                "pooling_mode_mean_tokens": True,
                "include_prompt": True,
            },
        )
        if normalise:
            (folder / NORMALISE_FOLDER).mkdir()

    with StoredTensors(model) as stored:
        encoder = ((name, stored.read(name)) for name in tensor_names(model) if name != LM_HEAD)
        write_model_folder(output, kept, encoder, add_files=add_files)


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
