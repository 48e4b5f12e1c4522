"""The compiler as users hold it: a program's limit, its stages as text, and what is built of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.limits.kinds import kernel_limits
from tpc.program.program import Program

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from tpc.runtime.kernels.function import Array, KernelFunction, Progress
    from tpc.runtime.models.model import Model


def compile_program(program: Program, limit: str = "pi") -> Limit:
    """Derive a limit of a program. Raises UsageError for an unknown limit, ProgramError where it has none."""
    return Limit.of(program, limit)


class Limit(Derivation):
    """A program with one of its limits; every stage is derived when first asked for."""

    def _repr_html_(self) -> str:
        from tpc.notebook import limit_html

        return limit_html(self)

    @cached_property
    def _kernel_functions(self) -> dict[tuple[str, tuple[str, ...]], KernelFunction]:
        return {}

    def emit(self, stage: str, degree: int | None = None, points: int = 0) -> str:
        """A stage of the compilation as text; see `tpc.emit.STAGES`. With a degree the limit is folded to it, and what
        that leaves out is sampled at so many `points`.
        """
        from tpc.emit import emit

        return emit(self, stage, degree, points)

    def summary(self) -> str:
        """One screen: lines, spaces, parameters, kernels with their closed forms, cost per step."""
        from tpc.summary import summary

        return summary(self)

    def build(
        self, input_dim: int | None = None, rank: int = 0, *, input_shape: Sequence[int] | None = None, **options: Any
    ) -> Model:
        """An initialized model; see `tpc.runtime.models.model.build` for the options.

        The shape of a sample is its dimension, `input_dim`, or `input_shape` where it has several axes; neither is
        needed where the program knows all lengths.
        """
        from tpc.runtime.models.model import build

        if self.is_kernel:
            raise UsageError(
                f"the {self.kind}-limit is a kernel and not a model that is trained: call .kernel(x1, x2), or compile "
                "with limit='pi'"
            )
        return build(self, input_dim if input_shape is None else input_shape, rank, **options)

    def kernel(
        self,
        x1: ArrayLike,
        x2: ArrayLike | None = None,
        *,
        backend: str = "numpy",
        dtype: str = "float64",
        only: Iterable[str] = (),
        out: Mapping[str, Array] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Array]:
        """The kernels {"nngp": (N1, N2)} of an NNGP limit, {"nngp": …, "ntk": …} of an NTK limit.

        x1 (N1, features), x2 (N2, features); without x2 it is x1 and half of the entries are computed. `only` names
        the kernels wanted. `out` has arrays to write to, by kernel; what it lacks is allocated. The rest of the memory
        does not grow with N1·N2. `progress` is called with the numbers of entries done and in all, from any thread.
        With dtype float32 the results are float32; they are computed in float64, so that nearly equal samples have
        the entries they should. Raises UsageError for other limits, names, shapes and types, and where an entry is NaN
        because what it is computed from is beyond float64.
        """
        return self.kernel_function(backend, only)(x1, x2, dtype=dtype, out=out, progress=progress)

    def kernel_diagonal(
        self, x: ArrayLike, *, backend: str = "numpy", dtype: str = "float64", only: Iterable[str] = ()
    ) -> dict[str, Array]:
        """The kernels of every sample of x (N, features) with itself, {"nngp": (N,), …}."""
        return self.kernel_function(backend, only).diagonal(x, dtype=dtype)

    def kernel_function(self, backend: str = "numpy", only: Iterable[str] = ()) -> KernelFunction:
        """The compiled kernels of a kernel limit; kept, so that small calls do not compile again."""
        from tpc.runtime.kernels.function import KernelFunction

        if not self.is_kernel:
            known = " or ".join(f"limit='{name}'" for name in kernel_limits())
            raise UsageError(f"the {self.kind}-limit is no kernel: compile with {known}")
        names = (only,) if isinstance(only, str) else tuple(only)
        if unknown := [name for name in names if name not in self.entry.kernels]:
            raise UsageError(
                f"the {self.kind}-limit has the kernels {', '.join(self.entry.kernels)}, got {unknown[0]!r}"
            )
        key = (backend, names)
        if key not in self._kernel_functions:
            self._kernel_functions[key] = KernelFunction(self, backend, names)
        return self._kernel_functions[key]


Derivation.facade = Limit  # loaded models hold it, too
