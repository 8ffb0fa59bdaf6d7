"""Checkpoints: sharded (DCP), complete or not counted, verified when loaded.

    checkpoints/step-00000050/   <rank>.distcp .metadata  COMPLETE (step, fingerprint, SHA-256 of every file)

A checkpoint is written under a temporary name and renamed when `COMPLETE` is on disk, so that a kill or a
full disk at any moment leaves the last good one as it was. On load the newest checkpoint whose checksums
hold is taken.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from normistral.errors import UserError, naming_full_disk
from normistral.model import Mistral
from normistral.records import flush_to_disk, read_json, sha256_of_file, write_json

COMPLETE = "COMPLETE"
FROZEN_STAY_OUT = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Frozen parameters are in the initial weights already."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training stage."""

    folder: Path
    fingerprint: str
    """Of the stage's inputs: a checkpoint of other inputs is never resumed from."""
    keep: int
    """How many of the latest stay on disk."""

    def save(self, step: int, model: Mistral, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint after `step` optimizer steps; every process calls.

        Raises:
            UserError: if the disk is full; earlier checkpoints stay as they are.
        """
        final = self.folder / f"step-{step:08}"
        temporary = self.folder / f"step-{step:08}.partial"
        if _is_first():
            for leftover in self.folder.glob("*.partial"):  # of a kill
                shutil.rmtree(leftover)
            temporary.mkdir(parents=True)
        _wait_for_all()
        model_state, optimizer_state = get_state_dict(model, optimizer, options=FROZEN_STAY_OUT)
        try:
            with naming_full_disk(final, survivor="the checkpoints before it are whole"):
                state_dict_saver.save(
                    {"model": model_state, "optimizer": optimizer_state}, checkpoint_id=temporary
                )
                if _is_first():
                    files = sorted(file for file in temporary.iterdir() if file.is_file())
                    for file in files:
                        flush_to_disk(file)
                    checksums = {file.name: sha256_of_file(file) for file in files}
                    write_json(
                        temporary / COMPLETE,
                        {"step": step, "fingerprint": self.fingerprint, "sha256": checksums},
                    )
                    shutil.rmtree(final, ignore_errors=True)
                    temporary.rename(final)
                    flush_to_disk(self.folder)
                    self._drop_old()
        except UserError:
            if _is_first():
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        _wait_for_all()

    def restore(self, model: Mistral, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest whole checkpoint into model and optimizer.

        Returns:
            The step to go on from: 0 where there is no checkpoint.
        """
        latest = self.latest()
        if latest is None:
            return 0
        model_state, optimizer_state = get_state_dict(model, optimizer, options=FROZEN_STAY_OUT)
        # Loads in place, into the tensors of both state dictionaries.
        state_dict_loader.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=latest)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=model_state,
            optim_state_dict=optimizer_state,
            options=FROZEN_STAY_OUT,
        )
        return int(read_json(latest / COMPLETE)["step"])

    def latest(self) -> Path | None:
        """The newest checkpoint that is whole.

        Raises:
            UserError: if the newest one belongs to other settings, or checkpoints exist but none is whole.
        """
        finished = sorted(self.folder.glob("step-????????"), reverse=True)
        for path in finished:
            try:
                record: dict[str, Any] = read_json(path / COMPLETE)
            except (FileNotFoundError, ValueError):
                continue
            if record["fingerprint"] != self.fingerprint:
                raise UserError(
                    f"checkpoint {path} was made with other settings or data; run with --redo "
                    f"{self.folder.parent.name} to start this stage again, or go back to its recipe"
                )
            if all(_has_checksum(path / name, checksum) for name, checksum in record["sha256"].items()):
                return path
            if _is_first():
                notice = f"checkpoint {path} is damaged (checksum differs): going back to the one before"
                print(notice, file=sys.stderr, flush=True)
        if finished:
            raise UserError(
                f"no checkpoint in {self.folder} is whole; run with --redo {self.folder.parent.name} "
                "to start this stage again"
            )
        return None

    def _drop_old(self) -> None:
        for path in sorted(self.folder.glob("step-????????"))[: -self.keep]:
            shutil.rmtree(path)


def _has_checksum(file: Path, checksum: str) -> bool:
    return file.is_file() and sha256_of_file(file) == checksum


def _is_first() -> bool:
    return dist.get_rank() == 0


def _wait_for_all() -> None:
    if dist.get_world_size() > 1:
        dist.barrier()
