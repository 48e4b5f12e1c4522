"""How often `tpc check` raises a false alarm, and how often it finds a limit that is wrong.

python -m benchmarks.verdicts               # 13 networks × 5 seeds and 8 wrong limits × 3 seeds; minutes
python -m benchmarks.verdicts --seeds 20 --wrong-seeds 0
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

from tests.support.checked import RIGHT, WRONG
from tests.support.sabotage import limits_changed
from tpc.tasks.check import run_check
from tpc.tasks.convergence import CheckResult

SMALL = {"widths": (128, 256, 512), "seeds": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="of every right network, at 128:512 with 4 seeds")
    parser.add_argument("--default-seeds", type=int, default=1, help="of every right network, at default settings")
    parser.add_argument("--wrong-seeds", type=int, default=3, help="of every wrong limit, at default settings")
    options = parser.parse_args()
    print("| limit | right | wrong | cannot tell | CPU seconds each | least chance × rows |\n|---|---|---|---|---|---|")
    for name, make in RIGHT.items():
        report(f"{name}, 128:512", options.seeds, lambda seed, make=make: run_check(make(), seed=seed, **SMALL))
    for name, make in RIGHT.items():
        report(f"{name}, default", options.default_seeds, lambda seed, make=make: run_check(make(), seed=seed))
    for name, wrong in WRONG.items():
        with limits_changed(wrong.change):
            make = RIGHT[wrong.program]
            row = f"{name} ({wrong.program})"
            report(row, options.wrong_seeds, lambda seed, make=make: run_check(make(), seed=seed))


def report(name: str, seeds: int, check: Callable[[int], CheckResult]) -> None:
    """A row of the table."""
    if not seeds:
        return
    start = time.process_time()
    found = [check(seed) for seed in range(seeds)]
    spent = (time.process_time() - start) / seeds
    answers = Counter(r.verdict.answer for r in found)
    least = min(min(d.chance for d in r.deviations) * len(r.deviations) for r in found)
    counts = " | ".join(str(answers[a]) for a in ("right", "wrong", "cannot tell"))
    print(f"| {name} | {counts} | {spent:.1f} | {least:.0e} |", flush=True)


if __name__ == "__main__":
    main()
