"""What a run recorded with its checkpoints: resuming and evaluating take that, and refuse what says otherwise."""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tomli_w

from tpc.errors import DataError, UsageError, UserError
from tpc.program.load import load
from tpc.program.text import listing
from tpc.runtime.files.archive import not_finite
from tpc.runtime.files.whole import write_atomic
from tpc.runtime.training.checkpoint import Checkpoint
from tpc.runtime.training.progress import warn
from tpc.runtime.training.rundir import RunDir, without_none
from tpc.tasks.job import Job
from tpc.tasks.task import Task
from tpc.version import VERSION

Found = TypeVar("Found")


def record(job: Job, source: bytes, data: str) -> dict[str, Any]:
    """What goes into every checkpoint of a job: its settings, and checksums of its program's file and of its data."""
    config = tomli_w.dumps(without_none(job.to_config()))  # as text: JSON has no infinity, and one kind of number
    return {"config": config, "program_sha256": hashlib.sha256(source).hexdigest(), "data": data}


def usable_checkpoint(run: RunDir) -> Checkpoint:
    """The newest whole checkpoint. Raises DataError where there is none, or where its numbers are not finite."""
    checkpoint = run.checkpoints.require()
    name = not_finite(checkpoint.model_path)
    if not name:
        return checkpoint
    others = (c for c in run.checkpoints.whole() if c.path != checkpoint.path and not not_finite(c.model_path))
    before = next(others, None)
    if before is None:
        fix = "no other checkpoint is usable: start the run again, with a smaller --lr or with --clip."
    else:
        step = before.state["position"]["step"]
        fix = f"to go on from the checkpoint before it, {before.path.name} (step {step}), remove {checkpoint.path}"
    raise DataError(f"{checkpoint.model_path} holds numbers that are not finite (in {name}).\n  Fix: {fix}")


def with_newest(run: RunDir, use: Callable[[Checkpoint], Found]) -> Found:
    """What `use` makes of the newest checkpoint, or of the next if a process that trains drops that one meanwhile."""
    while True:
        checkpoint = usable_checkpoint(run)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what comes of them is told
                return use(checkpoint)
        except DataError:
            if checkpoint.path.exists():
                raise


def require_finite(loss: float, checkpoint: Checkpoint) -> None:
    """Raise DataError where a checkpoint answers with numbers that are not finite."""
    if not math.isfinite(loss):
        raise DataError(
            f"what {checkpoint.model_path} predicts is not finite (loss {loss}): its training had diverged.\n"
            "  Fix: go on from an older checkpoint, or start the run again with a smaller --lr or with --clip"
        )


def agreed_job(run: RunDir, of: type[Job], checkpoint: Checkpoint, changes: Mapping[str, Any]) -> Any:
    """The job a checkpoint was trained with; config.toml and `changes` may differ in what Task.RESUMABLE names.

    Raises UsageError with both values for anything else.
    """
    wanted = job_in(run, of, {})
    recorded = _recorded(checkpoint, of)
    if recorded is None:
        warn([f"{checkpoint.path} is of an older tpc and recorded no settings: those of {run.config_path} are taken"])
        recorded = wanted
    for each in fields(of):
        here, there = getattr(wanted, each.name), getattr(recorded, each.name)
        if here != there and each.name not in Task.RESUMABLE:
            now, then = ("its default" if value is None else repr(value) for value in (here, there))
            raise UsageError(
                f"{run.config_path} has {each.name} = {now} but the checkpoint was trained with {then}; set it back, "
                "or start another run."
            )
    epochs = changes.get("epochs", wanted.epochs)
    if epochs != recorded.epochs and not recorded.extendable:
        raise UsageError(
            f"--epochs cannot change when {run.path} is resumed: its learning rate falls to zero along a cosine over "
            f"{recorded.epochs} epochs, so the steps taken belong to no other number of them, such as {epochs}; start "
            "another run."
        )
    return job_in(run, of, changes)


def job_in(run: RunDir, of: type[Job], changes: Mapping[str, Any]) -> Any:
    """The job in the config.toml of a run."""
    try:
        return of.from_config({**run.read_config(), **changes})
    except UsageError as error:
        raise UsageError(f"{run.config_path}: {error}") from error


def _recorded(checkpoint: Checkpoint, of: type[Job]) -> Job | None:
    text = checkpoint.state.get("config")
    if text is None:
        return None
    try:
        config = tomllib.loads(text)
        if config.get("tpc_version") != VERSION:
            told = f"{checkpoint.path} is one of tpc {config.get('tpc_version')}, and this is {VERSION}"
            warn([f"{told}: what follows may differ in rounding from an uninterrupted run"])
        return of.from_config(config)
    except (tomllib.TOMLDecodeError, UsageError) as error:
        raise DataError(f"the settings recorded in {checkpoint.path} cannot be read: {error}") from error


def check_data(run: RunDir, checkpoint: Checkpoint, task: Task) -> None:
    """Raise UsageError where the data set is not the one of the checkpoint, whatever its name and place."""
    recorded, found = checkpoint.state.get("data"), task.data_digest()
    if recorded not in (None, found):
        where = f" in {task.job.data_dir}" if task.job.data_dir else ""
        raise UsageError(
            f"the data set {task.job.data}{where} has the checksum {found}, but {checkpoint.path} was trained on "
            f"samples with {recorded}: give the --data-dir of those."
        )


def check_program(run: RunDir, checkpoint: Checkpoint, job: Job, trained: str) -> None:
    """Have the program of a run in its directory before training goes on, for the report at its end needs it.

    A file that has gone is put back from where the program was, if that is the same one. One that was changed must
    give the same network, whose listing is `trained`. Raises DataError that says what to do.
    """
    wanted, original = checkpoint.state.get("program_sha256"), Path(job.program)
    found = _content(run.program_path)
    if found is None:
        source = _content(original)
        if source is None or hashlib.sha256(source).hexdigest() != wanted:
            why = "is not there, either" if source is None else "is not known to be the same"
            raise DataError(
                f"{run.program_path}, the program of this run, has gone, and {original} {why}.\n"
                f"  Fix: put the program that was trained back to {run.program_path}"
            )
        write_atomic(run.program_path, source)
        warn([f"{run.program_path} had gone; it is there again, from {original}"])
    elif wanted != hashlib.sha256(found).hexdigest() and not _gives(run.program_path, job, trained):
        raise DataError(
            f"{run.program_path} was changed: it is not the program that {checkpoint.path} was trained with.\n"
            "  Fix: put the program back, or start another run."
        )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _gives(path: Path, job: Job, trained: str) -> bool:
    try:
        return listing(load(path, function=job.function, **job.settings)) == trained
    except UserError:
        return False


def check_copy(path: Path, job: Job, trained: str) -> None:
    """Raise UsageError unless the copy of a program in its run gives the same network; the report will read it."""
    try:
        same = listing(load(path, function=job.function, **job.settings)) == trained
    except UserError as error:
        raise UsageError(
            f"a copy of {job.program} in another folder cannot be run: {error}\n"
            "  Fix: let the program be one file that needs nothing beside it."
        ) from error
    if not same:
        raise UsageError(
            f"{job.program} gives another network each time it is run, or in each folder.\n"
            "  Fix: let the network depend on its settings alone (--set)."
        )
