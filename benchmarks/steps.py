"""Time of a training step: exact and folded, beside the plain transcriptions and beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import numpy as np
from reference.plain_folded import PlainFoldedMLP
from reference.plain_step import PlainMLP

from backends import native_products
from benchmarks import draw, models
from benchmarks.clock import Times, in_turns, seconds, stepping
from benchmarks.machine import memory_bytes
from benchmarks.models import EXACT, FILL, FOLDED, WINDOW, UnavailableError, Variant
from benchmarks.report import Report, duration, megabytes
from tpc import Model

Row = tuple[str, ...]
ROUNDED = "folded, bfloat16"


def exact_steps(report: Report, atoms: list[int], ranks: list[int], batches: list[int], turns: int) -> None:
    """Every exact variant beside `PlainMLP`, all in turns."""
    report.heading("Exact step")
    report.line(
        "A full SGD step (forward, backward, norms, clipping, decay, append); “plain” is the float32 NumPy "
        f"transcription `tests/reference/plain_step.py`. Medians of {turns} turns; in brackets how many times as long "
        "the plain step takes, median of the turns' ratios."
    )
    missing: dict[Variant, UnavailableError] = {}
    rows: list[Row] = []
    for rank, count in product(ranks, atoms):
        rows += _exact_rows(rank, count, batches, turns, missing)
    for variant, why in missing.items():
        report.skipped(f"{variant}, exact", why)
    names = [str(v) for v in EXACT if v not in missing]
    report.table(("rank", "atoms", "batch", "plain", *names), rows)


def _exact_rows(
    rank: int, count: int, batches: list[int], turns: int, missing: dict[Variant, UnavailableError]
) -> list[Row]:
    ready = _ready([v for v in EXACT if v not in missing], lambda v: models.exact(v, rank, count), missing)
    plain = PlainMLP(draw.state(count, rank), (turns + 1) * 2 * sum(batches), **draw.SCALES)
    rows: list[Row] = []
    for batch in batches:
        source = draw.batches(batch)
        sides = {"plain": stepping(models.stepper(plain), source)}
        sides |= {str(v): stepping(models.stepper(model), source) for v, model in ready.items()}
        times = in_turns(sides, turns)
        theirs = times.pop("plain")
        cells = (f"{duration(t.step)} ({t.faster_than(theirs):.2f})" for t in times.values())
        rows.append((str(rank), f"{count:,}", str(batch), duration(theirs.step), *cells))
    return rows


def folded_steps(report: Report, ranks: list[int], batches: list[int], turns: int) -> None:
    """Every folded variant beside `PlainFoldedMLP`; a turn is long enough for one folding."""
    report.heading("Folded step")
    report.line(
        f"Degree 2, Taylor coefficients, window {WINDOW}. A turn is {WINDOW} samples, in which one window is folded; "
        "“step” is a turn's time over its steps, folding included, “without folding” the median of all steps. “Plain” "
        "is `tests/reference/plain_folded.py`, float32 NumPy with T₂ unpacked; the ratio is its step over the row's."
    )
    missing: dict[Variant, UnavailableError] = {}
    rows: list[Row] = []
    for rank in ranks:
        ready = _ready([v for v in FOLDED if v not in missing], lambda v, r=rank: models.folded(v, r), missing)
        plain = PlainFoldedMLP(draw.state(FILL, rank), WINDOW, **draw.SCALES)
        for batch in batches:
            source = draw.batches(batch)
            steps = max(1, WINDOW // batch)
            sides = {"plain": stepping(models.stepper(plain), source, steps)}
            sides |= {str(v): stepping(models.stepper(model), source, steps) for v, model in ready.items()}
            times = in_turns(sides, turns)
            sizes = {"plain": plain.nbytes} | {str(v): model.nbytes for v, model in ready.items()}
            for name, found in times.items():
                rows.append(_folded_row(rank, batch, name, found, times["plain"], sizes[name]))
            if batch == 8 and rank == max(ranks) and "native float32" in times:
                ratio = times["native float32"].faster_than(times["plain"])
                report.target(f"folded step, rank {rank}, batch 8: plain / native", "≥ 2", f"{ratio:.2f}", ratio >= 2)
    for variant, why in missing.items():
        report.skipped(f"{variant}, folded", why)
    header = ("rank", "batch", "side", "step", "without folding", "plain takes × as long", "state")
    report.table(header, rows)


def _folded_row(rank: int, batch: int, name: str, found: Times, plain: Times, size: int) -> Row:
    ratio = f"{found.faster_than(plain):.2f}"
    return str(rank), str(batch), name, duration(found.step), duration(found.ordinary), ratio, megabytes(size)


def folded_against_exact(report: Report, atoms: int, rank: int, turns: int, batch: int = 8) -> None:
    """Many atoms: the exact step of one backend, and of NumPy, over the folded step, in turns.

    Where the processor multiplies in bfloat16, a folded model that stores so takes part, too.
    """
    report.heading(f"Folded against exact at {atoms:,} atoms, rank {rank}, batch {batch}")
    needed = atoms * (3 * rank + draw.CLASSES) * 4 * 1.2
    storage = "float32" if not memory_bytes("MemAvailable") or needed < memory_bytes("MemAvailable") else "bfloat16"
    for backend in ("native", "numpy"):
        try:
            folded = models.folded(Variant(backend, storage, "folded"), rank)
            exact = models.exact(Variant(backend, storage), rank, atoms)
        except UnavailableError as e:
            report.skipped(f"{backend} {storage}", e)
            continue
        source = draw.batches(batch)
        sides = {
            "exact": stepping(models.stepper(exact), source),
            "folded": stepping(models.stepper(folded), source, max(1, WINDOW // batch)),
        }
        held = {"exact": exact, "folded": folded}
        if backend != "numpy" and 2.2 * needed < (memory_bytes("MemAvailable") or 0):
            held["exact, NumPy"] = models.exact(Variant("numpy", "float32"), rank, atoms)
            sides["exact, NumPy"] = stepping(models.stepper(held["exact, NumPy"]), source)
        rounded = Variant(backend, "bfloat16", "folded")
        if backend == "native" and storage != rounded.storage and native_products.functions() is not None:
            held[ROUNDED] = models.folded(rounded, rank)
            sides[ROUNDED] = stepping(models.stepper(held[ROUNDED]), source, max(1, WINDOW // batch))
        times = in_turns(sides, turns)
        rows = [
            (name, duration(times[name].step), f"{times['folded'].faster_than(times[name]):.1f}", megabytes(m.nbytes))
            for name, m in held.items()
        ]
        report.table((f"{backend} {storage}", "step", "over folded", "state"), rows)
        report.line("Folding is included in the folded step.")
        for name in ("folded", ROUNDED):
            if name in times:
                ratio = times[name].faster_than(times["exact"])
                report.target(f"{atoms:,} atoms, rank {rank}: exact / {name}", "≥ 30", f"{ratio:.1f}", ratio >= 30)
        return


def appending(report: Report, atoms: list[int], rank: int, repeats: int = 200) -> None:
    """What adding a batch of 8 costs, by the atoms already there."""
    report.heading(f"Appending 8 atoms, rank {rank}")
    rows = []
    new = {part: np.array(v) for part, v in next(draw.atoms("hidden1", 8, rank, seed=3)).items()}
    for variant in EXACT:
        try:
            for count in atoms:
                store = models.exact(variant, rank, count)._state["hidden1"]
                spent = [_append(store, new) for _ in range(repeats)]
                rows.append((str(variant), f"{count:,}", duration(float(np.median(spent)))))
        except UnavailableError as e:
            report.skipped(f"{variant}", e)
    report.table(("storage", "atoms stored", f"median of {repeats}"), rows)


def _append(store: Any, new: dict[str, np.ndarray]) -> float:
    return seconds(lambda: store.append(1.0, 1.0, **new))


def _ready(
    variants: Iterable[Variant], build: Callable[[Variant], Model], missing: dict[Variant, UnavailableError]
) -> dict[Variant, Model]:
    """The models that can be built; why the others cannot goes into `missing`."""
    found: dict[Variant, Model] = {}
    for variant in variants:
        try:
            found[variant] = build(variant)
        except UnavailableError as e:
            missing[variant] = e
    return found
