"""What differs between kinds of training: the data, what a batch is, and what goes together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tpc.compiler import Limit
from tpc.errors import UsageError
from tpc.runtime.models.arguments import unknown_name
from tpc.runtime.models.memory import Training
from tpc.runtime.models.model import Model
from tpc.runtime.networks.network import Network
from tpc.runtime.training.batches import Batch, Source
from tpc.runtime.training.position import Position
from tpc.tasks.job import Job


class Task(ABC):
    """A job with its data, which is loaded when first asked for."""

    COUNTED: ClassVar[str]  # the options that decide how many batches an epoch has
    RESUMABLE: ClassVar[tuple[str, ...]] = ("epochs", "data_dir", "backend", "checkpoint_steps", "checkpoint_seconds")

    def __init__(self, job: Job) -> None:
        self.job = job

    @property
    @abstractmethod
    def input_dim(self) -> int:
        """Features of a sample."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Outputs that the network must have."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """What the outputs mean."""

    @abstractmethod
    def describe_classes(self) -> str:
        """Where the number of classes comes from, such as "digits has 10 classes"."""

    @abstractmethod
    def describe(self) -> str:
        """The data and their number, in words."""

    @abstractmethod
    def source(self) -> Source:
        """Where batches come from."""

    @abstractmethod
    def data_digest(self) -> str:
        """A checksum of the data, the same wherever they lie."""

    @abstractmethod
    def _sizes(self, done: Position | None) -> dict[str, Any]:
        """The fields of `Training` that are not options of the job."""

    def training(self, done: Position | None = None) -> Training:
        """What is left of the training, as far as its memory goes."""
        job = self.job
        return Training(
            input_dim=self.input_dim,
            rank=job.rank,
            epochs=job.epochs,
            backend=job.backend,
            dtype=job.dtype,
            mode=job.mode,
            storage=job.storage,
            fold=job.fold,
            momentum=job.momentum,
            clip=job.clip > 0,
            loss=job.loss,
            extendable=job.extendable,
            **self._sizes(done),
        )

    def check_limit(self, limit: Limit) -> None:
        """Raise UsageError for a program that this task cannot train."""
        del limit

    def check(self, model: Model | Network) -> None:
        """Raise UsageError where program, data and settings do not go together; compiles the generated code."""
        if model.classes != self.classes:
            raise UsageError(
                f"the program has {model.classes} outputs but {self.describe_classes()}; if the program takes "
                f"`classes`, give --set classes={self.classes}."
            )
        for name in self.job.lr_mult:
            if name not in model.weights:
                raise UsageError(f"--lr-mult: {unknown_name(name, model.weights, 'parameter')}")
        first: Batch = self.source().batch(0, 0)
        model.predict(first.x[:1] if first.support is None else first.x, **first.options)
        model.prepare(self.job.loss)
