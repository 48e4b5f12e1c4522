"""Does a folded step slow down, or its memory grow, with the atoms appended? A line is fitted to each."""

from __future__ import annotations

from statistics import fmean

import numpy as np
from scipy.stats import linregress

from benchmarks import draw, models
from benchmarks.clock import in_turns, stepping
from benchmarks.machine import resident_bytes
from benchmarks.models import WINDOW, UnavailableError, Variant
from benchmarks.report import Report, duration, megabytes
from tpc import Model

LEVEL = 0.05  # a slope is called zero unless chance explains it in fewer cases


def growth(report: Report, atoms: int, rank: int, points: int, turns: int, batch: int = 8) -> None:
    """A folded model after more and more atoms, in turns with one that stays behind."""
    report.heading(f"Folded step against atoms appended, rank {rank}, batch {batch}")
    for backend in ("native", "numpy"):
        variant = Variant(backend, mode="folded")
        try:
            old, young = models.folded(variant, rank), models.folded(variant, rank)
        except UnavailableError as e:
            report.skipped(f"{backend}", e)
            continue
        _measure(report, str(variant), old, young, atoms, points, turns, batch)
        return


def _measure(
    report: Report, name: str, old: Model, young: Model, atoms: int, points: int, turns: int, batch: int
) -> None:
    source = draw.batches(batch)
    steps = max(1, WINDOW // batch)
    sides = {key: stepping(models.stepper(model), source, steps) for key, model in (("old", old), ("young", young))}
    timed = (turns + 1) * (1 + steps) * batch  # atoms both models gain at every point
    rest = -timed % WINDOW  # so that all points find the window equally full
    each = -(-atoms // (points - 1) // WINDOW) * WINDOW
    lead, appended, spent, difference, state, resident = [], [], [], [], [], []
    for point in range(points):
        if point:
            models.train(old, each, 128)
            for model in (old, young):
                models.train(model, rest, batch)
        times = in_turns(sides, turns)
        lead.append(each * point)
        appended.append(lead[-1] + timed * (point + 1) + rest * point)
        spent.append(times["old"].step)
        difference.append(
            float(np.median([fmean(a) - fmean(b) for a, b in zip(times["old"].turns, times["young"].turns)]))
        )
        state.append(old.nbytes)
        resident.append(resident_bytes())
    loss = float(old.step(*source(), **draw.SETTINGS)["loss"])
    if not np.isfinite(loss):
        raise RuntimeError(f"expected the model of the growth measurement to train, its loss is {loss}")
    stride = max(1, (points - 1) // 5)
    rows = [
        (f"{appended[i]:,}", duration(spent[i]), megabytes(state[i]), megabytes(resident[i]))
        for i in range(0, points, stride)
    ]
    report.line(
        f"{name}; {points} points, between them {each:,} atoms appended in batches of 128; a second model, without "
        "those, takes turns with the first and shows the machine's own drift."
    )
    report.table(("atoms appended", "step", "state", "resident"), rows)
    mean = fmean(spent) * 1e6
    _slope(report, "the time of a step", "µs", appended, np.array(spent) * 1e6, mean)
    p = _slope(report, "the same less the second model's time", "µs", lead, np.array(difference) * 1e6, mean)
    report.target(
        f"folded step over {lead[-1]:,} atoms: slope", f"zero (p ≥ {LEVEL})", f"p = {p:.2f}", bool(p >= LEVEL)
    )
    grown = max(state) - min(state)
    _slope(report, "the state", "bytes", appended, np.array(state, dtype=float), fmean(state))
    _slope(report, "resident memory", "bytes", appended, np.array(resident, dtype=float), fmean(resident))
    report.target("folded state over those atoms: growth", "0 MB", megabytes(grown), grown <= 0)


def _slope(report: Report, what: str, unit: str, x: list[int], y: np.ndarray, of: float) -> float:
    """Prints slope and standard error per 100,000 atoms, beside `of`; returns the p-value of "the slope is zero"."""
    if np.ptp(y) == 0:
        report.line(f"Slope of {what}: exactly 0.")
        return 1.0
    fit = linregress(x, y)
    slope, error = fit.slope * 1e5, fit.stderr * 1e5
    report.line(
        f"Slope of {what} per 100,000 atoms: {slope:.3g} ± {error:.2g} {unit}, {slope / of:.2%} ± {error / of:.2%} of "
        f"{of:,.0f} {unit}; p = {fit.pvalue:.2f} for no slope at all."
    )
    return float(fit.pvalue)
