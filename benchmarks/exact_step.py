"""Time and memory of one exact SGD step, against a plain NumPy transcription of the same step.

    python benchmarks/exact_step.py [--atoms 100000] [--rank 400] [--repeats 9]

Both run in this process on the same data, in turns, so that their ratio survives a noisy machine. Absolute times are
printed beside the machine's own ceilings, measured in the same run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from reference.plain_step import PlainMLP

import tpc
from backends.numpy_runtime import threads

INPUTS, CLASSES = 3072, 10
OPTIONS = {"lr": 1.0, "lr_mult": {"embed": 0.1, "readout": 4.0}, "weight_decay": 1e-5, "clip": 0.4}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def random_atoms(rng: np.random.Generator, count: int, rank: int, width: int) -> dict[str, np.ndarray]:
    b = rng.standard_normal((count, rank), dtype=np.float32)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return {"A": rng.standard_normal((count, width), dtype=np.float32) / np.float32(count) ** 0.5, "B": b}


def filled_model(atoms: int, rank: int, seed: int = 0) -> tpc.Model:
    """The MLP with `atoms` random atoms in both kernel matrices, stored piece by piece."""
    model = tpc.compile(tpc.load(ROOT / "programs" / "mlp.py")).build(INPUTS, rank, seed=seed)
    rng = np.random.default_rng(seed)
    for name, width in (("hidden1", rank), ("readout", CLASSES)):
        for _ in range(len(model._state[name]), atoms, 4096):
            model._state[name].extend(random_atoms(rng, min(4096, atoms - len(model._state[name])), rank, width))
    return model


def batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((size, INPUTS), dtype=np.float32), rng.integers(0, CLASSES, size)


def against_plain(atoms: int, rank: int, repeats: int) -> None:
    print(f"\nfull SGD step of programs/mlp.py, {atoms:,} atoms per kernel matrix, rank {rank}, float32")
    print(
        f"{'batch':>6} {'tpc':>10} {'plain NumPy':>12} {'ratio':>7}   (medians of {repeats}; ratio = median of ratios)"
    )
    model = filled_model(atoms, rank)
    plain = PlainMLP(model.state(), (repeats + 1) * 4 * 256, 1.0, 0.5, 0.5)
    rng = np.random.default_rng(1)
    for size in (8, 32, 128):
        ours, theirs = [], []
        for repeat in range(repeats + 1):
            x, y = batch(rng, size)
            for step, times in ((model.step, ours), (plain.step, theirs)):
                step(
                    x, y, **OPTIONS
                )  # untimed: BLAS threads of the other side spin on for a while after its last product
                spent = seconds(lambda: step(x, y, **OPTIONS))  # noqa: B023 - called at once
                if repeat:  # the first of each warms up
                    times.append(spent)
        ratio = statistics.median(t / o for t, o in zip(theirs, ours))
        print(f"{size:>6} {statistics.median(ours):>9.3f}s {statistics.median(theirs):>11.3f}s {ratio:>7.2f}")


def appending(rank: int) -> None:
    print("\ntime to append 8 atoms, by atoms already stored (median of 200)")
    rng = np.random.default_rng(2)
    for atoms in (1_000, 10_000, 100_000):
        model = filled_model(atoms, rank)
        store = model._state["hidden1"]
        new = random_atoms(rng, 8, rank, rank)
        times = [seconds(lambda: store.append(1.0, 1.0, **new)) for _ in range(200)]  # noqa: B023
        print(f"{atoms:>9,} {statistics.median(times) * 1e6:>8.1f} µs")


def memory(atoms: int, rank: int) -> None:
    print("\npeak memory of building and stepping (traced allocations), against the stored atoms")
    for size in (8, 128):
        tracemalloc.start()
        model = filled_model(atoms, rank)
        x, y = batch(np.random.default_rng(3), size)
        for _ in range(2):
            model.step(x, y, **OPTIONS)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        stored = sum(model._state[n].nbytes for n in ("hidden1", "readout"))
        print(f"batch {size:>4}: atoms {stored / 1e6:.1f} MB, peak {peak / 1e6:.1f} MB, ratio {peak / stored:.3f}")


def ceilings() -> None:
    rng = np.random.default_rng(4)
    a = rng.standard_normal((1 << 26,), dtype=np.float32)
    b = np.empty_like(a)
    copy = min(seconds(lambda: np.copyto(b, a)) for _ in range(5))
    m = rng.standard_normal((2048, 2048), dtype=np.float32)
    gemm = min(seconds(lambda: m @ m) for _ in range(5))
    print(
        f"machine: {platform.machine()}, {threads().count} threads, "
        f"NumPy {np.__version__}, Python {platform.python_version()}"
    )
    print(f"copy {2 * a.nbytes / copy / 1e9:.1f} GB/s, float32 GEMM {2 * 2048**3 / gemm / 1e9:.0f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=100_000)
    parser.add_argument("--rank", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    ceilings()
    against_plain(options.atoms, options.rank, options.repeats)
    appending(options.rank)
    memory(options.atoms, options.rank)


if __name__ == "__main__":
    main()
