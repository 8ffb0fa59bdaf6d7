"""Bring the base model into the run, be it a Hugging Face folder, a GGUF file, a hub model or a sample.

Whatever `base.model` names, the outcome is a model folder that the other rooms read: config.json,
safetensors, tokenizer.json. Safetensors of a local folder are hard-linked where the file system allows it and
copied elsewhere, so that importing 24 GB takes no time and no space; nothing in a run ever writes into a
model folder's files.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from normistral.errors import UserError, naming_full_disk
from normistral.progress import tracked
from normistral.recipe import BaseSettings
from normistral.records import sha256_of_file, sha256_of_json, whole_folder
from normistral.samples import fetch_sample, find_sample
from normistral.weights.gguf_import import import_gguf
from normistral.weights.model_folder import (
    CONFIG_FILE,
    EMBEDDINGS,
    INDEX_FILE,
    LM_HEAD,
    TOKENIZER_FILES,
    check_architecture,
    check_replaceable,
    copy_files,
    count_parameters,
    read_config,
    tensor_names,
)

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""ORG/NAME, as the Hugging Face hub calls a model."""


def import_base(settings: BaseSettings, cache: Path, output: Path) -> dict[str, Any]:
    """Make the base model's folder; a second call replaces it with the same.

    Args:
        settings: the recipe's `base` section.
        cache: folder for what can be fetched again (samples; hub models lie in Hugging Face's own cache).
        output: the model folder to make.

    Returns:
        Counts for stage.json: `source` (folder, gguf, hub or sample), `sha256` of the input, `architecture`,
        `parameters`, `tensors` and `vocabulary`.

    Raises:
        UserError: if the model can't be found or fetched, has another architecture, no safetensors or no
            tokenizer.json, or is broken; or if the disk is full.
    """
    tokenizer = Path(settings.tokenizer) if settings.tokenizer else None
    if tokenizer:
        _check_tokenizer(tokenizer, "base.tokenizer")
    source, path = _resolve(settings.model, cache)
    if path.resolve().is_relative_to(output.resolve()):
        raise UserError(f"base.model {path} lies in {output}, where the import is to be written; move it")
    if path.is_dir():
        checksum = _import_folder(path, output, tokenizer)
    else:
        import_gguf(path, output, tokenizer)
        checksum = sha256_of_file(path)
    config = read_config(output)
    _check_vocabulary(output, config)
    return {
        "model": settings.model,
        "source": source,
        "sha256": checksum,
        "architecture": config["model_type"],
        "parameters": count_parameters(output),
        "tensors": len(tensor_names(output)),
        "vocabulary": config["vocab_size"],
    }


def _resolve(model: str, cache: Path) -> tuple[str, Path]:
    """What kind of thing `base.model` names, and the local folder or GGUF file that it stands for."""
    if model.startswith("sample:"):
        name = model.removeprefix("sample:")
        sample = find_sample(name)
        if sample.kind != "model":
            raise UserError(f"base.model is sample:{name}, which is {sample.description} and no model")
        return "sample", fetch_sample(name, cache)
    if model.startswith("hub:"):
        return "hub", _from_hub(model.removeprefix("hub:"), model)
    path = Path(model).expanduser()
    if path.is_dir():
        return "folder", path
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"base.model {path} is neither a Hugging Face folder nor a .gguf file")
        return "gguf", path
    if HUB_NAME.fullmatch(model) and path.suffix != ".gguf":
        return "hub", _from_hub(model, model)
    raise UserError(
        f"base.model {model} does not exist; expected a Hugging Face folder, a .gguf file, hub:ORG/NAME or "
        "sample:smollm2-135m"
    )


def _from_hub(name: str, model: str) -> Path:
    if not HUB_NAME.fullmatch(name):
        raise UserError(
            f"base.model {model}: expected hub:ORG/NAME, for example hub:HuggingFaceTB/SmolLM2-135M"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    patterns = [CONFIG_FILE, INDEX_FILE, "model*.safetensors", *TOKENIZER_FILES]
    local = f"or give the folder of a downloaded copy as base.model (there is no local folder {name})"
    try:
        with naming_full_disk(Path(name), "what was downloaded is kept"):
            return Path(snapshot_download(name, allow_patterns=patterns))
    except UserError:
        raise
    except GatedRepoError as error:
        raise UserError(
            f"base.model {model}: its owners ask you to accept their terms; do so on its page of the "
            "Hugging Face "
            f"hub, log in with `hf auth login` and run again, {local}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"base.model {model}: the Hugging Face hub has no such model (or it is private: `hf auth "
            "login`); "
            f"check the name, {local}"
        ) from error
    except Exception as error:  # no network, a proxy, a broken cache: the hub raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"base.model {model} could not be fetched from the Hugging Face hub ({reason}); connect to the "
            "network "
            f"and run again, {local}"
        ) from error


def _import_folder(source: Path, output: Path, tokenizer: Path | None) -> str:
    """Link or copy a Hugging Face folder; SHA-256 over the checksums of what was taken."""
    config = read_config(source) if (source / CONFIG_FILE).exists() else None
    files = tensor_names(source)  # first, because its remedies are the better ones
    if config is None:
        raise UserError(f"base.model {source} has no {CONFIG_FILE}; give a complete Hugging Face folder")
    check_architecture(config, f"base.model {source}")
    needed = [EMBEDDINGS] if config.get("tie_word_embeddings") else [EMBEDDINGS, LM_HEAD]
    for name in needed:
        if name not in files:
            raise UserError(
                f"base.model {source} has no tensor {name}; give a complete causal language model"
            )
    tokenizer_source = tokenizer or source
    if not tokenizer:
        _check_tokenizer(source, "base.model")
    check_replaceable(output)
    checksums: dict[str, str] = {}
    with whole_folder(output) as folder:
        weights = sorted(set(files.values()))
        for file in tracked(weights, f"importing {source.name}", len(weights), "files"):
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(file.resolve(), target)
            checksums[str(file.relative_to(source))] = sha256_of_file(file)
        copy_files(source, folder, (CONFIG_FILE, INDEX_FILE))
        copy_files(tokenizer_source, folder, TOKENIZER_FILES)
        checksums |= {file.name: sha256_of_file(file) for file in folder.glob("*.json")}
    return sha256_of_json(checksums)


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, a file system without links, or a file of somebody else
        shutil.copyfile(file, target)


def _check_tokenizer(folder: Path, setting: str) -> None:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{setting} {folder} has no tokenizer.json; make one with transformers "
            "(AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)) and give it as "
            "base.tokenizer"
        )
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise UserError(f"{setting} {file} is no tokenizer of Hugging Face tokenizers ({error})") from error


def _check_vocabulary(output: Path, config: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    # Added tokens are left out: some models have a padding token behind their embeddings that no text
    # reaches.
    highest = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1)
    if highest >= config["vocab_size"]:
        raise UserError(
            f"the base's tokenizer has ids up to {highest} and the model only {config['vocab_size']} rows of "
            "embeddings: they do not belong together; give the model's own tokenizer as base.tokenizer"
        )
