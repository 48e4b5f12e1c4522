"""Runs the generated functions of a kernel limit on blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.blocks import threads

Array = NDArray[Any]


class KernelCode:
    """Points, diagonal and pairs of a generated NumPy module."""

    ROWS, COLUMNS = 128, 1024  # of a block: its intermediate results stay in the cache

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def points(self, x: Array) -> dict[str, Array]:
        """What pairs need to know of every sample."""
        with np.errstate(over="ignore", under="ignore"):
            found: dict[str, Array] = self._module.points(x)
        return found

    def diagonal(self, x: Array) -> dict[str, Array]:
        """The kernels at equal samples."""
        with np.errstate(over="ignore", under="ignore"):
            found: dict[str, Array] = self._module.diagonal(x)
        return found

    def pairs(self, first: Sequence[Array], second: Sequence[Array], out: Mapping[str, Array]) -> None:
        """Write the kernels of every row with every column into the arrays of `out`."""
        with np.errstate(over="ignore", under="ignore"):
            for name, value in self._module.pairs(*first, *second).items():
                out[name][...] = value

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do the jobs in threads."""
        threads().run(list(jobs))

    def threads(self) -> int:
        """How many jobs run at a time."""
        return threads().count
