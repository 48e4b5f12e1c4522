"""The training loop: seeded epochs, schedules, metrics, checkpoints; resuming repeats and skips nothing.

Nothing random outlives a step: a batch is a function of the seed, its epoch and its number. Model, position in the
epoch and the running sums of the epoch are therefore the whole state; a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from tpc.errors import GaussianError, UserError
from tpc.runtime.models.backend import free_memory
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.training.batches import Batch, Result, Source
from tpc.runtime.training.checkpoint import CheckpointStore
from tpc.runtime.training.evaluation import Stopped
from tpc.runtime.training.interrupt import Interrupt, catch_signals
from tpc.runtime.training.position import Position
from tpc.runtime.training.progress import Observer, Quiet, warn
from tpc.runtime.training.remedy import Remedy, find_remedy
from tpc.runtime.training.rundir import MetricsLog
from tpc.runtime.training.settings import TrainSettings
from tpc.words import human_bytes, human_time

Array = NDArray[Any]
ABSURD = 10.0  # times the loss of the first step
SMALL_LOSS = 1e-3  # what a loss of the first step counts as at least
_SINGULAR = (
    " The limit of this program has warnings: expectations of derivatives of jumps are infinite where a "
    "latent meets a stored one; a nonlinearity without jumps avoids that."
)


class Trainable(Protocol):
    """What the loop needs of a model; `tpc.runtime.models.model.Model` is one."""

    @property
    def atoms(self) -> Mapping[str, int]: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def predict(self) -> Callable[..., Array]: ...

    @property
    def step(self) -> Callable[..., Mapping[str, Any]]: ...

    def save(self, path: Path) -> None: ...


class OutOfMemoryError(UserError):
    """A step or an evaluation could not get its memory; the last checkpoint is whole."""


class InterruptedRunError(UserError):
    """A signal ended training; a checkpoint is written."""


class Trainer:
    """Trains `model` on the batches of a source, evaluating after every epoch; `command` is how to go on."""

    def __init__(
        self,
        model: Trainable,
        source: Source,
        settings: TrainSettings,
        log: MetricsLog,
        checkpoints: CheckpointStore,
        position: Position | None = None,
        observer: Observer | None = None,
        command: str = "tpc train",
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.source = source
        self.settings = settings
        self.log = log
        self.checkpoints = checkpoints
        self.position = position or Position()
        self.observer: Observer = observer or Quiet()
        self.command = command
        self._first_loss: float | None = None  # of this process
        self._last_loss: float | None = None
        self._first_step = self.position.step
        self._first_atoms = dict(model.atoms)
        self.recorded = dict(recorded or {})  # goes into every checkpoint: what is trained
        self._begun = False
        self._resumed_seconds = self.position.seconds
        self._started = self._saved_at = time.monotonic()

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.source.batches * self.settings.epochs

    def begin(self) -> None:
        """Write the checkpoint of where training starts: what comes later can always go on."""
        if not self._begun:
            self._checkpoint(None)
            self._begun = True

    def run(self) -> Result | None:
        """Train to the end; returns the last evaluation (None if no epoch was left).

        Raises DivergedError, OutOfMemoryError or InterruptedRunError; the last checkpoint stays usable.
        """
        try:
            with catch_signals() as interrupt, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return self._run(interrupt)
        except MemoryError as error:
            raise OutOfMemoryError(self._memory_advice(error)) from error

    def _run(self, interrupt: Interrupt) -> Result | None:
        result = None
        self.begin()
        while self.position.epoch < self.settings.epochs:
            self._run_epoch(interrupt)
            result = self._finish_epoch(interrupt)
        warn(self.doubts())
        return result

    def doubts(self) -> Iterator[str]:
        """What makes a training that ended look as if it had learned nothing."""
        first, last = self._first_loss, self._last_loss
        if first is not None and last is not None and last > ABSURD * max(first, SMALL_LOSS):
            yield (
                f"the training loss of the last epoch, {last:.4g}, is {last / max(first, SMALL_LOSS):.3g} times that "
                f"of the first step, {first:.4g}: nothing was learned; lower the learning rate ({self._lower_rates()})"
            )
        taken = self.position.step - self._first_step
        if taken and self.model.atoms and dict(self.model.atoms) == self._first_atoms:
            yield f"no atom was added in {taken} steps: the hidden layers have learned nothing"

    def _memory_advice(self, error: MemoryError) -> str:
        at, saved = self.position, self.checkpoints.newest()
        asked = str(error).strip().rstrip(".") or "an allocation failed"
        left = free_memory(self.model)
        free = "" if left is None else f"; {human_bytes(left.bytes)} are left ({left.limit})"
        kept = ""
        if saved is not None:
            where = self.checkpoints.directory.parent
            kept = (
                f" The checkpoint of step {saved.state['position']['step']} is kept; with more memory, go on with: "
                f"{self.command} --resume {where}."
            )
        return (
            f"out of memory after step {at.step} (epoch {at.epoch + 1}): {asked}; the state takes "
            f"{human_bytes(self.model.nbytes)}{free}.{kept} A run that needs less: --mode folded (constant memory), "
            "--storage bfloat16 (half), or a smaller --rank."
        )

    def _run_epoch(self, interrupt: Interrupt) -> None:
        at = self.position
        while at.batch < self.source.batches:
            options = self.settings.step_options(at.epoch, at.step / self.total_steps)
            batch = self.source.batch(at.epoch, at.batch)
            try:
                metrics = dict(self.model.step(batch.x, batch.y, **batch.options, **options))
            except DivergedError as error:
                self._diverged(f"at step {at.step + 1}", f"{error.reason}.", interrupt)
            metrics["loss"] = float(metrics["loss"]) / batch.tasks
            self._require_finite(metrics["loss"])
            if self._first_loss is None:
                self._first_loss = metrics["loss"]
            at.batch += 1
            at.step += 1
            at.samples += len(batch.y)
            at.loss_sum += metrics["loss"] * len(batch.y)
            at.accuracy_sum += float(metrics.get("accuracy", 0.0)) * len(batch.y)
            self._record_step(metrics, options["lr"])
            if interrupt:
                self._leave(interrupt, batch)
            if self._checkpoint_due():
                self._checkpoint(batch)

    def _finish_epoch(self, interrupt: Interrupt) -> Result:
        at, what = self.position, self.source.measured
        self.observer.step(at.step, {"evaluating": self.source.measured_size})
        try:
            result = self.source.evaluate(self.model, stop=interrupt)
        except Stopped:
            self._leave(interrupt, self.source.batch(at.epoch, 0))
        except (DivergedError, GaussianError) as error:
            self._diverged(f"after step {at.step}", f"{getattr(error, 'reason', error)}.", interrupt)
        self._require_finite(result.loss)
        measure, score = result.measure
        train_loss, train_accuracy = at.loss_sum / at.samples, at.accuracy_sum / at.samples
        known = {"train_accuracy": train_accuracy} if measure == "accuracy" else {}
        self._update_clock()
        record: dict[str, Any] = {
            "kind": "epoch",
            "epoch": at.epoch + 1,
            "step": at.step,
            "train_loss": train_loss,
            **known,
            f"{what}_loss": result.loss,
            f"{what}_{measure}": score,
            "atoms": dict(self.model.atoms),
            "bytes": self.model.nbytes,
            "seconds": round(at.seconds, 3),
        }
        remainders: Mapping[str, float] = getattr(self.model, "remainders", {})
        if remainders:
            record["fold_remainder"] = dict(remainders)
        self.log.write(record)
        self.observer.say(
            f"epoch {at.epoch + 1}/{self.settings.epochs}  train loss {train_loss:.4f} "
            + (f"accuracy {train_accuracy:.2%}  " if known else " ")
            + f"{what} loss {result.loss:.4f} {_shown(measure, score)}  "
            + (f"atoms {max(self.model.atoms.values())}  " if self.model.atoms else "")
            + f"memory {human_bytes(self.model.nbytes)}  {human_time(at.seconds)}"
            + (f"  folding error {max(remainders.values()):.2%}" if remainders else "")
        )
        self._last_loss = train_loss
        at.next_epoch()
        self._checkpoint(None)
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
                **({"accuracy": f"{at.accuracy_sum / at.samples:.1%}"} if "accuracy" in metrics else {}),
                **({"atoms": str(atoms)} if self.model.atoms else {}),
                "memory": human_bytes(self.model.nbytes),
            },
        )

    def _checkpoint_due(self) -> bool:
        every = self.settings.checkpoint_steps
        if every is not None and self.position.step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= self.settings.checkpoint_seconds

    def _checkpoint(self, probe: Batch | None) -> None:
        """Save, unless the prediction on a batch shows that the model is broken."""
        if probe is not None and not self._answers(probe):
            self._diverged(f"after step {self.position.step}", "the outputs are not finite.", None)
        self._update_clock()
        state = {"position": asdict(self.position), "metrics_bytes": self.log.sync(), **self.recorded}
        self.checkpoints.write(self.position.epoch, self.position.step, state, self.model.save)
        self._saved_at = time.monotonic()

    def _answers(self, probe: Batch) -> bool:
        try:
            return bool(np.isfinite(self.model.predict(probe.x, **probe.options)).all())
        except GaussianError:  # beyond what its kernels are known for
            return False

    def _leave(self, interrupt: Interrupt, probe: Batch) -> None:
        self._checkpoint(probe)
        at = self.position
        error = InterruptedRunError(
            f"stopped by {interrupt.name} in epoch {at.epoch + 1} after step {at.step} of "
            f"{self.total_steps}; the checkpoint is written. Go on with: "
            f"{self.command} --resume {self.checkpoints.directory.parent}"
        )
        error.exit_code = interrupt.exit_code
        raise error

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._diverged(f"after step {self.position.step}", f"the loss became {loss}.", None)

    def _diverged(self, when: str, what: str, interrupt: Interrupt | None) -> NoReturn:
        """Tell that training is over, what would have worked, and where the last good state is."""
        at = self.position
        lr = self.settings.lr.at(at.epoch, at.step / self.total_steps)
        self.log.write({"kind": "diverged", "step": at.step, "epoch": at.epoch, "lr": lr})
        saved = self.checkpoints.newest()
        remedy = find_remedy(self, saved, interrupt) if saved is not None else Remedy()
        advice = remedy.told() or f"Lower the learning rate ({self._lower_rates()})."
        singular = _SINGULAR if getattr(getattr(self.model, "limit", None), "warnings", ()) else ""
        kept = f" The checkpoint of step {saved.state['position']['step']} is kept." if saved else ""
        raise DivergedError(
            f"training diverged {when} of {self.total_steps} (epoch {at.epoch + 1}, lr {lr:g}): {what} {advice}"
            f"{singular}{kept}"
        )

    def _lower_rates(self) -> str:
        clip = "" if self.settings.clip is not None else ", or clip the gradients (--clip 0.4)"
        return f"--lr {self.settings.lr.value / 4:g}{clip}"

    def _update_clock(self) -> None:
        self.position.seconds = self._resumed_seconds + time.monotonic() - self._started


def _shown(measure: str, score: float | None) -> str:
    """accuracy 93.10%, R² 0.8712"""
    if measure == "accuracy" and score is not None:
        return f"accuracy {score:.2%}"
    return "R² –" if score is None else f"R² {score:.4f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value
