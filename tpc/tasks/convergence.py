"""What a convergence check found: errors over widths, their slopes, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BAND = (-0.7, -0.3)


@dataclass(frozen=True)
class Slope:
    """d log(error) / d log(width) of a row, least squares over the widths, with the standard error of the fit."""

    row: str
    slope: float
    stderr: float

    @property
    def ok(self) -> bool:
        """Whether it lies in the band around −1/2."""
        return BAND[0] <= self.slope <= BAND[1]

    def __str__(self) -> str:
        return f"{self.slope:.2f} ± {self.stderr:.2f}".replace("-", "−")


@dataclass(frozen=True)
class Fit:
    """Training of a kernel limit on one batch: its steps, and how far it then is from ridgeless regression.

    `unfinished` is a root mean square over samples and classes, relative to that of the regression's predictions.
    """

    steps: int
    samples: int
    unfinished: float


@dataclass(frozen=True)
class CheckResult:
    """Errors of finite networks against a limit.

    `errors[t][i]` is the error of row t at `widths[i]`, a root mean square over seeds, held-out samples and classes.
    In the π-limit row t is the difference of the logits after t steps, relative to the size of the limit's logits, and
    `moved[t]` is how far these have come from their start, relative to that: near zero, nothing was learned. `degree`
    is that of the tensors the limit's old atoms were folded to, if they were.

    Kernel limits (`rank` None) have first the kernels themselves, relative to their size, and then outputs after each
    step and after the steps of `fit`, relative to how far the limit has moved them. There `moved` is relative to the
    size of a random network's outputs, and None for kernels.
    """

    program: str
    limit: str
    rank: int | None
    seeds: int
    lr: float
    widths: tuple[int, ...]
    rows: tuple[str, ...]
    errors: tuple[tuple[float, ...], ...]
    moved: tuple[float | None, ...]
    degree: int | None = None
    fit: Fit | None = None

    @property
    def slopes(self) -> tuple[Slope, ...]:
        """One per row."""
        return tuple(Slope(row, *fit_slope(self.widths, e)) for row, e in zip(self.rows, self.errors))

    @property
    def ok(self) -> bool:
        """Whether every slope lies in the band."""
        return all(s.ok for s in self.slopes)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        fitted = {"fit_steps": self.fit.steps, "fit_unfinished": self.fit.unfinished} if self.fit else {}
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
            "ok": self.ok,
            "rows": [
                {"row": s.row, "errors": list(e), "slope": s.slope, "stderr": s.stderr, "moved": moved, "ok": s.ok}
                for s, e, moved in zip(self.slopes, self.errors, self.moved)
            ],
        }

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
                f"{s}" + ("" if s.ok else " !"),
                "" if moved is None else f"{moved:.2f}",
            ]
            for s, errors, moved in zip(self.slopes, self.errors, self.moved)
        ]

    @property
    def verdict(self) -> str:
        """Whether every slope lies in the band, in words."""
        low, high = (f"{bound:g}".replace("-", "−") for bound in BAND)
        return f"every slope lies in [{low}, {high}]" if self.ok else f"a slope (!) leaves [{low}, {high}]"

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
        """All of it as text."""
        wide = [max(map(len, column)) for column in zip(self.head, *self.cells)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, wide)).rstrip() for row in (self.head, *self.cells)]
        return "\n".join([self.title, *lines, *self.notes, self.verdict])


def fit_slope(widths: Sequence[int], errors: Sequence[float]) -> tuple[float, float]:
    """The least-squares slope of log(error) over log(width), and its standard error."""
    u, v = np.log(np.asarray(widths, dtype=np.float64)), np.log(np.asarray(errors, dtype=np.float64))
    u, v = u - u.mean(), v - v.mean()
    slope = float(u @ v / (u @ u))
    residual = v - slope * u
    return slope, math.sqrt(float(residual @ residual) / (len(u) - 2) / float(u @ u))
