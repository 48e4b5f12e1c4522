"""Runs: a job becomes a trained limit or finite network in a run directory, ready to resume."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tpc.compiler import Limit, compile_program
from tpc.derivation import Derivation
from tpc.errors import UsageError, UserError
from tpc.program.load import load
from tpc.program.text import listing, parse
from tpc.runtime.files.npz import read_meta
from tpc.runtime.files.whole import WriteError, write_atomic
from tpc.runtime.models.memory import Prediction, gigabytes, require_memory
from tpc.runtime.models.model import Model
from tpc.runtime.models.saving import DAMAGED
from tpc.runtime.networks.drawn import initialize
from tpc.runtime.networks.network import Network
from tpc.runtime.networks.network_file import is_network
from tpc.runtime.networks.network_memory import require_network_memory
from tpc.runtime.training import metrics, rundir
from tpc.runtime.training.batches import Result
from tpc.runtime.training.position import Position
from tpc.runtime.training.progress import Display, warn
from tpc.runtime.training.rundir import MetricsLog, RunDir
from tpc.runtime.training.trainer import Trainer
from tpc.tasks.job import Job, job_of
from tpc.tasks.recorded import agreed_job, check_copy, check_data, check_program, record, usable_checkpoint
from tpc.tasks.task import Task


@dataclass(frozen=True)
class RunResult:
    """A finished run and the evaluation at its end."""

    run: RunDir
    evaluation: Result
    model: Model | Network
    task: Task


def start(task: Task, out: Path | None = None, overwrite: bool = False, stream: TextIO | None = None) -> RunResult:
    """Train from the start; nothing stays written unless program, data, settings and the disk are good.

    Raises BusyError, before any work, where another process writes to `out`.
    """
    job = task.job
    job.check_drops()
    with rundir.claim(out, overwrite):
        program = load(job.program, function=job.function, **job.settings)
        source = Path(job.program).read_bytes()
        _check_alone(job, source, listing(program))
        limit = compile_program(program, limit=job.limit)
        task.check_limit(limit)
        model, prediction = _built(task, limit)
        task.check(model)
        run = rundir.create(out, f"{Path(job.program).stem}-{job.data}", overwrite)
        try:
            with nullcontext() if out is not None else run.lock():
                return _begin(task, run, model, source, prediction, stream)
        finally:
            if out is None:
                with suppress(OSError):  # not empty
                    run.path.rmdir()


def _check_alone(job: Job, source: bytes, traced: str) -> None:
    """Tell now, and not after the training, that the report cannot be made from the copy of a program."""
    with tempfile.TemporaryDirectory(prefix="tpc-program-") as folder:
        copy = Path(folder) / Path(job.program).name
        copy.write_bytes(source)
        check_copy(copy, job, traced)


def _begin(
    task: Task, run: RunDir, model: Model | Network, source: bytes, prediction: Prediction, stream: TextIO | None
) -> RunResult:
    """Train in a fresh directory, of which nothing stays unless there is a checkpoint."""
    try:
        write_atomic(run.program_path, source)
        run.write_config(task.job.to_config())
        recorded = record(task.job, source, task.data_digest())
        return _run(task, run, model, Position(), 0, prediction, stream, recorded)
    except WriteError as error:
        if run.checkpoints.newest() is None:
            raise UserError(
                f"{error} There is no checkpoint yet, and nothing of this run is kept. {error.remedy} and run the same "
                "command again."
            ) from error
        raise
    finally:
        if run.checkpoints.newest() is None:
            run.discard()


def _built(task: Task, limit: Limit) -> tuple[Model | Network, Prediction]:
    """An initialized model or finite network that fits into memory."""
    job = task.job
    if job.network is not None:
        net = Network(limit, input_shape=task.input_dim, backend=job.backend, **job.network)
        prediction = require_network_memory(net, task.training())
        initialize(net, job.seed, job.init)
        return net, prediction
    prediction = require_memory(limit, task.training())
    options = {name: value for name in ("storage", "init") if (value := getattr(job, name)) is not None}
    model = limit.build(
        input_dim=task.input_dim,
        rank=job.rank,
        backend=job.backend,
        dtype=job.dtype,
        seed=job.seed,
        mode=job.mode,
        fold=job.fold,
        **options,
    )
    return model, prediction


def resume(
    run: RunDir, kind: Callable[[Any], Task], of: type[Job], changes: Mapping[str, Any], stream: TextIO | None = None
) -> RunResult:
    """Go on from the newest checkpoint with the task `kind` makes of the recorded job, of class `of`.

    `changes` may hold the options that the task names in RESUMABLE.
    """
    _require_kind(run, of)
    allowed = Task.RESUMABLE
    fixed = sorted(set(changes) - set(allowed))
    if fixed:
        raise UsageError(
            f"--{fixed[0].replace('_', '-')} cannot change when a run is resumed; what can: "
            + ", ".join(f"--{name.replace('_', '-')}" for name in allowed)
        )
    with run.lock():
        run.settle()
        checkpoint = usable_checkpoint(run)
        task = kind(agreed_job(run, of, checkpoint, changes))
        position = Position(**checkpoint.state["position"])
        model, prediction = _restored(task, checkpoint.model_path, position)
        trained = model.program if isinstance(model, Network) else model.limit.program
        check_program(run, checkpoint, task.job, listing(trained))
        check_data(run, checkpoint, task)
        _check_same(task, run, model, position)
        task.check(model)
        metrics_bytes, told = metrics.mend(
            run.metrics_path, checkpoint.state["metrics_bytes"], position.epoch, position.step
        )
        warn([told] if told else [])
        if changes:
            run.write_config(task.job.to_config())
        recorded = record(task.job, run.program_path.read_bytes(), task.data_digest())
        return _run(task, run, model, position, metrics_bytes, prediction, stream, recorded)


def _require_kind(run: RunDir, of: type[Job]) -> None:
    try:
        found = job_of(run.read_config())
    except UsageError as error:
        raise UsageError(f"{run.config_path}: {error}") from error
    if found is not of:
        raise UsageError(
            f"{run.path} is a run of `{found.COMMAND}`, not of `{of.COMMAND}`; go on with it by: "
            f"{found.COMMAND} --resume {run.path}"
        )


def _restored(task: Task, path: Path, position: Position) -> tuple[Model | Network, Prediction]:
    """The model or finite network of a checkpoint, once what is left of the training is known to fit into memory."""
    left = task.training(position)
    if is_network(path):
        net = Network.load(path, backend=task.job.backend)
        return net, require_network_memory(net, left)
    prediction = require_memory(_saved_limit(path), left)
    return Model.load(path, backend=task.job.backend), prediction


def _run(
    task: Task,
    run: RunDir,
    model: Model | Network,
    position: Position,
    metrics_bytes: int,
    prediction: Prediction,
    stream: TextIO | None,
    recorded: Mapping[str, Any],
) -> RunResult:
    job, source = task.job, task.source()
    if isinstance(model, Model):
        warn(model.limit.warnings)
    steps = job.epochs * source.batches
    log = MetricsLog(run.metrics_path, metrics_bytes)
    try:
        with Display(steps, job.data, stream or sys.stdout) as display:
            what = f"{job.described} of {Path(job.program).stem} on {job.data}"
            memory = f"memory at most about {gigabytes(prediction.peak)}"
            display.say(f"{what}: {task.describe()}, {model.size}, {job.backend} {job.dtype}, {memory}")
            settings = job.train_settings(steps)
            trainer = Trainer(model, source, settings, log, run.checkpoints, position, display, job.COMMAND, recorded)
            trainer.begin()
            run.commit()
            result = trainer.run()
    except WriteError as error:
        saved = run.checkpoints.newest()
        if saved is None:
            raise
        raise UserError(
            f"{error} The checkpoint of step {saved.state['position']['step']} is whole. {error.remedy} and go on "
            f"with: {job.COMMAND} --resume {run.path}"
        ) from error
    finally:
        log.close()
    if result is None:  # every epoch was done before
        result = source.evaluate(model)
    return RunResult(run, result, model, task)


def _saved_limit(path: Path) -> Derivation:
    """The limit of a saved model, whose arrays are not read yet."""
    try:
        meta = read_meta(path)
        return Derivation.of(parse(meta["program"], str(path)), meta["limit"])
    except DAMAGED:
        return Model.load(path).limit  # which tells what is wrong with it


def _sizes(job: Job, model: Model | Network) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint was trained with, and what the job says, by the name of the entry."""
    if isinstance(model, Network):
        wanted = job.network or {"width": None}
        return {name: getattr(model, name) for name in wanted}, wanted
    saved: dict[str, Any] = {
        "width": None,
        "limit": model.limit.kind,
        "rank": model.rank,
        "dtype": model.dtype,
        "mode": model.mode,
        "storage": model.storage,
    }
    wanted = {name: getattr(job, name) for name in saved}
    wanted["storage"] = wanted["storage"] or job.dtype
    if job.fold is not None and model.mode == "folded":
        saved["fold points"] = model.fold.points  # before the coefficients, which follow from it
        saved |= {f"fold {name}": value for name, value in asdict(model.fold).items() if name != "tolerance"}
        wanted |= {f"fold {name}": value for name, value in asdict(job.fold).items()}
        wanted["fold degree"] = wanted["fold degree"] or model.fold.degree
    return saved, wanted


def _check_same(task: Task, run: RunDir, model: Model | Network, position: Position) -> None:
    """Raise UsageError where config.toml was changed into that of another training."""
    job = task.job
    saved, wanted = _sizes(job, model)
    for name in saved:
        if wanted[name] != saved[name]:
            raise UsageError(
                f"{run.config_path} has {name} = {wanted[name]!r} but the checkpoint was trained with "
                f"{saved[name]!r}; set it back, or start another run."
            )
    if model.input_dim != task.input_dim:
        raise UsageError(
            f"{run.config_path} has data = {job.data!r} with inputs of dimension {task.input_dim}, but the "
            f"checkpoint was trained on inputs of dimension {model.input_dim}; set it back, or start another run."
        )
    batches = task.source().batches
    if position.step != position.epoch * batches + position.batch:
        raise UsageError(
            f"{run.config_path} gives {batches} batches per epoch, but the checkpoint (epoch {position.epoch}, batch "
            f"{position.batch}, step {position.step}) was trained with another number; set {task.COUNTED} "
            "back, or start another run."
        )
