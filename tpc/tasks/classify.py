"""Classification: a program and a data set become a trained limit in a run directory, ready to resume."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import tpc
from tpc.data import Dataset
from tpc.data import load as load_data
from tpc.errors import UsageError
from tpc.runtime import rundir
from tpc.runtime.arguments import unknown_name
from tpc.runtime.evaluate import Evaluation, evaluate
from tpc.runtime.model import Model
from tpc.runtime.progress import Display
from tpc.runtime.rundir import MetricsLog, RunDir
from tpc.runtime.trainer import Position, Schedule, Trainer, TrainSettings

Drops = tuple[tuple[int, float], ...]
CHANGEABLE_ON_RESUME = ("epochs", "data_dir", "backend", "checkpoint_steps", "checkpoint_seconds")
_MAX_STEP_RECORDS = 20_000


@dataclass(frozen=True)
class TrainJob:
    """Everything needed to repeat a training; the fields are the entries of config.toml."""

    program: str
    function: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    limit: str = "pi"
    data: str = "digits"
    data_dir: str | None = None
    limit_train_size: int | None = None
    backend: str = "numpy"
    dtype: str = "float32"
    rank: int = 100
    mode: str = "exact"
    storage: str | None = None
    init: str | None = None
    epochs: int = 10
    batch_size: int = 32
    lr: float = 0.5
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    lr_drop: Drops = ()
    clip: float | None = None
    clip_drop: Drops = ()
    clip_mode: str = "param"
    weight_decay: float = 0.0
    momentum: float = 0.0
    decay_follows_lr_mult: bool = False
    loss: str = "cross_entropy"
    seed: int = 0
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 300.0

    def to_config(self) -> dict[str, Any]:
        """The job as written to config.toml."""
        config = asdict(self)
        for name in ("lr_drop", "clip_drop"):
            config[name] = [f"{epoch}:{factor!r}" for epoch, factor in config[name]]
        return {"tpc_version": tpc.__version__, **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainJob:
        """The job a config.toml describes; entries of other versions are told, not guessed."""
        known = {each.name for each in fields(cls)}
        unknown = sorted(set(config) - known - {"tpc_version"})
        if unknown or "program" not in config:
            what = f"has the unknown entry {unknown[0]!r}" if unknown else "names no program"
            raise UsageError(f"the configuration {what}; expected entries: {', '.join(sorted(known))}.")
        values = {key: value for key, value in config.items() if key in known}
        for name, value in values.items():
            _check_type(name, value, getattr(_DEFAULTS, name))
        for name in ("lr_drop", "clip_drop"):
            if name in values:
                values[name] = tuple(parse_drop(text) for text in values[name])
        return cls(**values)

    def train_settings(self, steps: int) -> TrainSettings:
        """The part of the job that the training loop reads; `steps` is the length of the training."""
        return TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=Schedule(self.lr, self.lr_drop),
            clip=None if self.clip is None else Schedule(self.clip, self.clip_drop),
            lr_mult=self.lr_mult,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            clip_mode=self.clip_mode,
            decay_follows_lr_mult=self.decay_follows_lr_mult,
            loss=self.loss,
            seed=self.seed,
            log_every=-(-steps // _MAX_STEP_RECORDS),
            checkpoint_steps=self.checkpoint_steps,
            checkpoint_seconds=self.checkpoint_seconds,
        )


_DEFAULTS = TrainJob("")


def _check_type(name: str, value: Any, default: Any) -> None:
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a table"}
    wanted = list if isinstance(default, tuple) else type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return
    if default is not None and type(value) is not wanted:
        raise UsageError(f"the entry {name} should be {kind.get(wanted, 'a list')}, not {value!r}.")


@dataclass(frozen=True)
class RunResult:
    """A finished run and the evaluation at its end."""

    run: RunDir
    evaluation: Evaluation
    model: Model
    dataset: Dataset


def parse_drop(text: str) -> tuple[int, float]:
    """'40:0.15' → (40, 0.15): after 40 epochs the value is multiplied by 0.15."""
    epoch, colon, factor = text.partition(":")
    try:
        drop = int(epoch), float(factor)
    except ValueError:
        drop = (-1, 0.0)
    if not colon or drop[0] < 0 or not 0 < drop[1] < float("inf"):
        raise UsageError(f"{text!r} is not EPOCH:FACTOR, such as 40:0.15 (multiply by 0.15 after 40 epochs).")
    return drop


def train(job: TrainJob, out: Path | None = None, overwrite: bool = False, stream: TextIO | None = None) -> RunResult:
    """Train from the start; nothing is written before program, data and settings are known to be good."""
    if out is not None:
        rundir.check_free(out, overwrite)
    program = tpc.load(job.program, function=job.function, **job.settings)
    limit = tpc.compile(program, limit=job.limit)
    dataset = _load(job)
    options = {name: value for name in ("storage", "init") if (value := getattr(job, name)) is not None}
    model = limit.build(
        input_dim=dataset.input_dim,
        rank=job.rank,
        backend=job.backend,
        dtype=job.dtype,
        seed=job.seed,
        mode=job.mode,
        **options,
    )
    _check_fit(job, model, dataset)
    run = rundir.create(out, f"{Path(job.program).stem}-{job.data}", overwrite)
    shutil.copyfile(job.program, run.program_path)
    run.write_config(job.to_config())
    return _run(job, run, model, dataset, Position(), 0, stream)


def resume(run: RunDir, changes: Mapping[str, Any], stream: TextIO | None = None) -> RunResult:
    """Go on from the newest checkpoint; `changes` may hold the options named in CHANGEABLE_ON_RESUME."""
    fixed = sorted(set(changes) - set(CHANGEABLE_ON_RESUME))
    if fixed:
        raise UsageError(
            f"--{fixed[0].replace('_', '-')} cannot change when a run is resumed; what can: "
            + ", ".join(f"--{name.replace('_', '-')}" for name in CHANGEABLE_ON_RESUME)
        )
    job = TrainJob.from_config({**run.read_config(), **changes})
    checkpoint = run.checkpoints.require()
    dataset = _load(job)
    model = Model.load(checkpoint.model_path, backend=job.backend)
    if changes:
        run.write_config(job.to_config())
    position = Position(**checkpoint.state["position"])
    return _run(job, run, model, dataset, position, checkpoint.state["metrics_bytes"], stream)


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
    job = TrainJob.from_config(run.read_config())
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
    stream: TextIO | None,
) -> RunResult:
    steps = job.epochs * -(-len(dataset.train_x) // job.batch_size)
    log = MetricsLog(run.metrics_path, metrics_bytes)
    train_set, test = (dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)
    try:
        with Display(steps, job.data, stream or sys.stdout) as display:
            sizes = f"{len(dataset.train_x)} training and {len(dataset.test_x)} test samples"
            what = f"{job.limit}-limit of {Path(job.program).stem} on {dataset.name}"
            display.say(f"{what}: {sizes}, rank {job.rank}, {job.backend} {job.dtype}")
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


def _check_fit(job: TrainJob, model: Model, dataset: Dataset) -> None:
    if model.classes != dataset.classes:
        raise UsageError(
            f"the program has {model.classes} outputs but {job.data} has {dataset.classes} classes; "
            f"if the program takes `classes`, give --set classes={dataset.classes}."
        )
    for name in job.lr_mult:
        if name not in model.weights:
            raise UsageError(f"--lr-mult: {unknown_name(name, model.weights, 'parameter')}")
