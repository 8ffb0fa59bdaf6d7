"""What an earlier start of the same fine-tuning has left: its finished folder, or its checkpoints.

The same is what has the same fingerprint: of settings, examples and base, by what is in the files. Examples
to test on are not among them, for they change nothing in the model.

    OUT.training/started.json     whose checkpoints these are; removed last, so that what is left is known
    OUT/finetune.json             the fingerprint again; `checked` when everything is done
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from normistral.errors import UserError
from normistral.finetune.save import RECORD_FILE
from normistral.finetune.settings import FinetuneSettings
from normistral.records import read_json, sha256_of_file, sha256_of_json, write_json
from normistral.weights import read_config, tensor_names
from normistral.weights.model_folder import TOKENIZER_FILES

STARTED_FILE = "started.json"
CHECKPOINTS = "checkpoint-*"


def fingerprint_of(settings: FinetuneSettings, base: Path) -> str:
    """Of everything that the trained weights depend on.

    The base's files are read whole. A date says nothing of a file that was copied or restored, and samples of
    it miss a change of few tensors; reading takes 18 seconds for 23 GB on one core with SHA instructions
    (1.3 GB/s) where the disk is as fast, and loading the model has to read the same pages anyway.

    Args:
        settings: of the whole.
        base: folder of the base; also by its name, because an adapter's base links to it.
    """
    elsewhere = {"out", "device", "model", "data", "dev", "test"}
    chosen = settings.model_dump(mode="json", exclude=elsewhere)
    examples = {"data": settings.data, "dev": settings.dev}
    own = {*tensor_names(base).values(), *(base / name for name in TOKENIZER_FILES)}
    return sha256_of_json(
        {
            "settings": chosen,
            "files": {name: sha256_of_file(path) for name, path in examples.items() if path},
            "base": str(base.resolve()),
            "config": read_config(base),
            "base_files": {file.name: sha256_of_file(file) for file in sorted(own) if file.is_file()},
        }
    )


def check_out(out: Path) -> None:
    """Refuse to replace what is no fine-tuning.

    Raises:
        UserError: if `out` holds other things.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD_FILE).is_file():
        raise UserError(f"--out {out} holds other things and is not replaced; give a new folder")


def finished(out: Path, fingerprint: str, redo: bool) -> dict[str, Any] | None:
    """The record of the same fine-tuning, if it is done already.

    Args:
        out: where it is to be.
        fingerprint: of this one.
        redo: whether an earlier one is to be forgotten.

    Raises:
        UserError: if `out` holds another.
    """
    if redo or not (out / RECORD_FILE).is_file():
        return None
    record: dict[str, Any] = read_json(out / RECORD_FILE)
    if record["fingerprint"] != fingerprint:
        raise UserError(
            f"--out {out} holds a fine-tuning with other settings, other examples or another base model; "
            "give another folder, or --redo"
        )
    return record if record["checked"] else None


def prepare_work(work: Path, fingerprint: str, redo: bool) -> bool:
    """Keep the checkpoints of the same fine-tuning; refuse those of another.

    Args:
        work: folder of the checkpoints.
        fingerprint: of this fine-tuning.
        redo: whether to remove them, whosever they are.

    Returns:
        Whether there are any to go on from.

    Raises:
        UserError: if they are of another, or the folder holds other things.
    """
    started = work / STARTED_FILE
    if redo:
        remove_work(work)
    if started.is_file():
        if read_json(started)["fingerprint"] != fingerprint:
            raise UserError(
                f"{work} holds checkpoints of a fine-tuning with other settings, other examples or another "
                "base model; give another --out, or --redo"
            )
        return True
    if work.exists() and any(not file.name.startswith(STARTED_FILE) for file in work.iterdir()):
        raise UserError(f"{work}, where checkpoints are to lie, holds other things; give another --out")
    write_json(started, {"fingerprint": fingerprint})
    return False


def remove_work(work: Path, fingerprint: str | None = None) -> None:
    """Remove the checkpoints, whose owner's name goes last.

    Args:
        work: their folder.
        fingerprint: whose they must be; None: anyone's.
    """
    started = work / STARTED_FILE
    if fingerprint and not (started.is_file() and read_json(started)["fingerprint"] == fingerprint):
        return
    for checkpoint in work.glob(CHECKPOINTS):
        shutil.rmtree(checkpoint, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
