"""Time and memory of training steps, in ratios measured within one run.

    python -m benchmarks                        # everything; about half an hour on two cores
    python -m benchmarks --quick                # everything at small sizes, under a minute: figures without meaning
    python -m benchmarks --only folded growth --markdown results.md
    python -m benchmarks --only library --pilimit CHECKOUT --pilimit-python VENV/bin/python

Sides of a comparison take turns on new random data; before every timed turn there is a pause, in which the threads of
the side before stop spinning, and an untimed step. Variants that cannot run here are named and skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SECTIONS = ("exact", "folded", "million", "growth", "memory", "append", "library")


def main() -> None:
    options = _parser().parse_args()
    for variable in ("TPC_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(options.threads)  # read when NumPy is imported, so before it is
    from benchmarks import growth, library, machine, memory, steps
    from benchmarks.report import Report

    report = Report(targets=not options.quick)
    ranks, atoms, batches, turns, top = options.ranks, options.atoms, options.batches, options.turns, max(options.ranks)
    machine.describe(report, sys.argv[1:], options.quick)
    run = {
        "exact": lambda: steps.exact_steps(report, atoms, ranks, batches, turns),
        "folded": lambda: steps.folded_steps(report, ranks, batches, turns),
        "million": lambda: steps.folded_against_exact(report, options.many, top, turns),
        "growth": lambda: growth.growth(report, options.appended, top, options.points, 2),
        "memory": lambda: memory.peaks(report, top, max(atoms), min(options.appended, 10_000)),
        "append": lambda: steps.appending(report, [1_000, *atoms], top),
        "library": lambda: library.against_library(report, options.pilimit_python, options.pilimit, atoms, top, turns),
    }
    for section in options.only or SECTIONS:
        run[section]()
    report.finish(options.markdown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    quick = "--quick" in sys.argv
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--turns", type=int, default=2 if quick else 7, help="timed turns of every side")
    parser.add_argument("--ranks", type=int, nargs="+", default=[32] if quick else [200, 400])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 128] if quick else [8, 32, 128])
    parser.add_argument("--atoms", type=int, nargs="+", default=[2_000, 5_000] if quick else [20_000, 100_000, 200_000])
    parser.add_argument("--many", type=int, default=20_000 if quick else 1_000_000, help="atoms for folded over exact")
    parser.add_argument("--appended", type=int, default=5_000 if quick else 100_000, help="atoms a folded model gains")
    parser.add_argument("--points", type=int, default=6 if quick else 21, help="of the line through the folded times")
    parser.add_argument("--pilimit", metavar="PATH", help="a checkout of santacml/pilim to compare with")
    parser.add_argument("--pilimit-python", metavar="INTERPRETER", help="an interpreter with torch to run it")
    return parser


if __name__ == "__main__":
    main()
