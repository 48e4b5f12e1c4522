"""Jobs: what a run does, as the entries of its config.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from tpc.errors import UsageError
from tpc.runtime.models.folding import FoldOptions, fold_from
from tpc.runtime.training.settings import Schedule, TrainSettings
from tpc.tasks.entries import check_entry, parse_drop
from tpc.version import VERSION

Drops = tuple[tuple[int, float], ...]
_MAX_STEP_RECORDS = 20_000


@dataclass(frozen=True)
class Job:
    """What every training has; the fields are the entries of config.toml.

    Raises UsageError for a value of the wrong type or out of range.
    """

    TASK: ClassVar[str]
    COMMAND: ClassVar[str]

    program: str
    function: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    limit: str = "pi"
    data: str = ""
    data_dir: str | None = None
    backend: str = "numpy"
    dtype: str = "float32"
    rank: int = 100
    mode: str = "exact"
    fold_degree: int | None = None
    fold_tolerance: float | None = None
    window: int | None = None
    fold_coefficients: str | None = None
    fold_points: int | None = None
    storage: str | None = None
    init: str | None = None
    width: int | None = None
    parametrization: str | None = None
    epochs: int = 10
    lr: float = 0.5
    lr_schedule: str = "constant"
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    lr_drop: Drops = ()
    clip: float = 0.0
    clip_drop: Drops = ()
    clip_mode: str = "param"
    weight_decay: float = 0.0
    momentum: float = 0.0
    decay_follows_lr_mult: bool = False
    loss: str = "cross_entropy"
    seed: int = 0
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        for each in fields(self):
            check_entry(each.name, getattr(self, each.name))
        _ = self.fold
        self._check_network()
        if self.clip_drop and not self.clip:
            raise UsageError("clip_drop (--clip-drop) lowers the clipping norm, so it needs clip (--clip), too.")

    @property
    def fold(self) -> FoldOptions | None:
        """How mode "folded" folds; None in mode "exact"."""
        options = self.fold_degree, self.fold_tolerance, self.window, self.fold_coefficients, self.fold_points
        return fold_from(self.mode, *options)

    @property
    def extendable(self) -> bool:
        """Whether a run of it is the beginning of a longer one; a cosine depends on the length from the first step."""
        return self.lr_schedule != "cosine"

    def _check_network(self) -> None:
        """Raise UsageError for options that a finite network does not have, or only one has."""
        if self.width is None:
            if self.parametrization is not None:
                raise UsageError("parametrization (--parametrization) is one of finite networks: give --width, too.")
            return
        for name, value, wanted in (("mode", self.mode, "exact"), ("storage", self.storage, None)):
            if value != wanted:
                raise UsageError(f"a network of finite width (--width) stores no atoms: leave out --{name}.")
        if self.backend not in ("numpy", "cupy"):
            raise UsageError(f"finite networks (--width) run on the backends numpy and cupy, got {self.backend!r}.")

    @property
    def described(self) -> str:
        """What is trained, in a few words."""
        return f"{self.limit}-limit" if self.width is None else f"{self.parametrization or 'mup'} network"

    @property
    def network(self) -> dict[str, Any] | None:
        """The arguments of `tpc.finite` that are options of the job; None where a limit is trained."""
        if self.width is None:
            return None
        parametrization = self.parametrization or "mup"
        rank = self.rank if parametrization == "pi" else None
        return {"width": self.width, "parametrization": parametrization, "rank": rank, "dtype": self.dtype}

    def check_drops(self) -> None:
        """Raise UsageError for a drop that the training ends before."""
        for name in ("lr_drop", "clip_drop"):
            for epoch, factor in getattr(self, name):
                if epoch >= self.epochs:
                    raise UsageError(
                        f"{name} {epoch}:{factor:g} (--{name.replace('_', '-')}) never takes effect: it starts after "
                        f"{epoch} epochs, and there are {self.epochs}. Leave it out or give more --epochs."
                    )

    def to_config(self) -> dict[str, Any]:
        """The job as written to config.toml."""
        config = asdict(self)
        for name in ("lr_drop", "clip_drop"):
            config[name] = [f"{epoch}:{factor!r}" for epoch, factor in config[name]]
        return {"tpc_version": VERSION, "task": self.TASK, **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The job a config.toml describes; entries of other versions are told, not guessed."""
        if "program" not in config:
            raise UsageError("the configuration names no program.")
        return cls(**checked_entries(config, cls))

    def train_settings(self, steps: int) -> TrainSettings:
        """The part of the job that the training loop reads; `steps` is the length of the training."""
        return TrainSettings(
            epochs=self.epochs,
            lr=Schedule(self.lr, self.lr_drop, self.lr_schedule == "cosine"),
            clip=Schedule(self.clip, self.clip_drop) if self.clip else None,
            lr_mult=self.lr_mult,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            clip_mode=self.clip_mode,
            decay_follows_lr_mult=self.decay_follows_lr_mult,
            loss=self.loss,
            log_every=-(-steps // _MAX_STEP_RECORDS),
            checkpoint_steps=self.checkpoint_steps,
            checkpoint_seconds=self.checkpoint_seconds,
        )


@dataclass(frozen=True)
class TrainJob(Job):
    """Classification: everything needed to repeat a training."""

    TASK: ClassVar[str] = "train"
    COMMAND: ClassVar[str] = "tpc train"

    data: str = "digits"
    limit_train_size: int | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class FewShotJob(Job):
    """Few-shot learning: N-way K-shot tasks, so many in a batch, of the classes of a split.

    An epoch has `batches` batches of `tasks` tasks with `ways` classes, `shots` support and `queries` query samples of
    each; then `episodes` validation tasks are answered. Training images are moved by up to `shift` pixels at random;
    with `mirror` the mirror images of training classes are classes, too.
    """

    TASK: ClassVar[str] = "fewshot"
    COMMAND: ClassVar[str] = "tpc fewshot"

    data: str = "omniglot"
    split: str | None = None
    ways: int = 5
    shots: int = 1
    queries: int = 1
    shift: int = 0
    mirror: bool = False
    tasks: int = 8
    batches: int = 1000
    episodes: int = 600
    lr: float = 32.0
    lr_schedule: str = "cosine"
    clip: float = 0.1
    clip_mode: str = "global"


JOBS: tuple[type[Job], ...] = (TrainJob, FewShotJob)


def job_of(config: Mapping[str, Any]) -> type[Job]:
    """The kind of job a config.toml describes. Raises UsageError for one of a later version."""
    task = config.get("task", TrainJob.TASK)
    for kind in JOBS:
        if task == kind.TASK:
            return kind
    raise UsageError(f"expected a task among {', '.join(kind.TASK for kind in JOBS)}, got {task!r}.")


def checked_entries(config: Mapping[str, Any], kind: type[Job]) -> dict[str, Any]:
    """The fields of a job that a config.toml gives. Raises UsageError for an unknown or wrong entry."""
    recorded = job_of(config)
    if recorded is not kind:
        raise UsageError(f"the configuration is of `{recorded.COMMAND}`, not of `{kind.COMMAND}`.")
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(config) - known - {"tpc_version", "task"})
    if unknown:
        raise UsageError(
            f"the configuration has the unknown entry {unknown[0]!r}; expected entries: {', '.join(sorted(known))}."
        )
    values = {key: value for key, value in config.items() if key in known}
    for name in ("lr_drop", "clip_drop"):
        if name in values:
            if not isinstance(values[name], list):
                raise UsageError(f"expected {name} to be a list such as ['40:0.15'], got {values[name]!r}.")
            values[name] = tuple(parse_drop(text) for text in values[name])
    for name, value in values.items():
        check_entry(name, value)
    return values
