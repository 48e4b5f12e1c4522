"""The training loop: seeded epochs, schedules, metrics, checkpoints; resuming repeats and skips nothing.

Nothing random outlives a step: the order of epoch e is a function of (seed, e). Model, position in the epoch
and the running sums of the epoch are therefore the whole state; a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UserError
from tpc.runtime.checkpoint import CheckpointStore
from tpc.runtime.evaluate import Evaluation, Stopped, evaluate
from tpc.runtime.interrupt import Interrupt, catch_signals
from tpc.runtime.position import Position
from tpc.runtime.progress import Observer, Quiet, human_bytes, human_time
from tpc.runtime.rundir import MetricsLog

Array = NDArray[Any]
_SINGULAR = (
    " The limit of this program has warnings: kernels of step-like functions and gates are singular where a "
    "latent meets a stored one; a smooth nonlinearity avoids that."
)


class Trainable(Protocol):
    """What the loop needs of a model; `tpc.runtime.model.Model` is one."""

    @property
    def atoms(self) -> Mapping[str, int]: ...

    @property
    def nbytes(self) -> int: ...

    def predict(self, x: Array) -> Array: ...

    @property
    def step(self) -> Callable[..., Mapping[str, Any]]: ...

    def save(self, path: Path) -> None: ...


class DivergedError(UserError):
    """The loss is no longer a number."""


class OutOfMemoryError(UserError):
    """A step or an evaluation could not get its memory; the last checkpoint is whole."""


class InterruptedRunError(UserError):
    """A signal ended training; a checkpoint is written."""


@dataclass(frozen=True)
class Schedule:
    """A value multiplied by a factor once `epoch` epochs are done, for each (epoch, factor) of `drops`."""

    value: float
    drops: tuple[tuple[int, float], ...] = ()

    def at(self, epoch: int) -> float:
        """The value in force in epoch number `epoch`, counted from 0."""
        return math.prod((factor for start, factor in self.drops if epoch >= start), start=self.value)


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the trajectory, and how often to write it down."""

    epochs: int = 10
    batch_size: int = 32
    lr: Schedule = field(default_factory=lambda: Schedule(1.0))
    clip: Schedule | None = None
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip_mode: str = "param"
    decay_follows_lr_mult: bool = False
    loss: str = "cross_entropy"
    seed: int = 0
    log_every: int = 1
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 300.0

    def step_options(self, epoch: int) -> dict[str, Any]:
        """The keyword arguments of `model.step` in `epoch`."""
        return {
            "lr": self.lr.at(epoch),
            "lr_mult": dict(self.lr_mult),
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "clip": None if self.clip is None else self.clip.at(epoch),
            "clip_mode": self.clip_mode,
            "decay_follows_lr_mult": self.decay_follows_lr_mult,
            "loss": self.loss,
        }


class Trainer:
    """Trains `model` on arrays (N, d) and (N,), evaluating on the test arrays after every epoch."""

    def __init__(
        self,
        model: Trainable,
        train: tuple[Array, Array],
        test: tuple[Array, Array],
        settings: TrainSettings,
        log: MetricsLog,
        checkpoints: CheckpointStore,
        position: Position | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self.train_x, self.train_y = train
        self.test_x, self.test_y = test
        self.settings = settings
        self.log = log
        self.checkpoints = checkpoints
        self.position = position or Position()
        self.observer: Observer = observer or Quiet()
        self._resumed_seconds = self.position.seconds
        self._started = self._saved_at = time.monotonic()

    @property
    def batches(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return -(-len(self.train_x) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.batches * self.settings.epochs

    def run(self) -> Evaluation | None:
        """Train to the end; returns the last evaluation (None if no epoch was left).

        Raises DivergedError, OutOfMemoryError or InterruptedRunError; the last checkpoint stays usable.
        """
        try:
            with catch_signals() as interrupt, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return self._run(interrupt)
        except MemoryError as error:
            raise OutOfMemoryError(self._memory_advice(error)) from error

    def _run(self, interrupt: Interrupt) -> Evaluation | None:
        result = None
        self._checkpoint(np.arange(0))
        while self.position.epoch < self.settings.epochs:
            self._run_epoch(interrupt)
            result = self._finish_epoch(interrupt)
        return result

    def _memory_advice(self, error: MemoryError) -> str:
        at, saved = self.position, self.checkpoints.newest()
        asked = str(error).strip().rstrip(".") or "an allocation failed"
        backend = getattr(self.model, "backend", None)
        left = backend.available() if backend is not None else None
        free = "" if left is None else f"; {human_bytes(left.bytes)} are left ({left.limit})"
        kept = ""
        if saved is not None:
            where = self.checkpoints.directory.parent
            kept = (
                f" The checkpoint of step {saved.state['position']['step']} is kept; with more memory, go on with: "
                f"tpc train --resume {where}."
            )
        return (
            f"out of memory after step {at.step} (epoch {at.epoch + 1}): {asked}; the state takes "
            f"{human_bytes(self.model.nbytes)}{free}.{kept} A run that needs less: --mode folded (constant memory), "
            "--storage bfloat16 (half), or a smaller --rank."
        )

    def _run_epoch(self, interrupt: Interrupt) -> None:
        at, size = self.position, self.settings.batch_size
        order = np.random.default_rng([self.settings.seed, at.epoch]).permutation(len(self.train_x))
        options = self.settings.step_options(at.epoch)
        while at.batch < self.batches:
            rows = order[at.batch * size : (at.batch + 1) * size]
            metrics = self.model.step(self.train_x[rows], self.train_y[rows], **options)
            self._require_finite(float(metrics["loss"]))
            at.batch += 1
            at.step += 1
            at.samples += len(rows)
            at.loss_sum += float(metrics["loss"]) * len(rows)
            at.accuracy_sum += float(metrics["accuracy"]) * len(rows)
            self._record_step(metrics, options["lr"])
            if interrupt:
                self._leave(interrupt, rows)
            if self._checkpoint_due():
                self._checkpoint(rows)

    def _finish_epoch(self, interrupt: Interrupt) -> Evaluation:
        at = self.position
        self.observer.step(at.step, {"evaluating": f"{len(self.test_x)} test samples"})
        try:
            result = evaluate(self.model, self.test_x, self.test_y, self.settings.loss, stop=interrupt)
        except Stopped:
            self._leave(interrupt, np.arange(min(len(self.train_x), self.settings.batch_size)))
        self._require_finite(result.loss)
        train_loss, train_accuracy = at.loss_sum / at.samples, at.accuracy_sum / at.samples
        self._update_clock()
        record = {
            "kind": "epoch",
            "epoch": at.epoch + 1,
            "step": at.step,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "test_loss": result.loss,
            "test_accuracy": result.accuracy,
            "atoms": dict(self.model.atoms),
            "bytes": self.model.nbytes,
            "seconds": round(at.seconds, 3),
        }
        remainders: Mapping[str, float] = getattr(self.model, "remainders", {})
        if remainders:
            record["fold_remainder"] = dict(remainders)
        self.log.write(record)
        self.observer.say(
            f"epoch {at.epoch + 1}/{self.settings.epochs}  train loss {train_loss:.4f} accuracy "
            f"{train_accuracy:.2%}  test loss {result.loss:.4f} accuracy {result.accuracy:.2%}  "
            f"atoms {max(self.model.atoms.values(), default=0)}  memory {human_bytes(self.model.nbytes)}  "
            f"{human_time(at.seconds)}" + (f"  folding error {max(remainders.values()):.2%}" if remainders else "")
        )
        at.next_epoch()
        self._checkpoint(np.arange(0))
        return result

    def _record_step(self, metrics: Mapping[str, Any], lr: float) -> None:
        at = self.position
        atoms = max(self.model.atoms.values(), default=0)
        if at.step % self.settings.log_every == 0:
            record = {"kind": "step", "step": at.step, "epoch": at.epoch, "lr": lr, "atoms": atoms}
            self.log.write(record | {key: _plain(value) for key, value in metrics.items()})
        self.observer.step(
            at.step,
            {
                "loss": f"{at.loss_sum / at.samples:.3f}",
                "accuracy": f"{at.accuracy_sum / at.samples:.1%}",
                "atoms": str(atoms),
                "memory": human_bytes(self.model.nbytes),
            },
        )

    def _checkpoint_due(self) -> bool:
        every = self.settings.checkpoint_steps
        if every is not None and self.position.step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= self.settings.checkpoint_seconds

    def _checkpoint(self, probe: Array) -> None:
        """Save, unless the prediction on `probe` rows shows that the model is broken."""
        if len(probe) and not np.isfinite(self.model.predict(self.train_x[probe])).all():
            self._require_finite(math.nan)
        self._update_clock()
        state = {"position": asdict(self.position), "metrics_bytes": self.log.sync()}
        self.checkpoints.write(self.position.epoch, self.position.step, state, self.model.save)
        self._saved_at = time.monotonic()

    def _leave(self, interrupt: Interrupt, probe: Array) -> None:
        self._checkpoint(probe)
        at = self.position
        raise InterruptedRunError(
            f"stopped by {interrupt.name} in epoch {at.epoch + 1} after step {at.step} of "
            f"{self.total_steps}; the checkpoint is written. Go on with: "
            f"tpc train --resume {self.checkpoints.directory.parent}"
        )

    def _require_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        at = self.position
        lr = self.settings.lr.at(at.epoch)
        clip = "" if self.settings.clip is not None else ", or clip the gradients (--clip 0.4)"
        singular = _SINGULAR if getattr(getattr(self.model, "limit", None), "warnings", ()) else ""
        saved = self.checkpoints.newest()
        kept = f" The checkpoint of step {saved.state['position']['step']} is kept." if saved else ""
        self.log.write({"kind": "diverged", "step": at.step, "epoch": at.epoch, "lr": lr})
        raise DivergedError(
            f"training diverged: the loss became {loss} after step {at.step} "
            f"(epoch {at.epoch + 1}, lr {lr:g}). Lower the learning rate (--lr {lr / 4:g}){clip}.{singular}{kept}"
        )

    def _update_clock(self) -> None:
        self.position.seconds = self._resumed_seconds + time.monotonic() - self._started


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value
