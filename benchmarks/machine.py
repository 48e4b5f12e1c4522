"""The machine, the versions, and what the machine can do at most."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np

import tpc
from benchmarks.clock import seconds
from benchmarks.report import Report


def describe(report: Report, arguments: list[str], quick: bool) -> None:
    """Date, command, processor, threads and versions; then the ceilings of copying and multiplying."""
    report.heading("Machine")
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    report.line(f"{date.today()}, `{shlex.join(['python', '-m', 'benchmarks', *shown])}`")
    report.line(
        f"{_processor()}, {os.environ['TPC_THREADS']} threads of {os.cpu_count()} cores, "
        f"{memory_bytes('MemTotal') / 1e9:.0f} GB; {platform.system()}; "
        f"Python {platform.python_version()}, NumPy {np.__version__} with {_blas()}, {_compiler()}, "
        f"tpc {tpc.__version__}"
    )
    copy, product = ceilings(1 << (22 if quick else 26), 512 if quick else 2048)
    load = f"; load average at the start {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    report.line(f"Copy {copy / 1e9:.1f} GB/s (read and written), float32 GEMM {product / 1e9:.0f} GFLOP/s{load}.")


def ceilings(length: int, side: int) -> tuple[float, float]:
    """Bytes per second of a large copy, operations per second of a large float32 product."""
    rng = np.random.default_rng(4)
    a = rng.standard_normal(length, dtype=np.float32)
    b = np.empty_like(a)
    m = rng.standard_normal((side, side), dtype=np.float32)
    copy = min(seconds(lambda: np.copyto(b, a)) for _ in range(7))
    product = min(seconds(lambda: m @ m) for _ in range(7))
    return 2 * a.nbytes / copy, 2 * side**3 / product


def memory_bytes(field: str) -> int:
    """A field of /proc/meminfo ("MemTotal", "MemAvailable"); 0 where there is none."""
    return _kilobytes(Path("/proc/meminfo"), field) * 1024


def resident_bytes(peak: bool = False) -> int:
    """Resident memory of this process, now or at its peak."""
    found = _kilobytes(Path("/proc/self/status"), "VmHWM" if peak else "VmRSS")
    if found:
        return found * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kilobytes(path: Path, field: str) -> int:
    if not path.exists():
        return 0
    lines = (line.split() for line in path.read_text().splitlines())
    return next((int(words[1]) for words in lines if words and words[0] == f"{field}:"), 0)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = path.read_text().splitlines() if path.exists() else []
    found = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), "")
    return f"{platform.machine()} ({found})" if found else platform.machine()


def _blas() -> str:
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return " ".join(str(pools[0][key]) for key in ("internal_api", "version", "architecture")) if pools else "no BLAS"


def _compiler() -> str:
    path = shutil.which(os.environ.get("CC", "cc"))
    if path is None:
        return "no C compiler"
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    return told[0] if told else path
