"""The protocol: sides take turns, each warms up untimed before every timed turn, and ratios are taken turn by turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

SETTLE = 0.1  # seconds in which the threads of the side before stop spinning

Turn = Callable[[], list[float]]


@dataclass
class Times:
    """Seconds of every timed step, by turn."""

    turns: list[list[float]] = field(default_factory=list)

    @property
    def step(self) -> float:
        """The mean of a turn, median of the turns: what steps done now and then, like folding, cost is in it."""
        return statistics.median(self._means)

    @property
    def ordinary(self) -> float:
        """The median of all steps."""
        return statistics.median(t for turn in self.turns for t in turn)

    def faster_than(self, other: Times) -> float:
        """How many times the other's step takes as long: median of the turns' ratios."""
        return statistics.median(o / s for s, o in zip(self._means, other._means, strict=True))

    @property
    def _means(self) -> list[float]:
        return [statistics.fmean(turn) for turn in self.turns]


def seconds(run: Callable[[], object]) -> float:
    """The time one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def stepping(step: Callable[..., object], draw: Callable[[], tuple[object, object]], steps: int = 1) -> Turn:
    """Turns of one untimed step and `steps` timed ones, each on a new batch."""

    def turn() -> list[float]:
        x, y = draw()
        step(x, y)
        spent = []
        for _ in range(steps):
            x, y = draw()
            spent.append(seconds(lambda x=x, y=y: step(x, y)))
        return spent

    return turn


def in_turns(sides: Mapping[str, Turn], turns: int) -> dict[str, Times]:
    """`turns` turns of every side, after one that does not count; another side begins each time."""
    times = {name: Times() for name in sides}
    order = list(sides)
    for number in range(turns + 1):
        for name in order:
            time.sleep(SETTLE)
            spent = sides[name]()
            if number:
                times[name].turns.append(spent)
        order.append(order.pop(0))
    return times
