"""How far a training is, as checkpoints store it."""

from __future__ import annotations

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


def is_whole_state(state: Mapping[str, Any]) -> bool:
    """Whether the state of a checkpoint holds all that training needs to go on."""
    position, written = state.get("position"), state.get("metrics_bytes")
    if not isinstance(position, dict) or set(position) != {each.name for each in fields(Position)}:
        return False
    counts = [written, *(position[name] for name in ("epoch", "batch", "step", "samples"))]
    sums = [position[name] for name in ("loss_sum", "accuracy_sum", "seconds")]
    return all(type(n) is int and n >= 0 for n in counts) and all(type(x) in (int, float) for x in sums)
