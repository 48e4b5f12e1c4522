"""Whether a limit is right: an answer from slopes and mean deviations, or what to add where they do not tell.

Wrong is a limit from which the mean of networks deviates, or whose errors stay as networks grow. Chance must be an
unlikely reason, over all rows together: less than one in a thousand. Right is a limit that the intervals agree with and
for which a constant error beyond the tolerance is excluded. Else there is no telling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tpc.tasks.intervals import Deviation, Slope, half_width

Answer = Literal["right", "wrong", "cannot tell"]
ORDER: tuple[Answer, ...] = ("wrong", "cannot tell", "right")
BAND = (-0.7, -0.3)
ALARM = 1e-3
SPAN = 16  # of widths, below which networks may be too small for their slope to tell anything
LARGEST = (1 << 15, 64)  # width and seeds that are proposed


@dataclass(frozen=True)
class Verdict:
    """The answer, why, and the widths (lowest, highest) and seeds to take where there is none."""

    answer: Answer
    reasons: tuple[str, ...]
    widths: tuple[int, int] | None = None
    seeds: int | None = None

    @property
    def options(self) -> str:
        """What to add, as options of the command."""
        return f"--widths {self.widths[0]}:{self.widths[1]} --seeds {self.seeds}" if self.widths else ""

    def __str__(self) -> str:
        return f"{self.answer}: {'; '.join(self.reasons)}" + (f". Try {self.options}" if self.options else "")


def joint(verdicts: Iterable[Verdict]) -> Answer:
    """The answer for several limits: wrong if one is, right if all are."""
    answers = {v.answer for v in verdicts}
    return next((a for a in ORDER if a in answers), "right")


def judge(slopes: Sequence[Slope], deviations: Sequence[Deviation], rate: float, power: int) -> Verdict:
    """The verdict on rows that were compared at the same widths.

    Deviations shrink like width^(−rate), and a network takes time like width^power.
    """
    level = 1 - ALARM / max(1, len(slopes))
    off = sorted((d for d in deviations if d.chance * len(deviations) < ALARM), key=lambda d: d.chance)
    wrong = [f"{d.row} {'are' if d.row.endswith('s') else 'is'} off by {d}" for d in off]
    wrong += [f"the error of {s.row} stays, with slope {s}" for s in slopes if stays(s, level)]
    if wrong:
        return Verdict("wrong", _shortened(wrong))
    open_slopes = [(s, why) for s in slopes if not s.exact and (why := _doubt(s))]
    open_deviations = [d for d in deviations if d.bound > d.tolerance]
    if open_slopes or open_deviations:
        reasons = [why for _, why in open_slopes]
        reasons += [f"{d.row} may be off by up to {d.bound:.1%}" for d in open_deviations]
        widths, seeds = _enough(slopes, deviations, any(_outside(s) for s in slopes), rate, power)
        return Verdict("cannot tell", _shortened(reasons), widths, seeds)
    return Verdict("right", (_agreement(slopes, deviations),))


def stays(s: Slope, level: float) -> bool:
    """Whether the error does not fall: a slope above the band, over widths that are far enough apart."""
    return not s.exact and s.widths[-1] >= SPAN * s.widths[0] and s.interval(level)[0] > BAND[1]


def _doubt(s: Slope) -> str:
    """Why a slope does not show that the error falls like width^(−1/2), if it does not."""
    if _outside(s):
        return f"the slope of {s.row} is {s}, as of networks that are too small"
    return f"the slope of {s.row} is {s}" if s.interval()[1] >= 0 else ""


def _outside(s: Slope) -> bool:
    low, high = s.interval()
    return not s.exact and (low > BAND[1] or high < BAND[0])


def _shortened(reasons: list[str]) -> tuple[str, ...]:
    """The first and, of many, how many more there are."""
    return tuple(reasons) if len(reasons) <= 2 else (*reasons[:2], f"{len(reasons) - 2} more")


def _agreement(slopes: Sequence[Slope], deviations: Sequence[Deviation]) -> str:
    falls = "" if all(s.exact for s in slopes) else "errors fall like width^(−1/2)"
    if not deviations:
        return falls
    means = f"means agree to {max(d.bound for d in deviations):.1%}"
    return f"{falls}, and {means}" if falls else means


def _enough(
    slopes: Sequence[Slope], deviations: Sequence[Deviation], outside: bool, rate: float, power: int
) -> tuple[tuple[int, int], int]:
    """The widths and seeds that take the least time of those that should tell."""
    low, high, seeds = slopes[0].widths[0], slopes[0].widths[-1], slopes[0].seeds
    low = 1 << math.ceil(math.log2(low))
    high = max(1 << math.floor(math.log2(high)), 4 * low)
    scatter = max(s.scatter for s in slopes)
    bound = max((d.bound / d.tolerance for d in deviations), default=0.0)
    found = []
    for wide, many in _larger(high, seeds):
        first = min(4 * low, wide // SPAN) if outside and wide >= SPAN * low else low
        widths = [first << k for k in range(int(math.log2(wide // first)) + 1)]
        shrunk = bound * (wide / high) ** -rate * (many / seeds) ** -0.5
        tells = half_width(scatter, widths, many) <= 0.25 and shrunk <= 0.8
        if tells and (not outside or wide >= max(2 * high, SPAN * low)):
            found.append((sum(n**power for n in widths) * many, (first, wide), many))
    if not found:
        return (low, max(2 * high, LARGEST[0])), max(2 * seeds, LARGEST[1])
    _, chosen, many = min(found)
    return chosen, many


def _larger(high: int, seeds: int) -> Iterator[tuple[int, int]]:
    """Pairs of a largest width and seeds that are more than these."""
    for i in range(16):
        for j in range(16):
            wide, many = high << i, seeds << j
            if (i or j) and (wide <= LARGEST[0] or not i) and (many <= LARGEST[1] or not j):
                yield wide, many
