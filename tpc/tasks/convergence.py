"""What a convergence check found, as text and JSON: errors over widths, slopes, mean deviations, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.limits.kinds import limit_kind
from tpc.tasks.intervals import LEVEL, Deviation, Slope, fit_slope
from tpc.tasks.verdict import BAND, Verdict, judge

F64 = NDArray[np.float64]
POWER = {"model": 1, "kernel": 2}  # of the width that a network takes time like
RATE = {"model": 0.75, "kernel": 0.5}  # that mean deviations fall with


@dataclass(frozen=True)
class Fit:
    """Training of a kernel limit on one batch: its steps, and how far it then is from ridgeless regression.

    `unfinished` is a root mean square over samples and classes, relative to that of the regression's predictions.
    """

    steps: int
    samples: int
    unfinished: float


@dataclass(frozen=True)
class Even:
    """The networks whose mean was compared with the limit."""

    count: int
    width: int
    kind: str

    def __str__(self) -> str:
        too = ", and of those above" if self.kind == "random" else ""
        return f"{self.count} {self.kind} networks of width {self.width}{too}"


@dataclass(frozen=True)
class CheckResult:
    """Errors of finite networks against a limit.

    `errors[t][i]` is the error of row t at `widths[i]`, a root mean square over seeds, held-out samples and classes;
    `slopes` are fitted to those of single networks. In the π-limit row t is the difference of the logits after t steps,
    relative to the size of the limit's logits, and `moved[t]` is how far these have come from their start, relative to
    that: near zero, nothing was learned. `degree` is that of the tensors the limit's old atoms were folded to, if they
    were.

    Kernel limits (`rank` None) have first the kernels themselves, relative to their size, and then outputs after each
    step and after the steps of `fit`, relative to how far the limit has moved them. There `moved` is relative to the
    size of a random network's outputs, and None for kernels.

    `deviations` say how far means of networks, those of `even` where one is told, are from the limit.
    """

    program: str
    limit: str
    rank: int | None
    seeds: int
    lr: float
    widths: tuple[int, ...]
    rows: tuple[str, ...]
    errors: tuple[tuple[float, ...], ...]
    slopes: tuple[Slope, ...]
    deviations: tuple[Deviation, ...]
    moved: tuple[float | None, ...]
    even: Even
    degree: int | None = None
    fit: Fit | None = None

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the limit is right, wrong, or there is no telling."""
        builds = limit_kind(self.limit).builds
        return judge(self.slopes, self.deviations, RATE[builds], POWER[builds])

    @property
    def ok(self) -> bool:
        """Whether the limit is right."""
        return self.verdict.answer == "right"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        fitted = {"fit_steps": self.fit.steps, "fit_unfinished": self.fit.unfinished} if self.fit else {}
        told, verdict = {}, self.verdict
        if verdict.widths is not None:
            told = {"add": {"widths": f"{verdict.widths[0]}:{verdict.widths[1]}", "seeds": verdict.seeds}}
        return {
            "program": self.program,
            "limit": self.limit,
            "fold_degree": self.degree,
            "rank": self.rank,
            "seeds": self.seeds,
            "lr": self.lr,
            **fitted,
            "widths": list(self.widths),
            "band": list(BAND),
            "level": LEVEL,
            "ok": self.ok,
            "verdict": verdict.answer,
            "reasons": list(verdict.reasons),
            **told,
            "rows": [
                {"row": s.row, "errors": list(e), **_slope_numbers(s), "moved": moved}
                for s, e, moved in zip(self.slopes, self.errors, self.moved)
            ],
            "mean_of": {"networks": self.even.count, "width": self.even.width, "kind": self.even.kind},
            "deviations": [
                {
                    "row": d.row,
                    "deviation": d.size,
                    "radius": d.radius,
                    "bound": d.bound,
                    "chance": d.chance,
                    "tolerance": d.tolerance,
                }
                for d in self.deviations
            ],
        }

    # --- as text ------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """What was compared, and with which settings."""
        rank = f"rank {self.rank}, " if self.rank else ""
        folded = f", folded to degree {self.degree}," if self.degree else ""
        return (
            f"{self.program}: relative error of width-n networks against the {self.limit}-limit{folded} "
            f"({self.seeds} seeds, {rank}learning rate {self.lr:g})"
        )

    @property
    def head(self) -> list[str]:
        """The columns of `cells`."""
        return ["step" if self.rank else "", *(f"n = {n}" for n in self.widths), "slope", "moved"]

    @property
    def cells(self) -> list[list[str]]:
        """The table as text: a row per comparison, a column per width, then slope and move."""
        return [
            [
                s.row.removeprefix("step ") if self.rank else s.row,
                *(f"{e:.4f}" for e in errors),
                str(s),
                "" if moved is None else f"{moved:.2f}",
            ]
            for s, errors, moved in zip(self.slopes, self.errors, self.moved)
        ]

    @property
    def mean_title(self) -> str:
        """Which means were compared."""
        return f"mean of {self.even} against the limit, relative to what is compared"

    @property
    def mean_head(self) -> list[str]:
        """The columns of `mean_cells`."""
        return ["", "off by", "at most"]

    @property
    def mean_cells(self) -> list[list[str]]:
        """The mean deviations as text."""
        return [[d.row, f"{d.size:.2%}", f"{d.bound:.2%}"] for d in self.deviations]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the rows must know."""
        if self.fit is None:
            return ()
        return (
            f"fit: {self.fit.steps} steps on the squared loss of {self.fit.samples} samples, after which the limit is "
            f"{self.fit.unfinished:.1%} away from ridgeless regression",
        )

    def table(self) -> str:
        """All of it as text; of the mean deviations those that are largest."""
        lines = [*_aligned([self.head, *self.cells]), *self.notes]
        if self.deviations:
            worst = max(self.deviations, key=lambda d: d.bound)
            lines.append(f"mean of {self.even}: off by {worst.size:.2%}, by {worst.bound:.2%} at most ({worst.row})")
        return "\n".join([self.title, *lines, str(self.verdict)])


def rows_of_errors(
    rows: Sequence[str], widths: Sequence[int], errors: F64
) -> tuple[tuple[tuple[float, ...], ...], tuple[Slope, ...]]:
    """Root mean squares over seeds, and slopes, of the relative errors (rows, widths, seeds) of single networks."""
    means = np.sqrt(np.square(errors).mean(axis=2))
    slopes = tuple(fit_slope(row, widths, e) for row, e in zip(rows, errors))
    return tuple(tuple(map(float, row)) for row in means), slopes


def _slope_numbers(s: Slope) -> dict[str, Any]:
    if s.exact:
        return {"slope": None, "interval": None}
    return {"slope": s.slope, "interval": list(s.interval())}


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns of text, to the right."""
    cells = list(rows)
    wide = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, wide)).rstrip() for row in cells]
