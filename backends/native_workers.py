"""Native functions on worker threads of their own: workers.h, compiled as generated code is."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from backends import native_build

SOURCE = Path(__file__).with_name("workers.h")


@lru_cache(maxsize=1)
def runner() -> Any:
    """tpc_run of workers.h. Raises NoCompilerError."""
    made = native_build.load(SOURCE.read_text(encoding="utf-8"))["tpc_run"]
    made.argtypes, made.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64], ctypes.c_int
    return made


def address(function: Any) -> int:
    """Of a native function."""
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found
    return found


def run(function: int, calls: Sequence[ctypes.Structure]) -> bool:
    """Call the function at an address, which takes a pointer to one of the calls, for every call at the same time.

    Returns whether one of them failed, that is, did not return 0.
    """
    kind = type(calls[0])
    return bool(runner()(function, (kind * len(calls))(*calls), ctypes.sizeof(kind), len(calls)))
