"""Peak resident memory of training, each case in a process of its own.

python -m benchmarks.memory BACKEND STORAGE MODE RANK ATOMS   # one case, as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks import ROOT, draw, models
from benchmarks.machine import resident_bytes
from benchmarks.models import EXACT, FOLDED, UnavailableError, Variant
from benchmarks.report import Report, megabytes

LIMIT = 600e6


def peaks(report: Report, rank: int, atoms: int, appended: int) -> None:
    """Exact models with `atoms`, and folded ones trained for `appended` atoms: building, steps, evaluation."""
    report.heading(f"Peak resident memory of a process, rank {rank}")
    report.line(
        f"Exact: {atoms:,} stored atoms and steps of 8 and of 128; folded: {appended:,} atoms appended in batches of "
        "8. “Peak” is of the whole process with Python and its libraries but without a data set; “predict” after the "
        "logits of 1,024 inputs. Ratio: (peak - imports) / state."
    )
    rows = []
    for variant in (*EXACT, *FOLDED):
        count = atoms if variant.mode == "exact" else appended
        try:
            found = _run(variant, rank, count)
        except UnavailableError as e:
            report.skipped(f"{variant}, {variant.mode}", e)
            continue
        ratio = (found["steps"] - found["imports"]) / found["state"]
        rows.append(
            (
                *(variant.mode, str(variant)),
                *(megabytes(found[key]) for key in ("state", "imports", "steps", "predict")),
                f"{ratio:.2f}",
            )
        )
        if variant == Variant("native", mode="folded"):
            peak = found["predict"]
            report.target(f"folded, rank {rank}: peak resident memory", "≤ 600 MB", megabytes(peak), peak <= LIMIT)
    report.table(("mode", "side", "state", "imports", "peak", "predict", "ratio"), rows)


def _run(variant: Variant, rank: int, atoms: int) -> dict[str, int]:
    words = [variant.backend, variant.storage, variant.mode, str(rank), str(atoms)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise UnavailableError(told[-1].removeprefix("benchmarks.models.UnavailableError: ") if told else "it failed")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _case(backend: str, storage: str, mode: str, rank: int, atoms: int) -> dict[str, int]:
    models.limit()
    found = {"imports": resident_bytes(peak=True)}
    if mode == "exact":
        model = models.exact(Variant(backend, storage), rank, atoms)
        for batch in (8, 128):
            models.train(model, 2 * batch, batch)
    else:
        model = models.empty(Variant(backend, storage, mode), rank)
        models.train(model, atoms, 8)
    found |= {"steps": resident_bytes(peak=True), "state": model.nbytes}
    model.predict(draw.batches(1024)()[0])
    return found | {"predict": resident_bytes(peak=True)}


if __name__ == "__main__":
    _backend, _storage, _mode, *_numbers = sys.argv[1:]
    print(json.dumps(_case(_backend, _storage, _mode, *map(int, _numbers))))
