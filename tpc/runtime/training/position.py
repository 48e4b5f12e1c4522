"""How far a training is, as checkpoints store it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Position:
    """How far training is: `batch` batches of epoch `epoch` (from 0), with the sums over them."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """Start the next epoch with empty sums."""
        self.epoch += 1
        self.batch = self.samples = 0
        self.loss_sum = self.accuracy_sum = 0.0


COUNTS = ("epoch", "batch", "step", "samples")
SUMS = ("loss_sum", "accuracy_sum", "seconds")
_LARGEST = 2**53  # what JSON carries everywhere
_LONGEST = 1e10  # seconds: three centuries


def defect(state: Mapping[str, Any]) -> str:
    """Why training cannot go on from the state of a checkpoint; an empty text where it can."""
    position, written = state.get("position"), state.get("metrics_bytes")
    if not isinstance(position, dict) or set(position) != {each.name for each in fields(Position)}:
        return f"its position is not one of {', '.join(each.name for each in fields(Position))}"
    for name, value in (("metrics_bytes", written), *((name, position[name]) for name in COUNTS)):
        if type(value) is not int or not 0 <= value < _LARGEST:
            return f"its {name} is {value!r}, not a number of them"
    for name in SUMS:
        if type(position[name]) not in (int, float) or not math.isfinite(position[name]):
            return f"its {name} is {position[name]!r}, not a finite number"
    for name in ("config", "program_sha256", "data"):
        if not isinstance(state.get(name, ""), str):
            return f"its {name} is {state[name]!r}, not a text"
    return _contradiction(Position(**position))


def _contradiction(at: Position) -> str:
    """What cannot be true of any training."""
    if not 0 <= at.seconds < _LONGEST:
        return f"its seconds are {at.seconds!r}, which is no time that training takes"
    if not at.batch <= at.samples or bool(at.batch) != bool(at.samples):
        return f"its {at.samples} samples do not make {at.batch} batches"
    if at.batch > at.step:
        return f"its {at.step} steps are fewer than the {at.batch} batches of this epoch"
    if at.accuracy_sum > at.samples * (1 + 1e-6):
        return f"its accuracy_sum {at.accuracy_sum!r} is not that of {at.samples} samples"
    if not at.batch and at.loss_sum:
        return f"its loss_sum is {at.loss_sum!r} before the first batch"
    return ""
