"""Classification: a program learns to tell the classes of a data set apart."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np
from numpy.typing import NDArray

from tpc.compiler import Limit
from tpc.data import Dataset
from tpc.data import load as load_data
from tpc.errors import UsageError
from tpc.passes.adapt import is_adapted
from tpc.runtime.models.model import Model
from tpc.runtime.networks.network import Network
from tpc.runtime.trained import load_trained
from tpc.runtime.training.batches import Samples
from tpc.runtime.training.checkpoint import Checkpoint
from tpc.runtime.training.evaluation import Evaluation, evaluate
from tpc.runtime.training.position import Position
from tpc.runtime.training.rundir import RunDir
from tpc.tasks import run as runs
from tpc.tasks.job import TrainJob
from tpc.tasks.recorded import agreed_job, check_data, require_finite, with_newest
from tpc.tasks.representations import before_and_after
from tpc.tasks.run import RunResult
from tpc.tasks.task import Task

Array = NDArray[Any]


class Classification(Task):
    """Batches of a data set in an order that the seed decides, measured on its test set."""

    COUNTED: ClassVar[str] = "batch_size and limit_train_size"

    def __init__(self, job: TrainJob) -> None:
        super().__init__(job)
        self.job: TrainJob = job

    @cached_property
    def dataset(self) -> Dataset:
        """The data, of the job's number type."""
        job = self.job
        folder = None if job.data_dir is None else Path(job.data_dir)
        return load_data(job.data, folder, job.limit_train_size, np.dtype(job.dtype))

    @property
    def input_dim(self) -> int:
        return self.dataset.input_dim

    @property
    def classes(self) -> int:
        return self.dataset.classes

    @property
    def class_names(self) -> Sequence[str]:
        return self.dataset.class_names

    def describe_classes(self) -> str:
        return f"{self.job.data} has {self.classes} classes"

    def describe(self) -> str:
        return f"{len(self.dataset.train_x)} training and {len(self.dataset.test_x)} test samples"

    def source(self) -> Samples:
        data, job = self.dataset, self.job
        train, test = (data.train_x, data.train_y), (data.test_x, data.test_y)
        return Samples(train, test, job.batch_size, job.seed, job.loss)

    def data_digest(self) -> str:
        data, crc = self.dataset, 0
        for labels in (data.train_y, data.test_y):  # not the inputs, whose last bits depend on the version of NumPy
            crc = zlib.crc32(np.asarray(labels, np.int64).tobytes(), crc)
        return f"{len(data.train_y)}+{len(data.test_y)} samples, {crc:08x}"

    def check_limit(self, limit: Limit) -> None:
        if is_adapted(limit.program):
            raise UsageError("the program adapts to tasks (tpc.adapt); train it with tpc fewshot.")

    def _sizes(self, done: Position | None) -> dict[str, Any]:
        data, samples = self.dataset, len(self.dataset.train_x)
        return {
            "samples": samples,
            "batch": self.job.batch_size,
            "data_bytes": sum(a.nbytes for a in (data.train_x, data.train_y, data.test_x, data.test_y)),
            "done": None if done is None else done.epoch * samples + done.samples,
        }


def train(job: TrainJob, out: Path | None = None, overwrite: bool = False, stream: TextIO | None = None) -> RunResult:
    """Train from the start; nothing is written before program, data and settings are known to be good."""
    return runs.start(Classification(job), out, overwrite, stream)


def resume(run: RunDir, changes: Mapping[str, Any], stream: TextIO | None = None) -> RunResult:
    """Go on from the newest checkpoint; `changes` may hold the options named in Task.RESUMABLE."""
    return runs.resume(run, Classification, TrainJob, changes, stream)


def representations(
    task: Classification, model: Model | Network, samples: int = 200
) -> tuple[dict[str, Array], Array, tuple[str, ...]]:
    """Gram matrices of the first test samples "before training" and "trained"; their labels, the names of classes.

    Raises UsageError for a finite network, and for one without a nonlinearity, whose representation is its input.
    """
    data = task.dataset
    x, labels = data.test_x[:samples], np.asarray(data.test_y[:samples])
    return before_and_after(task, model, x), labels, tuple(map(str, task.class_names))


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

    def measured(checkpoint: Checkpoint) -> CheckpointEvaluation:
        job = agreed_job(run, TrainJob, checkpoint, {} if data_dir is None else {"data_dir": data_dir})
        task = Classification(job)
        check_data(run, checkpoint, task)
        model, data = load_trained(checkpoint.model_path, backend or job.backend), task.dataset
        found = evaluate(model, data.test_x, data.test_y, job.loss)
        require_finite(found.loss, checkpoint)
        return CheckpointEvaluation(int(checkpoint.state["position"]["step"]), found, data.class_names)

    return with_newest(run, measured)
