"""Run the stages in order: skip what is unchanged, resume what was interrupted, ask before redoing what
changed."""

from __future__ import annotations

import fcntl
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from normistral.errors import UserError
from normistral.pipeline.stage import RunContext, Stage
from normistral.recipe import dump_recipe
from normistral.records import (
    STAGE_FILE,
    STARTED_FILE,
    RunFolder,
    StageRecord,
    checksums,
    differences,
    peak_memory_bytes,
    read_json,
    release_memory,
    restart_peak,
    whole_file,
    write_json,
)

MOST_DIFFERENCES_SHOWN = 6

CHECKSUM = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
"""A SHA-256, of which a reader needs the beginning only."""

REDO_FILE = "redo.json"
"""Stages that may be made anew, kept in the run's folder until the run is complete."""


def run_stages(
    stages: Sequence[Stage], context: RunContext, until: str | None = None, redo: Sequence[str] = ()
) -> None:
    """Run all stages, or those up to `until`.

    Args:
        stages: in an order in which every stage stands after those that it reads from.
        context: what they are given.
        until: name of the last stage to run.
        redo: stages to make anew; stages that depend on them are made anew where their inputs changed, also
            when that takes several starts.

    Raises:
        UserError: if a stage is unknown, or a finished or half-finished stage was made from other inputs and
            is not to be redone; said before any work where it can be known then.
    """
    names = [stage.name for stage in stages]
    for name in (*redo, *([until] if until else [])):
        if name not in names:
            raise UserError(f"there is no stage '{name}'; stages are: {', '.join(names)}")
    stages = stages[: names.index(until) + 1] if until else stages
    redoable = _redoable(stages, context.run, redo)
    _refuse_early(stages, context, redoable, redo)
    for number, stage in enumerate(stages, start=1):
        if stage.name in redo:
            _forget(stage, context)
        run_stage(stage, context, f"{number}/{len(names)}", may_redo=stage.cheap or stage.name in redoable)
    if not until:
        (context.run.root / REDO_FILE).unlink(missing_ok=True)


def _redoable(stages: Sequence[Stage], run: RunFolder, redo: Sequence[str]) -> set[str]:
    """Stages that may be made anew: those asked for now or at an earlier, unfinished start, and all below
    them."""
    noted = run.root / REDO_FILE
    redoable = set(redo) | (set(read_json(noted)) if noted.exists() else set())
    for stage in stages:
        if redoable.intersection(stage.above):
            redoable.add(stage.name)
    if redoable:
        write_json(noted, sorted(redoable))
    return redoable


def _refuse_early(
    stages: Sequence[Stage], context: RunContext, redoable: set[str], redo: Sequence[str]
) -> None:
    """Refuse, before any work, a run in which some stage's changed inputs are going to be refused."""
    changing = set(redo)
    for stage in stages:
        folder = context.run.stage(stage.name)
        record = StageRecord.read(folder)
        before = record.inputs if record else _started_with(folder)
        if stage.name in changing or before is None:
            continue
        now = own_inputs(stage, context)
        now["above"] = {
            name: "made anew" if name in changing else before["above"].get(name) for name in stage.above
        }
        if before == now:
            continue
        if not (stage.cheap or stage.name in redoable or _keeps_pieces(stage, record, before, now)):
            raise _refusal(stage, context, record, before, now)
        changing.add(stage.name)


def run_stage(stage: Stage, context: RunContext, position: str, may_redo: bool) -> None:
    """Run one stage unless it is done.

    Args:
        stage: the stage.
        context: what it is given.
        position: such as `3/11`, for the screen.
        may_redo: whether work made from other inputs may be thrown away.
    """
    folder = context.run.stage(stage.name)
    place = stage.place(context) if stage.place else folder
    inputs = stage_inputs(stage, context)
    record = StageRecord.read(folder)
    if record and record.inputs == inputs:
        missing = [name for name in record.outputs if not (place / name).is_file()]
        if not missing:
            context.screen.say(f"[{position}] {stage.name}: unchanged, {_duration(record.seconds)} saved")
            return
        if not may_redo:
            raise UserError(
                f"stage {stage.name}: {place / missing[0]}, which it made, is missing; run with "
                f"--redo {stage.name}"
            )
    before = record.inputs if record else _started_with(folder)
    resuming = before == inputs
    if before is not None and not resuming and not _keeps_pieces(stage, record, before, inputs):
        if not may_redo:
            raise _refusal(stage, context, record, before, inputs)
        _forget(stage, context)
    (folder / STAGE_FILE).unlink(missing_ok=True)  # from now on its outputs are no longer those it tells of
    folder.mkdir(parents=True, exist_ok=True)
    # Written with the first work that it is true of: a recipe that was refused leaves the old one in place.
    with whole_file(context.run.recipe) as temporary:
        temporary.write_text(dump_recipe(context.recipe), encoding="utf-8")
    write_json(folder / STARTED_FILE, inputs)
    context.screen.say(f"[{position}] {stage.name}: {stage.purpose}" + (" (going on)" if resuming else ""))
    release_memory()
    restart_peak()
    started = time.monotonic()
    counts = stage.run(context)
    seconds = time.monotonic() - started
    peak = peak_memory_bytes()
    StageRecord(
        stage=stage.name,
        inputs=inputs,
        outputs=checksums(place, stage.outputs),
        counts=counts,
        seconds=round(seconds, 2),
        peak_memory_bytes=peak,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(folder)
    stage.show(context)
    memory = f", at most {peak / 1e9:.1f} GB of memory" if peak else ""
    context.screen.say(f"      {stage.name} done in {_duration(seconds)}{memory}")


def _keeps_pieces(
    stage: Stage, record: StageRecord | None, before: dict[str, Any], now: dict[str, Any]
) -> bool:
    return stage.checks_own_pieces and (record is None or stage.amends(before, now))


def _forget(stage: Stage, context: RunContext) -> None:
    """Throw away what a stage has made; of one that checks its own pieces, made from other inputs than now,
    the record alone: it finds the pieces that are still right."""
    folder = context.run.stage(stage.name)
    record = StageRecord.read(folder)
    if stage.checks_own_pieces and record and record.inputs != stage_inputs(stage, context):
        (folder / STAGE_FILE).unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _refusal(
    stage: Stage, context: RunContext, record: StageRecord | None, before: dict[str, Any], now: dict[str, Any]
) -> UserError:
    changed = [CHECKSUM.sub(r"\1…", line) for line in differences(before, now)]
    more = "; …" if len(changed) > MOST_DIFFERENCES_SHOWN else ""
    state = "was made" if record else "was begun"
    return UserError(
        f"stage {stage.name} in {context.run.root} {state} from other inputs "
        f"({'; '.join(changed[:MOST_DIFFERENCES_SHOWN])}{more}); run with --redo {stage.name} "
        "to make it anew, or give another --out"
    )


def stage_inputs(stage: Stage, context: RunContext) -> dict[str, Any]:
    """What a stage's result depends on, as JSON: equal inputs, equal result."""
    return own_inputs(stage, context) | {"above": {name: context.fingerprint(name) for name in stage.above}}


def own_inputs(stage: Stage, context: RunContext) -> dict[str, Any]:
    """A stage's inputs but for what the stages above it made."""
    return {
        "recipe": stage.settings(context.recipe),
        "method": stage.method_version,
        "outside": stage.outside(context),
    }


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Keep a second process out of a run folder.

    Raises:
        UserError: if another process works in it.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        file = run.lock.open("w")
    except OSError as error:
        raise UserError(
            f"--out {run.root} cannot be written: {error.strerror}; give another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is working in {run.root}; wait or give another --out") from None
        yield


def _started_with(folder: Path) -> dict[str, Any] | None:
    try:
        inputs: dict[str, Any] = read_json(folder / STARTED_FILE)
    except (FileNotFoundError, ValueError):
        return None
    return inputs


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
