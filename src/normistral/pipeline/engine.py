"""Run the stages in order: skip what is unchanged, resume what was interrupted, ask before redoing what
changed."""

from __future__ import annotations

import fcntl
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


def run_stages(
    stages: Sequence[Stage], context: RunContext, until: str | None = None, redo: Sequence[str] = ()
) -> None:
    """Run all stages, or those up to `until`.

    Args:
        stages: in an order in which every stage stands after those that it reads from.
        context: what they are given.
        until: name of the last stage to run.
        redo: stages to make anew; stages that depend on them are made anew where their inputs changed.

    Raises:
        UserError: if a stage is unknown, or a finished or half-finished stage was made from other inputs and
            is not to be redone.
    """
    names = [stage.name for stage in stages]
    for name in (*redo, *([until] if until else [])):
        if name not in names:
            raise UserError(f"there is no stage '{name}'; stages are: {', '.join(names)}")
    for name in redo:
        shutil.rmtree(context.run.stage(name), ignore_errors=True)
    redone = set(redo)
    for number, stage in enumerate(stages, start=1):
        if any(name in redone for name in stage.above):
            redone.add(stage.name)
        run_stage(stage, context, f"{number}/{len(stages)}", may_redo=stage.cheap or stage.name in redone)
        if stage.name == until:
            break


def run_stage(stage: Stage, context: RunContext, position: str, may_redo: bool) -> None:
    """Run one stage unless it is done.

    Args:
        stage: the stage.
        context: what it is given.
        position: such as `3/11`, for the screen.
        may_redo: whether work made from other inputs may be thrown away.
    """
    folder = context.run.stage(stage.name)
    inputs = stage_inputs(stage, context)
    record = StageRecord.read(folder)
    place = stage.place(context) if stage.place else folder
    if record and record.inputs == inputs and not _missing(place, record):
        context.screen.say(f"[{position}] {stage.name}: unchanged, {_duration(record.seconds)} saved")
        return
    if record and record.inputs == inputs and not may_redo:
        raise UserError(
            f"stage {stage.name}: {place / _missing(place, record)[0]}, which it made, is missing; run with "
            f"--redo {stage.name}"
        )
    earlier = record.inputs if record else _started_with(folder)
    resuming = earlier == inputs
    keeps_pieces = stage.checks_own_pieces and record is None
    if earlier is not None and not resuming and not keeps_pieces:
        if not may_redo:
            changed = differences(earlier, inputs)
            more = "; …" if len(changed) > MOST_DIFFERENCES_SHOWN else ""
            state = "was made" if record else "was begun"
            raise UserError(
                f"stage {stage.name} in {context.run.root} {state} from other inputs "
                f"({'; '.join(changed[:MOST_DIFFERENCES_SHOWN])}{more}); run with --redo {stage.name} "
                "to make it anew, or give another --out"
            )
        shutil.rmtree(folder)
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


def stage_inputs(stage: Stage, context: RunContext) -> dict[str, Any]:
    """What a stage's result depends on, as JSON: equal inputs, equal result."""
    return {
        "recipe": stage.settings(context.recipe),
        "method": stage.method_version,
        "outside": stage.outside(context),
        "above": {name: context.fingerprint(name) for name in stage.above},
    }


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Keep a second process out of a run folder.

    Raises:
        UserError: if another process works in it.
    """
    run.root.mkdir(parents=True, exist_ok=True)
    with run.lock.open("w") as file:
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


def _missing(place: Path, record: StageRecord) -> list[str]:
    return [name for name in record.outputs if not (place / name).is_file()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
