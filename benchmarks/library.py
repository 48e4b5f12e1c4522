"""Exact steps beside those of pilimit_lib (github.com/santacml/pilim, torch), which runs in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from reference.plain_step import PlainMLP

from benchmarks import draw, models
from benchmarks.clock import Turn, in_turns, stepping
from benchmarks.models import UnavailableError
from benchmarks.report import Report, duration

BATCH = 8
CHECKED = 3  # steps whose losses must agree before anything is timed
TOLERANCE = 1e-4


class Library:
    """A worker process, asked over a pipe. Raises UnavailableError where it cannot start."""

    def __init__(self, interpreter: str, path: str, device: str = "cpu") -> None:
        worker = Path(__file__).with_name("library_worker.py")
        try:
            self._process = subprocess.Popen(
                [interpreter, str(worker), path, os.environ["TPC_THREADS"], device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as e:
            raise UnavailableError(e) from e
        self.version = self._answer()["torch"]

    def __enter__(self) -> Library:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def build(self, atoms: int, rank: int) -> None:
        """The network of `draw.state(atoms, rank)`."""
        self._ask(atoms=atoms, rank=rank)

    def losses(self, steps: int, batch: int, seed: int) -> list[float]:
        """Losses of the next steps, on `draw.batches(batch, seed)`."""
        return list(self._ask(steps=steps, batch=batch, seed=seed)["losses"])

    def turn(self) -> list[float]:
        """An untimed step and a timed one, on the next batches."""
        return list(self._ask(steps=2)["seconds"][1:])

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            told = self._process.communicate()[1].strip().splitlines()
            raise UnavailableError(told[-1] if told else "the process ended")
        found: dict[str, Any] = json.loads(line)
        return found


def against_library(
    report: Report, interpreter: str | None, path: str | None, atoms: list[int], rank: int, turns: int
) -> None:
    """The exact step of every variant, the plain transcription and the library, by atoms."""
    report.heading(f"Exact step beside pilimit_lib, rank {rank}, batch {BATCH}")
    if not (interpreter or path or importlib.util.find_spec("pilimit_lib")):
        report.skipped("pilimit_lib", "not importable; give --pilimit PATH and --pilimit-python INTERPRETER")
        return
    try:
        with Library(interpreter or sys.executable, path or "") as library:
            _compare(report, library, atoms, rank, turns)
    except UnavailableError as e:
        report.skipped("pilimit_lib", e)


def _compare(report: Report, library: Library, atoms: list[int], rank: int, turns: int) -> None:
    rows = []
    for count in atoms:
        library.build(count, rank)
        plain = PlainMLP(draw.state(count, rank), (2 * turns + 2 + CHECKED) * BATCH, **draw.SCALES)
        agreement = _agreement(library, models.stepper(plain))
        if not agreement < TOLERANCE:
            raise UnavailableError(f"its losses differ by {agreement:.1e} at {count:,} atoms: not the same step")
        source = draw.batches(BATCH)
        sides: dict[str, Turn] = {
            "pilimit_lib": library.turn,
            "plain NumPy": stepping(models.stepper(plain), source),
        }
        for variant in models.EXACT:
            try:
                sides[str(variant)] = stepping(models.stepper(models.exact(variant, rank, count)), source)
            except UnavailableError as e:
                report.skipped(f"{variant} at {count:,} atoms", e)
        times = in_turns(sides, turns)
        theirs = times["pilimit_lib"]
        rows += [
            (f"{count:,}", name, duration(found.step), f"{found.faster_than(theirs):.2f}")
            for name, found in times.items()
        ]
        for name, found in times.items():
            if name == "native float32" and count == max(atoms):
                ratio = found.faster_than(theirs)
                report.target(f"exact step, {count:,} atoms: pilimit_lib / native", "≥ 5", f"{ratio:.1f}", ratio >= 5)
        report.line(
            f"{count:,} atoms: the losses of {CHECKED} steps on the same network and data agree within {agreement:.1e}."
        )
    report.table(("atoms", "side", "step", "pilimit_lib takes × as long"), rows)
    report.line(f"torch {library.version}, float32, {os.environ['TPC_THREADS']} threads on either side.")


def _agreement(library: Library, step: Callable[..., float]) -> float:
    theirs = library.losses(CHECKED, BATCH, seed=5)
    source = draw.batches(BATCH, seed=5)
    ours = [step(*source()) for _ in range(CHECKED)]
    return float(np.max(np.abs(np.subtract(ours, theirs))))
