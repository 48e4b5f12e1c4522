"""What to try after training diverged: rates and clipping norms, each tried from the last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from tpc.errors import GaussianError
from tpc.runtime.models.backend import free_memory
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.training.batches import Source
from tpc.runtime.training.checkpoint import Checkpoint
from tpc.runtime.training.progress import Observer
from tpc.runtime.training.settings import Schedule, TrainSettings

STEPS = 20
SECONDS = 20.0  # for all trials together
FACTORS = tuple(4.0**-k for k in range(1, 6))
CLIPS = (0.4, 0.1)
ROOM = 3  # free memory, in sizes of the state, that a second model may be loaded into


@dataclass(frozen=True)
class Trial:
    """One setting, and the loss of the first batch before and after some steps with it."""

    option: str
    before: float
    after: float


@dataclass(frozen=True)
class Remedy:
    """The settings that worked for `steps` steps from the checkpoint of step `start`; `tried` says what did not."""

    steps: int = 0
    start: int = 0
    worked: tuple[Trial, ...] = ()
    tried: tuple[str, ...] = ()

    def told(self) -> str:
        """A sentence; empty where nothing was tried."""
        if self.worked:
            found = " or ".join(f"{t.option} (loss {t.before:.3g} → {t.after:.3g})" for t in self.worked)
            return f"What learns for {self.steps} steps from the checkpoint of step {self.start}: {found}."
        if self.tried:
            return (
                f"Nothing tried learns for {self.steps} steps from the checkpoint of step {self.start} "
                f"({', '.join(self.tried)}): normalise the hidden layers (tpc.rms_norm), scale down their weight_std "
                "or the inputs."
            )
        return ""


class Run(Protocol):
    """A training that diverged; a `Trainer` is one."""

    model: Any
    source: Source
    settings: TrainSettings
    observer: Observer

    @property
    def total_steps(self) -> int: ...


def find_remedy(trainer: Run, saved: Checkpoint, stop: object) -> Remedy:
    """Try smaller rates, then clipping, on the batches that follow a checkpoint; nothing of the training changes.

    Nothing is tried where a second model would not fit into memory, and no longer than `SECONDS`.
    """
    begin = _beginning(trainer.model, saved)
    if begin is None or not _fits(trainer):
        return Remedy()
    start = int(saved.state["position"]["step"])
    trainer.observer.say(f"training diverged; trying other settings from the checkpoint of step {start} …")
    worked: list[Trial] = []
    tried: list[str] = []
    until = time.monotonic() + SECONDS
    for family in (_rates(trainer.settings), _clips(trainer.settings)):
        for option, settings in family:
            if stop or time.monotonic() > until:
                break
            try:
                found = _trial(trainer, begin(), saved, settings, until)
            except MemoryError:
                return Remedy()
            if found is not None and found[1] < found[0]:
                worked.append(Trial(option, *found))
                break
            tried.append(option)
    return Remedy(STEPS, start, tuple(worked), tuple(tried))


def _beginning(model: Any, saved: Checkpoint) -> Callable[[], Any] | None:
    """Gives a model with the state of a checkpoint, again and again; None for a model that cannot be loaded."""
    load = getattr(model, "twin", None) or getattr(type(model), "load", None)
    if load is None or not hasattr(model, "load_state"):
        return None if load is None else lambda: load(saved.model_path)
    loaded: list[Any] = []

    def begin() -> Any:
        if not loaded:
            made = load(saved.model_path)
            loaded.extend((made, made.state()))
        loaded[0].load_state(loaded[1])
        return loaded[0]

    return begin


def _fits(trainer: Run) -> bool:
    free = free_memory(trainer.model)
    return free is None or bool(free.bytes > ROOM * trainer.model.nbytes)


def _scaled(schedule: Schedule, factor: float) -> Schedule:
    return replace(schedule, value=schedule.value * factor)


def _rates(settings: TrainSettings) -> Iterator[tuple[str, TrainSettings]]:
    for factor in FACTORS:
        lr = _scaled(settings.lr, factor)
        yield f"--lr {lr.value:.3g}", replace(settings, lr=lr)


def _clips(settings: TrainSettings) -> Iterator[tuple[str, TrainSettings]]:
    if settings.clip is not None:
        for factor in FACTORS[:2]:
            clip = _scaled(settings.clip, factor)
            yield f"--clip {clip.value:.3g}", replace(settings, clip=clip)
        return
    for value in CLIPS:
        yield f"--clip {value:g}", replace(settings, clip=replace(settings.lr, value=value, drops=(), cosine=False))


def _trial(
    trainer: Run, model: Any, saved: Checkpoint, settings: TrainSettings, until: float
) -> tuple[float, float] | None:
    """The loss of the first batch before and after the steps; None where it is not finite, or time runs out."""
    source, at = trainer.source, saved.state["position"]
    losses = []
    order = [divmod(at["epoch"] * source.batches + at["batch"] + k, source.batches) for k in range(STEPS)]
    for k, (epoch, number) in enumerate([*order, order[0]]):
        batch = source.batch(epoch, number)
        options = settings.step_options(epoch, min(1.0, (at["step"] + k) / trainer.total_steps))
        try:
            loss = float(model.step(batch.x, batch.y, **batch.options, **options)["loss"]) / batch.tasks
        except DivergedError:
            return None
        losses.append(loss)
        if not math.isfinite(loss) or time.monotonic() > until:
            return None
    try:
        whole = np.isfinite(model.predict(batch.x, **batch.options)).all()
    except GaussianError:  # beyond what its kernels are known for
        return None
    return (losses[0], losses[-1]) if whole else None
