"""What is needed of a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from tpc.available import Available
from tpc.lower.footprint import Footprint
from tpc.lower.instructions import Lowered
from tpc.lower.kernels import LoweredKernels
from tpc.lower.lowered import Stages


class Backend(Protocol):
    """Arrays, stored atoms and generated code of one kind of machine: `BACKEND` of `backends.<name>_backend`."""

    NAME: str
    DTYPES: tuple[str, ...]
    STORAGE: tuple[str, ...]
    HALVES: bool  # whether folded matrices are best read once for both passes
    DEVICE: bool  # whether the state lies on a device with memory of its own
    stages: Stages  # what lowers a limit for it
    operations: Mapping[str, str]  # those of `ARITY` that its loops have, as its language writes them
    footprint: Footprint  # what it takes of memory

    def compile_module(self, lowered: Lowered) -> ModuleType:
        """A module with predict, gradients, norms and update."""

    def compile_kernels(self, lowered: LoweredKernels) -> Any:
        """The functions of a kernel limit, a `tpc.runtime.kernels.function.KernelCode`."""

    def array(self, x: Any, dtype: str) -> Any:
        """x on the backend's device."""

    def to_numpy(self, x: Any) -> Any:
        """x as a NumPy array."""

    def inspect(self, numbers: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[float], bool]:
        """Numbers that code of the backend computed, as floats, and whether all of the arrays are finite."""

    def new_atoms(
        self,
        widths: dict[str, tuple[int, ...]],
        dtype: str,
        momentum: bool,
        storage: str | None = None,
        rows: int | None = None,
    ) -> Any:
        """Empty stored atoms with these columns, their rows stored as `storage`, `rows` of them to a segment."""

    def restore_atoms(
        self,
        read: Callable[[str], Any],
        widths: dict[str, tuple[int, ...]],
        dtype: str,
        storage: str | None = None,
        rows: int | None = None,
    ) -> Any:
        """Atoms from what their `dump` gave, read one column at a time."""

    def available(self) -> Available | None:
        """What the state and the work on it may still take."""

    def new_moments(
        self,
        outer: tuple[int, ...],
        rank: int,
        orders: tuple[int, ...],
        dtype: str,
        window: int,
        fitted: bool,
        points: int,
        *,
        storage: str | None = None,
    ) -> Any:
        """Empty tensors, outer axes × packed powers of each degree, for atoms folded beyond a window.

        With 16-bit `storage` a backend may round what it multiplies them with to 16 bits.
        """

    def restore_moments(
        self,
        read: Callable[[str], Any],
        outer: tuple[int, ...],
        rank: int,
        orders: tuple[int, ...],
        dtype: str,
        points: int,
        *,
        storage: str | None = None,
    ) -> Any:
        """Moments from what their `dump` gave."""
