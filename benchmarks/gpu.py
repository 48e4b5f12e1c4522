"""Training steps on a CUDA device, against what the device can do at most.

    python -m benchmarks.gpu                    # a few minutes; without a device it says so in one line
    python -m benchmarks.gpu --quick            # small sizes: figures without meaning
    python -m benchmarks.gpu --markdown results.md --pilimit CHECKOUT --pilimit-python VENV/bin/python

The floor of an exact step is two passes over the stored atoms, that of a folded one a pass over its tensors: the bytes
of these over the time of a step are held against the bandwidth of a large copy, measured in the same run. Steps are
whole, from NumPy arrays on the host to the state on the device and the metrics on the host. Sides take turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import tpc
from benchmarks import draw, models
from benchmarks.clock import Turn, in_turns, seconds, stepping
from benchmarks.library import BATCH, CHECKED, Library
from benchmarks.models import WINDOW, UnavailableError, Variant
from benchmarks.report import Report, duration, megabytes
from tpc.errors import UserError
from tpc.runtime.models.backend import load_backend

STORAGE = ("float32", "bfloat16", "float16")
PAPER_STEPS = 50 * 50_000 // 8  # the paper's CIFAR-10 run
TOLERANCE = 1e-3  # of losses, between the library's float32 and ours


def main(arguments: list[str] | None = None, name: str = "cupy") -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser("--quick" in given).parse_args(given)
    os.environ.setdefault("TPC_THREADS", "1")
    try:
        device: Any = load_backend(name).device
    except UserError as e:
        print(f"Nothing measured: {e}")
        return
    report = Report(targets=not options.quick)
    report.heading("Device")
    report.line(f"{date.today()}, `{shlex.join(['python', '-m', 'benchmarks.gpu', *given])}`")
    report.line(f"{device.name}; {device.versions()}; Python {platform.python_version()}, tpc {tpc.__version__}")
    copy = _ceilings(report, device, options.quick)
    _exact(report, device, name, options, copy)
    _folded(report, device, name, options, copy)
    _library(report, device, name, options)
    report.finish(options.markdown)


def _ceilings(report: Report, device: Any, quick: bool) -> float:
    """Bytes per second of a large copy; prints it and the rates of matrix products."""
    length, side = 1 << (20 if quick else 29), 256 if quick else 8192
    rng = np.random.default_rng(4)
    piece = device.xp.asarray(rng.standard_normal(min(length, 1 << 24), dtype=np.float32))
    a = device.xp.tile(piece, length // len(piece))
    b = device.xp.empty_like(a)

    def copying() -> None:
        b[...] = a
        device.synchronize()

    copying()
    copy = 2 * a.nbytes / min(seconds(copying) for _ in range(10))
    rates = [f"copy {copy / 1e9:,.0f} GB/s (read and written)"]
    for storage in STORAGE:
        m = device.xp.empty((side, side), np.uint16 if storage == "bfloat16" else storage)
        load_arrays(device).store(m, a[: 1 << 16].repeat(-(-m.size // (1 << 16)))[: m.size].reshape(m.shape))
        out = device.xp.empty((side, side), np.float32)

        def product(m: Any = m, out: Any = out) -> None:
            device.gemm(m, m, out)
            device.synchronize()

        product()
        rates.append(f"{storage} GEMM {2e-12 * side**3 / min(seconds(product) for _ in range(5)):,.1f} TFLOP/s")
    report.line(", ".join(rates) + ".")
    return copy


def load_arrays(device: Any) -> Any:
    """What stores numbers on the device."""
    from backends.device_arrays import DeviceArrays

    return DeviceArrays(device)


def _steps(device: Any, model: Any, source: Any, steps: int) -> Turn:
    """Turns of whole steps; the device is done when a turn ends."""
    step = models.stepper(model)

    def timed(x: Any, y: Any) -> None:
        step(x, y)
        device.synchronize()

    return stepping(timed, source, steps)


def _exact(report: Report, device: Any, name: str, options: argparse.Namespace, copy: float) -> None:
    report.heading(f"Exact step, rank {options.rank}")
    report.line("Floor: every stored number read twice, in bytes per second; “of copy” is its share of a copy's.")
    rows = []
    for storage in STORAGE:
        for atoms in options.atoms:
            try:
                model = models.exact(Variant(name, storage), options.rank, atoms)
                for batch in options.batches:
                    sides = {"step": _steps(device, model, draw.batches(batch), 3)}
                    found = in_turns(sides, options.turns)["step"].ordinary
                    rate = 2 * model.nbytes / found
                    rows.append((storage, f"{atoms:,}", str(batch), duration(found), f"{rate / 1e9:,.0f} GB/s",
                                 f"{rate / copy:.0%}"))  # fmt: skip
                    if (storage, atoms, batch) == ("bfloat16", 1_000_000, 8):
                        report.target("exact step, 1,000,000 atoms, bfloat16, batch 8: of copy", "≥ 60 %",
                                      f"{rate / copy:.0%}", rate >= 0.6 * copy)  # fmt: skip
                del model
            except (UnavailableError, MemoryError) as e:
                report.skipped(f"{storage}, {atoms:,} atoms", e)
    report.table(("storage", "atoms", "batch", "step", "floor's rate", "of copy"), rows)


def _folded(report: Report, device: Any, name: str, options: argparse.Namespace, copy: float) -> None:
    report.heading("Folded step, float32, batch 8")
    report.line(f"A turn is {WINDOW} samples, in which one window is folded. Floor: every tensor read once.")
    rows = []
    for rank in options.ranks:
        try:
            model = models.folded(Variant(name, mode="folded"), rank)
        except (UnavailableError, MemoryError) as e:
            report.skipped(f"rank {rank}", e)
            continue
        steps = WINDOW // 8 if options.turns > 2 else 4
        found = in_turns({"step": _steps(device, model, draw.batches(8), steps)}, options.turns)["step"].step
        paper = PAPER_STEPS * found
        rate = model.nbytes / found
        share, minutes = f"{rate / copy:.0%}", f"{paper / 60:.1f} min"
        rows.append((str(rank), duration(found), megabytes(model.nbytes), share, minutes))
        if rank == max(options.ranks):
            report.target(f"the paper's CIFAR-10 run, folded, rank {rank}: steps alone", "< 5 min",
                          f"{paper / 60:.1f} min", paper < 300)  # fmt: skip
    report.table(("rank", "step", "state", "of copy", f"{PAPER_STEPS:,} steps"), rows)


def _library(report: Report, device: Any, name: str, options: argparse.Namespace) -> None:
    atoms, rank = max(options.atoms), options.rank
    report.heading(f"Exact step beside pilimit_lib on the same device, {atoms:,} atoms, rank {rank}, batch {BATCH}")
    interpreter, path = options.pilimit_python, options.pilimit
    if not (interpreter or path or importlib.util.find_spec("pilimit_lib")):
        report.skipped("pilimit_lib", "not importable; give --pilimit PATH and --pilimit-python INTERPRETER")
        return
    try:
        with Library(interpreter or sys.executable, path or "", "cuda") as library:
            _compare(report, device, name, library, atoms, rank, options.turns)
    except UnavailableError as e:
        report.skipped("pilimit_lib", e)


def _compare(
    report: Report, device: Any, name: str, library: Library, atoms: int, rank: int, turns: int
) -> None:  # fmt: skip
    library.build(atoms, rank)
    source = draw.batches(BATCH)
    sides: dict[str, Turn] = {"pilimit_lib": library.turn}
    for storage in STORAGE:
        model = models.exact(Variant(name, storage), rank, atoms)
        if storage == "float32":
            difference = _difference(library, models.stepper(model))
            if not difference < TOLERANCE:
                raise UnavailableError(f"its losses differ by {difference:.1e}: not the same step")
            report.line(f"The losses of {CHECKED} steps on the same network and data agree within {difference:.1e}.")
        sides[storage] = _steps(device, model, source, 1)
    times = in_turns(sides, turns)
    theirs = times["pilimit_lib"]
    rows = [(side, duration(t.step), f"{t.faster_than(theirs):.2f}") for side, t in times.items()]
    report.table(("side", "step", "pilimit_lib takes × as long"), rows)
    report.line(f"torch {library.version}.")
    ratio = times["bfloat16"].faster_than(theirs)
    report.target(f"exact step, {atoms:,} atoms, bfloat16: pilimit_lib / tpc", "≥ 3", f"{ratio:.1f}", ratio >= 3)


def _difference(library: Library, step: Callable[..., Any]) -> float:
    source = draw.batches(BATCH, seed=5)
    ours = [step(*source())["loss"] for _ in range(CHECKED)]
    return max(abs(a - b) for a, b in zip(library.losses(CHECKED, BATCH, seed=5), ours, strict=True))


def _parser(quick: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--turns", type=int, default=2 if quick else 7, help="timed turns of every side")
    parser.add_argument("--rank", type=int, default=16 if quick else 400, help="of the exact steps")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16] if quick else [200, 400], help="of folded steps")
    parser.add_argument("--batches", type=int, nargs="+", default=[8] if quick else [8, 32, 128])
    parser.add_argument("--atoms", type=int, nargs="+", default=[2_000] if quick else [100_000, 1_000_000])
    parser.add_argument("--pilimit", metavar="PATH", help="a checkout of santacml/pilim to compare with")
    parser.add_argument("--pilimit-python", metavar="INTERPRETER", help="an interpreter with torch to run it")
    return parser


if __name__ == "__main__":
    main()
