"""Checkpoints: sharded (DCP), written beside the training, complete or not counted, verified when loaded.

    checkpoints/step-00000050/   __<rank>_<n>.distcp .metadata
                                 COMPLETE (step, fingerprint, state of the loop, SHA-256 of every file)

What is saved is first copied, then written by a thread of its own over a process group of its own, so that
training goes on meanwhile. A checkpoint is written under a temporary name and renamed when `COMPLETE` is on
disk: a kill or a full disk at any moment leaves the last good one as it was. On load the newest checkpoint
whose checksums hold is taken; the processes share the work of hashing.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from normistral.errors import LostProcess, UserError, naming_full_disk
from normistral.model import Mistral
from normistral.records import flush_to_disk, read_json, sha256_of_file, write_json

COMPLETE = "COMPLETE"
FROZEN_STAY_OUT = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Frozen parameters are in the initial weights already."""

SHORT_WRITE = "unexpected pos"
"""What torch.save says when less was written than it wanted."""

Value = TypeVar("Value")


class Checkpoints:
    """The checkpoints of one training stage; every process has one and all call the same methods."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        keep: int,
        keep_every: int | None = None,
        every: int = 1,
        beside: bool = False,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        """Say where checkpoints lie and which of them stay.

        Args:
            folder: on a disk that all processes share.
            fingerprint: of the stage's inputs: a checkpoint of other inputs is never resumed from.
            keep: how many of the latest stay on disk.
            keep_every: checkpoints of steps that this number divides stay for good.
            every: steps from one checkpoint to the next; one between them, as a stop makes it, is dropped
                when the next is there, so that a run that was stopped averages the same ones as another.
            beside: write in a thread of its own while training goes on.
            timeout: how long processes wait for each other while they write.
        """
        self.folder, self.fingerprint, self.keep, self.keep_every = folder, fingerprint, keep, keep_every
        self._every, self._beside = every, beside
        # Its collectives run in another thread, and must not come between those of training.
        self._group = dist.new_group(backend="gloo", timeout=timeout)
        self._writing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.last_saved: int | None = None
        """Step of the newest checkpoint that was saved or loaded."""

    def save(
        self, step: int, model: Mistral, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
    ) -> None:
        """Save what `step` optimizer steps made; one that is still being written is waited for first.

        Args:
            step: steps done.
            model: its trainable parameters are saved.
            optimizer: its state is saved.
            state: what else the next step depends on, as JSON.

        Raises:
            UserError: if the disk is full (of this checkpoint, or of one that was being written); earlier
                checkpoints stay as they are.
        """
        self.wait()
        final = self.folder / f"step-{step:08}"
        temporary = self.folder / f"step-{step:08}.partial"
        if _is_first():
            for leftover in self.folder.glob("*.partial"):  # of a kill
                shutil.rmtree(leftover)
            temporary.mkdir(parents=True)
        dist.barrier(group=self._group)
        model_state, optimizer_state = get_state_dict(model, optimizer, options=FROZEN_STAY_OUT)
        content = {"model": model_state, "optimizer": optimizer_state}
        record = {"step": step, "fingerprint": self.fingerprint, "state": dict(state)}
        self.last_saved = step
        if not self._beside:
            with _naming(final):
                state_dict_saver.save(content, checkpoint_id=temporary, process_group=self._group)
                self._complete(temporary, final, record)
            return
        # Returns when the state has been copied.
        written = state_dict_saver.async_save(content, checkpoint_id=temporary, process_group=self._group)

        def finish() -> None:
            try:
                with _naming(final):
                    written.result()  # type: ignore[union-attr]
                    self._complete(temporary, final, record)
            except BaseException as error:  # raised where training looks for it
                self._failure = error

        self._writing = threading.Thread(target=finish, name=f"checkpoint {step}", daemon=True)
        self._writing.start()

    @property
    def failed(self) -> bool:
        """Whether a checkpoint that was written beside the training could not be: `wait` says why."""
        return self._failure is not None

    def wait(self) -> None:
        """Wait until what is being written is complete.

        Raises:
            UserError: if the disk is full.
        """
        if self._writing:
            self._writing.join()
            self._writing = None
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let a checkpoint that is being written become complete, whatever else has gone wrong, unless a
        process is gone that would have to take part in it."""
        if self._writing and not isinstance(error, LostProcess):
            self._writing.join()
            self._writing = None

    def restore(self, model: Mistral, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
        """Load the newest whole checkpoint into model and optimizer.

        Returns:
            The step to go on from and the state that was saved with it: 0 and nothing where there is none.
        """
        latest = self.latest()
        if latest is None:
            return 0, {}
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
        record = read_json(latest / COMPLETE)
        self.last_saved = int(record["step"])
        return self.last_saved, dict(record["state"])

    def latest(self) -> Path | None:
        """The newest checkpoint that is whole.

        Raises:
            UserError: if the newest one belongs to other settings, or checkpoints exist but none is whole.
        """
        damages: list[str] = []
        for path in reversed(self.finished()):
            record = _read_mark(path)
            if record is None:
                damages.append(f"{path} is damaged ({COMPLETE} is missing or cannot be read)")
                continue
            if record["fingerprint"] != self.fingerprint:
                raise UserError(
                    f"checkpoint {path} was made with other settings or data; run with --redo "
                    f"{self.folder.parent.name} to start this stage again, or go back to its recipe"
                )
            broken = self._broken_files(path, record["sha256"])
            if not broken:
                for damage in damages if _is_first() else ():
                    notice = f"checkpoint {damage}: going back to the one before"
                    print(notice, file=sys.stderr, flush=True)
                return path
            damages.append(f"{path} is damaged ({', '.join(broken)} is missing or has another checksum)")
        if damages:
            raise UserError(
                f"no checkpoint is whole: {'; '.join(damages)}; run with --redo {self.folder.parent.name} "
                "to start this stage again"
            )
        return None

    def finished(self) -> list[Path]:
        """Folders of all checkpoints that were completed, the oldest first."""
        return sorted(self.folder.glob("step-????????"))

    def average(self, weights: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """Mean of the trainable weights of the last checkpoints, sharded as the model's are.

        Args:
            weights: the model's parameters after its last step, which has been saved.
            count: of how many checkpoints, fewer where there are fewer.

        Raises:
            UserError: if one of them is damaged.
        """
        trained = {name: tensor.detach() for name, tensor in weights.items() if tensor.requires_grad}
        total = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
        assert self.last_saved is not None
        paths = self._in_order(self.last_saved)[-count:]
        for path in paths:
            record = _read_mark(path)
            broken = self._broken_files(path, record["sha256"]) if record else [COMPLETE]
            if broken:
                raise UserError(
                    f"average_checkpoints: {path} is damaged ({', '.join(broken)}); set it to 1, or "
                    f"run with --redo {self.folder.parent.name}"
                )
            one = {name: torch.empty_like(tensor) for name, tensor in trained.items()}
            state_dict_loader.load({"model": one}, checkpoint_id=path)
            for name, tensor in one.items():
                total[name] += tensor
        return {name: tensor / len(paths) for name, tensor in total.items()}

    def _complete(self, temporary: Path, final: Path, record: dict[str, Any]) -> None:
        """Make files that all processes have written into a checkpoint."""

        def hash_own_files() -> dict[str, str]:
            own = sorted(temporary.glob(f"__{dist.get_rank()}_*.distcp"))
            own += [temporary / ".metadata"] if _is_first() else []
            for file in own:
                flush_to_disk(file)
            return {file.name: sha256_of_file(file) for file in own}

        hashed = self._together(hash_own_files)

        def put_in_place() -> None:
            if not _is_first():
                return
            checksums = {name: checksum for part in hashed for name, checksum in part.items()}
            write_json(temporary / COMPLETE, record | {"sha256": dict(sorted(checksums.items()))})
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            flush_to_disk(self.folder)
            self._drop_old(record["step"])

        self._together(put_in_place)

    def _together(self, work: Any) -> list[Any]:
        """Do a piece of work in every process: all results, or in every process the first failure."""
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (work(), None)
        except Exception as error:
            outcome = (None, error)
        outcomes: list[tuple[Any, BaseException | None]] = [(None, None)] * dist.get_world_size()
        dist.all_gather_object(outcomes, outcome, group=self._group)
        for _, failure in outcomes:
            if failure is not None:
                raise failure
        return [result for result, _ in outcomes]

    def _broken_files(self, path: Path, checksums: Mapping[str, str]) -> list[str]:
        """Files without their checksum; each process reads some of them."""
        mine = sorted(checksums)[dist.get_rank() :: dist.get_world_size()]
        parts = self._together(
            lambda: [name for name in mine if not _has_checksum(path / name, checksums[name])]
        )
        return sorted(name for part in parts for name in part)

    def _in_order(self, newest: int) -> list[Path]:
        """The newest checkpoint and, before it, those that a run without a stop has too."""
        paths = [path for path in self.finished() if _step_of(path) <= newest]
        return [path for path in paths if _step_of(path) == newest or _step_of(path) % self._every == 0]

    def _drop_old(self, newest: int) -> None:
        kept = self._in_order(newest)[-self.keep :]
        for path in self.finished():
            # Later ones than the newest were damaged and passed over.
            is_kept_for_good = self.keep_every and _step_of(path) % self.keep_every == 0
            if path not in kept and not (is_kept_for_good and _step_of(path) < newest):
                shutil.rmtree(path)


@contextmanager
def _naming(final: Path) -> Iterator[None]:
    """Turn a full disk into a sentence, and leave nothing half-written behind."""
    try:
        with naming_full_disk(final, survivor="the checkpoints before it are whole"):
            try:
                yield
            except CheckpointException as error:
                # torch.save hides what the operating system said, and other processes hear its words alone.
                if SHORT_WRITE in str(error):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
    except UserError:
        if _is_first():
            shutil.rmtree(final.with_name(final.name + ".partial"), ignore_errors=True)
        raise


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _read_mark(path: Path) -> dict[str, Any] | None:
    """What `COMPLETE` says; None where there is none, or another file in its place."""
    try:
        record = read_json(path / COMPLETE)
    except (OSError, ValueError):
        return None
    is_whole = isinstance(record, dict) and record.keys() >= {"step", "fingerprint", "state", "sha256"}
    return record if is_whole else None


def _has_checksum(file: Path, checksum: str) -> bool:
    return file.is_file() and sha256_of_file(file) == checksum


def _is_first() -> bool:
    return dist.get_rank() == 0
