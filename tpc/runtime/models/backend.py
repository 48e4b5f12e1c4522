"""What the runtime needs of a backend, and how one is found by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol, cast

from tpc.available import Available
from tpc.errors import UsageError
from tpc.lower.ir import Lowered
from tpc.lower.kernels import LoweredKernels

BACKENDS = ("numpy", "native", "cupy")


class Backend(Protocol):
    """A module `backends.<name>_backend`: arrays, stored atoms and generated code of one kind of machine."""

    NAME: str
    DTYPES: tuple[str, ...]
    STORAGE: tuple[str, ...]
    HALVES: bool  # whether folded matrices are best read once for both passes
    DEVICE: bool  # whether the state lies on a device with memory of its own

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

    def stored_rows(self, atoms: int, row_bytes: int, rows: int | None = None) -> int:
        """Rows that memory is taken for when a store has so many atoms, `rows` of them to a segment."""

    def copied_bytes(self, storage: str | None, matrices: int, rank: int) -> int:
        """What is kept beside so many folded matrices when atoms are stored as `storage`."""

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


def load_backend(name: str) -> Backend:
    """The backend of a name; raises UsageError listing the known ones."""
    if name not in BACKENDS:
        raise UsageError(f"expected a backend among {', '.join(BACKENDS)}, got {name!r}")
    return cast(Backend, importlib.import_module(f"backends.{name}_backend"))


def free_memory(model: Any) -> Available | None:
    """What the backend of a model or a network may still take; None where nothing is known."""
    backend = getattr(model, "backend", None)
    if isinstance(backend, str):
        backend = load_backend(backend)
    found: Available | None = None if backend is None else backend.available()
    return found
