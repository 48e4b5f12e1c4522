"""What decides a training, besides model and data: rates over time, clipping, momentum, how often to write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A value multiplied by a factor once `epoch` epochs are done, for each (epoch, factor) of `drops`.

    With `cosine` it also falls from step to step, to zero at the end: by ½(1 + cos π·progress).
    """

    value: float
    drops: tuple[tuple[int, float], ...] = ()
    cosine: bool = False

    def at(self, epoch: int, progress: float = 0.0) -> float:
        """The value in force in epoch number `epoch`, counted from 0, when this share of all steps is done."""
        value = math.prod((factor for start, factor in self.drops if epoch >= start), start=self.value)
        return value * 0.5 * (1 + math.cos(math.pi * progress)) if self.cosine else value


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the trajectory, and how often to write it down."""

    epochs: int = 10
    lr: Schedule = field(default_factory=lambda: Schedule(1.0))
    clip: Schedule | None = None
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip_mode: str = "param"
    decay_follows_lr_mult: bool = False
    loss: str = "cross_entropy"
    log_every: int = 1
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 300.0

    def step_options(self, epoch: int, progress: float = 0.0) -> dict[str, Any]:
        """The keyword arguments of `model.step` in `epoch`, when this share of all steps is done."""
        return {
            "lr": self.lr.at(epoch, progress),
            "lr_mult": dict(self.lr_mult),
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "clip": None if self.clip is None else self.clip.at(epoch),
            "clip_mode": self.clip_mode,
            "decay_follows_lr_mult": self.decay_follows_lr_mult,
            "loss": self.loss,
        }
