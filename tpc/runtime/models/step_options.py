"""What a step of SGD takes besides its batch, in one object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
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

    def per_weight(self, weights: Iterable[str]) -> tuple[dict[str, float], dict[str, float]]:
        """The learning rate of every weight, and what decay leaves of it.

        Raises UsageError for what is out of range, or a multiplier without a weight.
        """
        mult = multipliers({} if self.lr_mult is None else self.lr_mult, weights)
        check_step(self.lr, self.weight_decay, self.momentum, self.clip, self.clip_mode)
        decay, follows = self.lr * self.weight_decay, self.decay_follows_lr_mult
        keeps = {w: 1 - decay * (m if follows else 1) for w, m in mult.items()}
        return {w: self.lr * m for w, m in mult.items()}, keeps

    @property
    def keywords(self) -> dict[str, Any]:
        """By name, for `step`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


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
