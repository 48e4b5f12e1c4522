"""Classification: a program and a data set become a trained limit in a run directory, ready to resume."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import tpc
from tpc.compiler import Limit
from tpc.data import Dataset
from tpc.data import load as load_data
from tpc.errors import UsageError
from tpc.program.text import parse
from tpc.runtime import rundir
from tpc.runtime.arguments import unknown_name
from tpc.runtime.evaluate import Evaluation, evaluate
from tpc.runtime.memory import Prediction, Training, gigabytes, require_memory
from tpc.runtime.model import Model
from tpc.runtime.position import Position
from tpc.runtime.progress import Display, warn
from tpc.runtime.rundir import MetricsLog, RunDir
from tpc.runtime.saving import DAMAGED
from tpc.runtime.trainer import Trainer
from tpc.tasks.job import TrainJob

CHANGEABLE_ON_RESUME = ("epochs", "data_dir", "backend", "checkpoint_steps", "checkpoint_seconds")


@dataclass(frozen=True)
class RunResult:
    """A finished run and the evaluation at its end."""

    run: RunDir
    evaluation: Evaluation
    model: Model
    dataset: Dataset


def train(job: TrainJob, out: Path | None = None, overwrite: bool = False, stream: TextIO | None = None) -> RunResult:
    """Train from the start; nothing is written before program, data and settings are known to be good."""
    job.check_drops()
    if out is not None:
        rundir.check_free(out, overwrite)
    program = tpc.load(job.program, function=job.function, **job.settings)
    limit = tpc.compile(program, limit=job.limit)
    dataset = _load(job)
    prediction = require_memory(limit, _training(job, dataset))
    options = {name: value for name in ("storage", "init") if (value := getattr(job, name)) is not None}
    model = limit.build(
        input_dim=dataset.input_dim,
        rank=job.rank,
        backend=job.backend,
        dtype=job.dtype,
        seed=job.seed,
        mode=job.mode,
        fold=job.fold,
        **options,
    )
    _check_fit(job, model, dataset)
    run = rundir.create(out, f"{Path(job.program).stem}-{job.data}", overwrite)
    shutil.copyfile(job.program, run.program_path)
    run.write_config(job.to_config())
    return _run(job, run, model, dataset, Position(), 0, prediction, stream)


def resume(run: RunDir, changes: Mapping[str, Any], stream: TextIO | None = None) -> RunResult:
    """Go on from the newest checkpoint; `changes` may hold the options named in CHANGEABLE_ON_RESUME."""
    fixed = sorted(set(changes) - set(CHANGEABLE_ON_RESUME))
    if fixed:
        raise UsageError(
            f"--{fixed[0].replace('_', '-')} cannot change when a run is resumed; what can: "
            + ", ".join(f"--{name.replace('_', '-')}" for name in CHANGEABLE_ON_RESUME)
        )
    job = _recorded_job(run, changes)
    checkpoint = run.checkpoints.require()
    metrics_bytes = checkpoint.state["metrics_bytes"]
    run.read_metrics(metrics_bytes)  # a damaged record is told before hours of training, not by the report after them
    dataset = _load(job)
    position = Position(**checkpoint.state["position"])
    limit = _saved_limit(checkpoint.model_path)
    prediction = require_memory(limit, _training(job, dataset, position))
    model = Model.load(checkpoint.model_path, backend=job.backend)
    _check_same(job, run, model, dataset, position)
    _check_fit(job, model, dataset)
    if changes:
        run.write_config(job.to_config())
    return _run(job, run, model, dataset, position, metrics_bytes, prediction, stream)


@dataclass(frozen=True)
class CheckpointEvaluation:
    """What the newest checkpoint of a run does on the test set."""

    step: int
    evaluation: Evaluation
    class_names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"step": self.step, "classes": list(self.class_names), **self.evaluation.to_dict()}


def evaluate_run(run: RunDir, data_dir: str | None = None, backend: str | None = None) -> CheckpointEvaluation:
    """Evaluate the newest checkpoint on the test set."""
    job = _recorded_job(run, {})
    checkpoint = run.checkpoints.require()
    dataset = _load(replace(job, data_dir=data_dir or job.data_dir))
    model = Model.load(checkpoint.model_path, backend=backend or job.backend)
    step = int(checkpoint.state["position"]["step"])
    evaluation = evaluate(model, dataset.test_x, dataset.test_y, job.loss)
    return CheckpointEvaluation(step, evaluation, dataset.class_names)


def _run(
    job: TrainJob,
    run: RunDir,
    model: Model,
    dataset: Dataset,
    position: Position,
    metrics_bytes: int,
    prediction: Prediction,
    stream: TextIO | None,
) -> RunResult:
    warn(model.limit.warnings)
    steps = job.epochs * _batches(job, dataset)
    log = MetricsLog(run.metrics_path, metrics_bytes)
    train_set, test = (dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)
    try:
        with Display(steps, job.data, stream or sys.stdout) as display:
            sizes = f"{len(dataset.train_x)} training and {len(dataset.test_x)} test samples"
            what = f"{job.limit}-limit of {Path(job.program).stem} on {dataset.name}"
            memory = f"memory at most about {gigabytes(prediction.peak)}"
            display.say(f"{what}: {sizes}, rank {job.rank}, {job.backend} {job.dtype}, {memory}")
            settings = job.train_settings(steps)
            trainer = Trainer(model, train_set, test, settings, log, run.checkpoints, position, display)
            result = trainer.run()
    finally:
        log.close()
    if result is None:  # every epoch was done before
        result = evaluate(model, *test, job.loss)
    return RunResult(run, result, model, dataset)


def _load(job: TrainJob) -> Dataset:
    folder = None if job.data_dir is None else Path(job.data_dir)
    return load_data(job.data, folder, job.limit_train_size, np.dtype(job.dtype))


def _training(job: TrainJob, dataset: Dataset, position: Position | None = None) -> Training:
    """What is left of a training, as far as its memory goes."""
    samples = len(dataset.train_x)
    arrays = (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y)
    return Training(
        input_dim=dataset.input_dim,
        rank=job.rank,
        samples=samples,
        batch=job.batch_size,
        epochs=job.epochs,
        data_bytes=sum(a.nbytes for a in arrays),
        backend=job.backend,
        dtype=job.dtype,
        mode=job.mode,
        storage=job.storage,
        fold=job.fold,
        momentum=job.momentum,
        clip=job.clip is not None,
        loss=job.loss,
        done=None if position is None else position.epoch * samples + position.samples,
    )


def _saved_limit(path: Path) -> Limit:
    """The limit of a saved model, whose arrays are not read yet."""
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
        return tpc.compile(parse(meta["program"], str(path)), limit=meta["limit"])
    except DAMAGED:
        return Model.load(path).limit  # which tells what is wrong with it


def _batches(job: TrainJob, dataset: Dataset) -> int:
    return -(-len(dataset.train_x) // job.batch_size)


def _recorded_job(run: RunDir, changes: Mapping[str, Any]) -> TrainJob:
    try:
        return TrainJob.from_config({**run.read_config(), **changes})
    except UsageError as error:
        raise UsageError(f"{run.config_path}: {error}") from error


def _check_fit(job: TrainJob, model: Model, dataset: Dataset) -> None:
    """Raise UsageError where program, data and settings do not go together; compiles the generated code."""
    if model.classes != dataset.classes:
        raise UsageError(
            f"the program has {model.classes} outputs but {job.data} has {dataset.classes} classes; "
            f"if the program takes `classes`, give --set classes={dataset.classes}."
        )
    for name in job.lr_mult:
        if name not in model.weights:
            raise UsageError(f"--lr-mult: {unknown_name(name, model.weights, 'parameter')}")
    model.predict(dataset.train_x[:1])
    model._module(job.loss)


def _check_same(job: TrainJob, run: RunDir, model: Model, dataset: Dataset, position: Position) -> None:
    """Raise UsageError where config.toml was changed into that of another training."""
    saved: dict[str, Any] = {
        "limit": model.limit.kind,
        "rank": model.rank,
        "dtype": model.dtype,
        "mode": model.mode,
        "storage": model.storage,
    }
    wanted = {name: getattr(job, name) for name in saved}
    wanted["storage"] = wanted["storage"] or job.dtype
    if job.fold is not None and model.mode == "folded":
        saved |= {f"fold {name}": value for name, value in asdict(model.fold).items() if name != "tolerance"}
        wanted |= {f"fold {name}": value for name, value in asdict(job.fold).items()}
        wanted["fold degree"] = wanted["fold degree"] or model.fold.degree
    for name in saved:
        if wanted[name] != saved[name]:
            raise UsageError(
                f"{run.config_path} has {name} = {wanted[name]!r} but the checkpoint was trained with "
                f"{saved[name]!r}; set it back, or start another run."
            )
    if model.input_dim != dataset.input_dim:
        raise UsageError(
            f"{run.config_path} has data = {job.data!r} with inputs of dimension {dataset.input_dim}, but the "
            f"checkpoint was trained on inputs of dimension {model.input_dim}; set it back, or start another run."
        )
    batches = _batches(job, dataset)
    if position.step != position.epoch * batches + position.batch:
        raise UsageError(
            f"{run.config_path} gives {batches} batches per epoch, but the checkpoint (epoch {position.epoch}, batch "
            f"{position.batch}, step {position.step}) was trained with another number; set batch_size and "
            "limit_train_size back, or start another run."
        )
