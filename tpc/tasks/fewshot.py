"""Few-shot learning: a network that adapts to tasks (tpc.adapt) learns to learn from a support set."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from tpc.compiler import Limit, compile_program
from tpc.data import default_data_dir
from tpc.data.classes import UNIT, ClassTable
from tpc.data.episodes import EpisodeBatch, episodes
from tpc.data.omniglot import Omniglot, load_omniglot
from tpc.errors import UsageError, UserError, did_you_mean
from tpc.limits.kinds import kernel_limits, limit_kind
from tpc.passes.adapt import is_adapted
from tpc.passes.gram_output import unadapted
from tpc.program.program import Program
from tpc.runtime.models.model import Model
from tpc.runtime.networks.network import Network
from tpc.runtime.trained import load_trained
from tpc.runtime.training.checkpoint import Checkpoint
from tpc.runtime.training.episodic import Episodes, FewShotEvaluation, answer
from tpc.runtime.training.position import Position
from tpc.runtime.training.rundir import RunDir
from tpc.tasks import run as runs
from tpc.tasks.job import FewShotJob
from tpc.tasks.recorded import agreed_job, check_data, require_finite, with_newest
from tpc.tasks.representations import before_and_after
from tpc.tasks.run import RunResult
from tpc.tasks.task import Task

Array = NDArray[Any]
DATA = ("omniglot",)
SPLITS = ("train", "validation", "test")
STREAMS = {"train": 0, "validation": 1, "test": 2}  # tasks of different splits come from different random numbers


class DrawingEpisodes(Protocol):
    """A `Drawing` of episodes."""

    def __call__(self, tasks: int, index: int) -> EpisodeBatch: ...


class FewShot(Task):
    """Batches of tasks of the training classes, measured on tasks of the validation classes."""

    COUNTED: ClassVar[str] = "batches"

    def __init__(self, job: FewShotJob) -> None:
        super().__init__(job)
        self.job: FewShotJob = job
        if job.data not in DATA:
            hint = did_you_mean(job.data, DATA)
            raise UsageError(f"expected few-shot data among {', '.join(DATA)}, got {job.data!r}.{hint}")

    @cached_property
    def dataset(self) -> Omniglot:
        """The class tables of the job's split."""
        folder = default_data_dir() if self.job.data_dir is None else Path(self.job.data_dir).expanduser()
        found = load_omniglot(folder, self.job.split)
        return replace(found, train=found.train.mirrored()) if self.job.mirror else found

    @property
    def input_dim(self) -> int:
        return self.dataset.train.input_dim

    @property
    def classes(self) -> int:
        return self.job.ways

    @property
    def class_names(self) -> Sequence[str]:
        return tuple(map(str, range(self.job.ways)))

    def describe_classes(self) -> str:
        return f"tasks have {self.job.ways} classes (--ways)"

    def describe(self) -> str:
        job, data = self.job, self.dataset
        held_out = f"{len(data.validation)} validation and " if len(data.validation) else "no validation and "
        counts = f"{len(data.train)} training, {held_out}{len(data.test)} test classes"
        return f"{job.ways}-way {job.shots}-shot, {counts} ({data.split} split)"

    @property
    def measured(self) -> str:
        """The split measured after every epoch: "test" where there are no validation classes."""
        return "validation" if len(self.dataset.validation) else "test"

    def table(self, split: str) -> ClassTable:
        """The classes of a split. Raises UsageError for an unknown or empty one."""
        if split not in SPLITS:
            raise UsageError(f"expected a split among {', '.join(SPLITS)}, got {split!r}.")
        found: ClassTable = getattr(self.dataset, split)
        if not len(found):
            raise UsageError(f"the {self.dataset.split} split of {self.job.data} has no {split} classes.")
        return found

    def require(self, split: str, queries: int | None = None) -> None:
        """Raise UsageError where a split has too few classes, or its classes too few images, for the tasks."""
        job, table, queries = self.job, self.table(split), queries or self.job.queries
        if len(table) < job.ways:
            raise UsageError(
                f"{job.ways}-way tasks (--ways) need {job.ways} {split} classes; the {self.dataset.split} split of "
                f"{job.data} has {len(table)}."
            )
        if table.images_per_class < job.shots + queries:
            raise UsageError(
                f"{job.shots} support samples (--shots) and {queries} queries (--queries) of a class need "
                f"{job.shots + queries} images of it; {job.data} has {table.images_per_class}."
            )

    def check(self, model: Model | Network) -> None:
        for split in ("train", self.measured, "test"):
            self.require(split)
        super().check(model)

    def draw(self, split: str, queries: int | None = None) -> DrawingEpisodes:
        """How tasks of a split are drawn."""
        job, table = self.job, self.table(split)

        def drawn(tasks: int, index: int) -> EpisodeBatch:
            return episodes(
                table,
                ways=job.ways,
                shots=job.shots,
                queries=queries or job.queries,
                tasks=tasks,
                seed=len(STREAMS) * job.seed + STREAMS[split],
                index=index,
                shift=job.shift if split == "train" else 0,
                dtype=np.dtype(job.dtype),
            )

        return drawn

    def source(self) -> Episodes:
        job = self.job
        return Episodes(
            self.draw("train"),
            self.draw(self.measured),
            self.table(self.measured).alphabets,
            batches=job.batches,
            tasks=job.tasks,
            episodes=job.episodes,
            measured=self.measured,
            loss=job.loss,
        )

    def data_digest(self) -> str:
        crc = 0
        for table in (self.dataset.train, self.dataset.validation, self.dataset.test):
            crc = zlib.crc32(np.ascontiguousarray(table.images).data, crc)
        return f"{self.dataset.split} split, {crc:08x}"

    def check_limit(self, limit: Limit) -> None:
        if not is_adapted(limit.program):
            raise UsageError(
                "the program does not adapt to tasks: let it return tpc.adapt(f, …), as programs/maml.py does, or "
                "train it with tpc train."
            )

    def _sizes(self, done: Position | None) -> dict[str, Any]:
        job, data = self.job, self.dataset
        per_batch = job.tasks * job.ways * job.queries
        return {
            "samples": per_batch * job.batches,
            "batch": per_batch,
            "support": job.tasks * job.ways * job.shots,
            "tasks": job.tasks,
            "data_bytes": sum(t.images.nbytes for t in (data.train, data.validation, data.test)),
            "done": None if done is None else done.epoch * per_batch * job.batches + done.samples,
        }


def train(job: FewShotJob, out: Path | None = None, overwrite: bool = False, stream: TextIO | None = None) -> RunResult:
    """Train from the start; nothing is written before program, data and settings are known to be good."""
    return runs.start(FewShot(job), out, overwrite, stream)


def resume(run: RunDir, changes: Mapping[str, Any], stream: TextIO | None = None) -> RunResult:
    """Go on from the newest checkpoint; `changes` may hold the options named in Task.RESUMABLE."""
    return runs.resume(run, FewShot, FewShotJob, changes, stream)


@dataclass(frozen=True)
class CheckpointEvaluation:
    """What the newest checkpoint of a run does on tasks of a split."""

    step: int
    split: str
    evaluation: FewShotEvaluation

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"step": self.step, "split": self.split, **self.evaluation.to_dict()}


def evaluate_run(
    run: RunDir,
    data_dir: str | None = None,
    backend: str | None = None,
    split: str = "test",
    tasks: int | None = None,
    queries: int | None = None,
    support_shift: int = 0,
) -> CheckpointEvaluation:
    """Answer tasks of a split with the newest checkpoint; their number and that of queries are those of the job.

    With `support_shift` the network adapts to every support image moved by up to so many pixels in every direction.
    """

    def answered(checkpoint: Checkpoint) -> CheckpointEvaluation:
        job = agreed_job(run, FewShotJob, checkpoint, {} if data_dir is None else {"data_dir": data_dir})
        task = FewShot(job)
        check_data(run, checkpoint, task)
        model = load_trained(checkpoint.model_path, backend or job.backend)
        found = evaluate(task, model, split, tasks or job.episodes, queries, support_shift)
        require_finite(found.loss, checkpoint)
        return CheckpointEvaluation(int(checkpoint.state["position"]["step"]), split, found)

    return with_newest(run, answered)


def evaluate(
    task: FewShot,
    model: Model | Network,
    split: str = "test",
    tasks: int = 600,
    queries: int | None = None,
    support_shift: int = 0,
) -> FewShotEvaluation:
    """Answer tasks of a split. Raises UsageError for one without such tasks."""
    task.require(split, queries)
    drawn = task.draw(split, queries)

    def draw(tasks: int, index: int) -> EpisodeBatch:
        return drawn(tasks, index).with_moved_support(support_shift)

    return answer(model, draw, tasks, task.table(split).alphabets, task.job.loss)


def representations(
    task: FewShot, model: Model | Network, classes: int = 5
) -> tuple[dict[str, Array], Array, tuple[str, ...]]:
    """Gram matrices of images of test classes, of the kernel limits, "before training" and "trained"; labels, names.

    Kernel limits, which learn no features, are there for programs that have them. The classes are the first that the
    seed draws; the state before training is the one that the seed gives. Raises UsageError for a finite network, and
    for one without a nonlinearity, whose representation is its input.
    """
    if isinstance(model, Network):
        raise UsageError("representations are those of a limit, and this is a network of finite width.")
    job, table = task.job, task.table("test")
    chosen = np.random.default_rng([job.seed, classes]).permutation(len(table))[:classes]
    some = table.take(chosen.tolist())
    x = some.images.reshape(-1, some.input_dim) / np.float64(UNIT.scale)
    labels = np.repeat(np.arange(len(some)), some.images_per_class)
    kernels = {**_kernel_limits(model.limit.program, x), **before_and_after(task, model, x)}
    return kernels, labels, tuple(map(_shown, some.names))


def _kernel_limits(program: Program, x: Array) -> dict[str, Array]:
    """The kernels of a program's network before it adapts."""
    found = {}
    for limit in kernel_limits():
        try:
            own = limit_kind(limit).kernel
            found[limit.upper()] = compile_program(unadapted(program), limit).kernel(x, only=own)[own]
        except UserError:  # such as a gate, whose kernel has no closed form
            continue
    return found


def _shown(name: str) -> str:
    """'Old_Church/character07/rot000' → 'Old Church 7'."""
    alphabet, character = name.split("/")[:2]
    return f"{alphabet.replace('_', ' ')} {int(character.removeprefix('character'))}"
