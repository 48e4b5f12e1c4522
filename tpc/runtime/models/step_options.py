"""What a step of SGD takes besides its batch, in one object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

from tpc.runtime.models.arguments import check_step, multipliers

Step = TypeVar("Step", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """The keyword arguments of `Model.step`, which says what they mean."""

    lr: float
    lr_mult: Mapping[str, float] | None = None
    weight_decay: float = 0.0
    decay_follows_lr_mult: bool = False
    momentum: float = 0.0
    clip: float | None = None
    clip_mode: str = "param"
    loss: str = "cross_entropy"

    def checked(self, weights: Iterable[str]) -> StepOptions:
        """With a multiplier for each of the weights. Raises UsageError for what is out of range or has no weight."""
        mult = multipliers({} if self.lr_mult is None else self.lr_mult, weights)
        check_step(self.lr, self.weight_decay, self.momentum, self.clip, self.clip_mode)
        return replace(self, lr_mult=mult)

    @property
    def keywords(self) -> dict[str, Any]:
        """By name, for `step`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def rates(self) -> dict[str, float]:
        """The learning rate of every weight of checked options."""
        return {w: self.lr * mult for w, mult in (self.lr_mult or {}).items()}

    @cached_property
    def keeps(self) -> dict[str, float]:
        """What decay leaves of every weight of checked options."""
        follows = self.decay_follows_lr_mult
        decay = self.lr * self.weight_decay
        return {w: 1 - decay * (mult if follows else 1) for w, mult in (self.lr_mult or {}).items()}


def takes_step_options(step: Step) -> Step:
    """Shows the options among the arguments of a method that takes them as `**options`."""
    signature = inspect.signature(step)
    shown = inspect.signature(StepOptions).parameters.values()
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    before = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    after = [p for p in own if p.kind is p.KEYWORD_ONLY]
    made = signature.replace(parameters=[*before, *shown, *after])
    step.__signature__ = made  # type: ignore[attr-defined]
    return step
