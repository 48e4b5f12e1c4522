"""Table 1 of Yang, Santacroce, Hu (ICLR 2022): five networks on two tasks, every cell a command of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tpc.errors import DataError, UsageError, UserError, did_you_mean
from tpc.runtime.files.json_text import dumps
from tpc.runtime.files.lock import NAME as LOCK
from tpc.runtime.files.lock import Lock
from tpc.runtime.files.whole import write_atomic, writing
from tpc.runtime.training.interrupt import Interrupt, catch_signals

RESULTS = "table1.json"
ROWS = ("NNGP", "NTK", "finite μ", "finite π", "π-limit")
COLUMNS = ("cifar10", "omniglot")
PUBLISHED: Mapping[tuple[str, str], float] = {  # per cent; the NTK figures come from a formula with an error
    ("NNGP", "cifar10"): 58.92, ("NTK", "cifar10"): 59.63, ("finite μ", "cifar10"): 61.31,
    ("finite π", "cifar10"): 60.64, ("π-limit", "cifar10"): 61.50,
    ("NNGP", "omniglot"): 43.80, ("NTK", "omniglot"): 51.72, ("finite μ", "omniglot"): 91.22,
    ("finite π", "omniglot"): 92.21, ("π-limit", "omniglot"): 91.46,
}  # fmt: skip

_CIFAR = (
    "--data cifar10 --batch-size 8 --epochs 50 --lr 1 --lr-mult embed=0.1 --lr-mult readout=4 "
    "--lr-mult embed.bias=0.5 --lr-mult hidden1.bias=0.5 --lr-mult readout.bias=0.5 --clip 0.4 --weight-decay 1e-5 "
    "--lr-drop 40:0.15 --clip-drop 40:0.15"
)
_OMNIGLOT = "--data omniglot --epochs 50 --lr 32 --lr-mult embed=0.4 --clip 0.1 --episodes 600"
_QUICK_CIFAR = (
    "--data cifar10 --limit-train-size 2000 --batch-size 8 --epochs 3 --lr 1 --lr-mult embed=0.1 --lr-mult readout=4 "
    "--clip 0.4"
)
_QUICK_OMNIGLOT = "--data omniglot --epochs 1 --batches 150 --lr 32 --lr-mult embed=0.4 --clip 0.1 --episodes 200"
_FOLDED = "--mode folded --backend native"


@dataclass(frozen=True)
class Cell:
    """A row, a column and the arguments of `tpc` that fill it."""

    row: str
    column: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """What to type."""
        return shlex.join(("tpc", *self.arguments))


@dataclass(frozen=True)
class Score:
    """A filled cell: accuracy, half the width of its 95 % interval where tasks were sampled, seconds, command."""

    row: str
    column: str
    accuracy: float
    interval: float | None
    seconds: float
    seed: int
    command: str


class StoppedError(UserError):
    """A signal ended the process of a cell."""

    def __init__(self, interrupt: Interrupt, last: str) -> None:
        super().__init__(f"stopped by {interrupt.name}: {last}\n  Fix: run the same command again; it goes on there.")
        self.exit_code = interrupt.exit_code


def cells(quick: bool, data_dir: str | None, seed: int = 0) -> tuple[Cell, ...]:
    """The cells in the order they are filled, cheap ones first."""
    rank, width = (50, 256) if quick else (400, 2048)
    cifar, omniglot = (_QUICK_CIFAR, _QUICK_OMNIGLOT) if quick else (_CIFAR, _OMNIGLOT)
    regress = "--limit-train-size 2000 " if quick else ""
    few = "--episodes 200 " if quick else ""
    texts = {
        ("NNGP", "cifar10"): f"regress programs/mlp.py --limit nngp --data cifar10 {regress}",
        ("NTK", "cifar10"): f"regress programs/mlp.py --limit ntk --data cifar10 {regress}",
        ("NNGP", "omniglot"): f"regress programs/maml.py --limit nngp --data omniglot {few}",
        ("NTK", "omniglot"): f"regress programs/maml.py --limit ntk --data omniglot {few}",
        ("π-limit", "cifar10"): f"train programs/mlp.py {cifar} --rank {rank} --init paper {_FOLDED}",
        ("π-limit", "omniglot"): f"fewshot programs/maml.py {omniglot} --rank {rank} {_FOLDED}",
        ("finite π", "cifar10"): f"train programs/mlp.py {cifar} --width {width} --parametrization pi --rank {rank}",
        ("finite π", "omniglot"): f"fewshot programs/maml.py {omniglot} --width {width} --parametrization pi "
        f"--rank {rank}",
        ("finite μ", "cifar10"): f"train programs/mlp.py {cifar} --width {width} --parametrization mup",
        ("finite μ", "omniglot"): f"fewshot programs/maml.py {omniglot} --width {width} --parametrization mup",
    }
    shared = ("--seed", str(seed), *(("--data-dir", data_dir) if data_dir is not None else ()))
    return tuple(Cell(row, column, (*shlex.split(text), *shared)) for (row, column), text in texts.items())


def chosen(all_cells: Sequence[Cell], rows: Sequence[str], columns: Sequence[str]) -> tuple[Cell, ...]:
    """The cells of some rows and columns; of all where none is named. Raises UsageError for an unknown name."""
    for name, known in (*((r, ROWS) for r in rows), *((c, COLUMNS) for c in columns)):
        if name not in known:
            raise UsageError(f"expected one of {', '.join(known)}, got {name!r}.{did_you_mean(name, known)}")
    return tuple(c for c in all_cells if c.row in (rows or ROWS) and c.column in (columns or COLUMNS))


def fill(
    wanted: Sequence[Cell], out: Path, seed: int, say: Callable[[str], None] = lambda _: None
) -> tuple[tuple[Score, ...], tuple[tuple[Cell, str], ...]]:
    """Fill cells one after the other, each in a process of its own; what `out` has already is kept.

    Returns all scores of `out`, and the cells that failed with their last line. A long cell that was stopped goes on
    from its checkpoint.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with Lock(out / LOCK, str(out)):
        return _fill(wanted, out, seed, say)


def _fill(
    wanted: Sequence[Cell], out: Path, seed: int, say: Callable[[str], None]
) -> tuple[tuple[Score, ...], tuple[tuple[Cell, str], ...]]:
    known = read(out)
    failed = []
    for cell in wanted:
        if any(s.command == cell.command for s in known):
            continue
        say(f"{cell.row}, {cell.column}: {cell.command}")
        started = time.monotonic()
        found, trouble = _run(cell, out / f"{cell.column}-{cell.row.replace(' ', '-')}")
        if found is None:
            failed.append((cell, trouble))
            say(f"failed: {trouble}")
            continue
        accuracy, interval = _accuracy(found)
        seconds = round(time.monotonic() - started, 1)
        known = (*known, Score(cell.row, cell.column, accuracy, interval, seconds, seed, cell.command))
        write_atomic(out / RESULTS, dumps([asdict(s) for s in known], indent=2, ensure_ascii=False) + "\n")
        say(f"{accuracy:.2%} after {seconds:.0f} s")
    return known, tuple(failed)


def read(out: Path) -> tuple[Score, ...]:
    """The scores recorded in a directory. Raises DataError for a damaged record."""
    path = out / RESULTS
    if not path.is_file():
        return ()
    try:
        return tuple(Score(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as e:
        raise DataError(f"{path} is damaged ({e}); move it away to start again.") from e


def _run(cell: Cell, run: Path) -> tuple[dict[str, Any] | None, str]:
    """The JSON that a command prints, or the last line of what it said."""
    arguments = list(cell.arguments)
    if cell.arguments[0] != "regress":
        started = (run / "checkpoints").is_dir()
        arguments = [arguments[0], "--resume", str(run)] if started else [*arguments, "--out", str(run)]
        arguments.append("--no-report")
    start = [sys.executable, "-c", "from cli import main; main()", *arguments, "--json"]
    code, out, err = _finished(start)
    if code != 0:
        return None, (err.strip() or f"exit code {code}").splitlines()[-1]
    found: dict[str, Any] = json.loads(out)
    return found, ""


def _finished(command: list[str]) -> tuple[int, str, str]:
    """Exit code and output of a process, to which signals are handed on, once, so that it writes its checkpoint.

    Raises StoppedError after one.
    """
    pipe, sent = subprocess.PIPE, False
    with (
        catch_signals() as interrupt,
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process,
    ):
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if interrupt and not sent:
                        process.send_signal(interrupt.number)
                        sent = True
        except BaseException:
            process.kill()
            raise
    if interrupt:
        last = (err.strip() or "it had nothing to save").splitlines()[-1]
        raise StoppedError(interrupt, last)
    return process.returncode, out, err


def _accuracy(found: Mapping[str, Any]) -> tuple[float, float | None]:
    """What a command's JSON says of the test: a regression names its chosen ridge, a training its test accuracy."""
    if "chosen" in found:
        return float(found["chosen"]["test_accuracy"]), None
    accuracy = found.get("test_accuracy", found.get("accuracy"))
    interval = found.get("interval_95")
    return float(accuracy or 0.0), None if interval is None else float(interval)
