"""The compiler, from top to bottom: program → loss → backward → projection → norms → limit → lowering → source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tpc.errors import UsageError
from tpc.gaussian.names import Kernels
from tpc.limits.existence import check_kernels, divergence_warnings, refuse_divergent
from tpc.limits.fold import fold
from tpc.limits.graph import LimitGraph
from tpc.limits.nngp import nngp_limit
from tpc.limits.ntk import ntk_limit
from tpc.limits.pi import pi_limit
from tpc.limits.verify import verify_limit
from tpc.passes.adapt import release
from tpc.passes.backward import backward
from tpc.passes.loss import attach_loss
from tpc.passes.per_sample import gradients, single_output
from tpc.passes.project import norms, project
from tpc.passes.samples import admitted
from tpc.program.program import Program
from tpc.program.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike

    from tpc.runtime.kernels.function import Array, KernelFunction, Progress
    from tpc.runtime.models.model import Model

_JOINED = (
    "the network declares that samples depend on each other (tpc.joins_samples): its outputs are those of the batches "
    "of training, and of an evaluation's, which differ in size"
)
Passes = tuple[tuple[str, Callable[[Program], Program]], ...]

PASSES: Passes = (
    ("backward", backward),
    ("release", release),
    ("project", project),
    ("norms", norms),
)
LIMITS: dict[str, Callable[[Program], LimitGraph]] = {"pi": pi_limit, "nngp": nngp_limit, "ntk": ntk_limit}
FOLDED: dict[str, Callable[[Program, int, bool, int], LimitGraph]] = {"pi": fold}
KERNEL_PASSES: dict[str, Passes] = {
    "nngp": (("single_output", single_output),),
    "ntk": (("single_output", single_output), ("gradients", gradients)),
}


def compile_program(program: Program, limit: str = "pi") -> Limit:
    """Derive a limit of a program. Raises UsageError for an unknown limit, ProgramError where it has none."""
    if limit not in LIMITS:
        raise UsageError(f"expected a limit among {', '.join(LIMITS)}, got {limit!r}")
    return Limit(admitted(program), limit)


@dataclass(frozen=True, repr=False)
class Limit:
    """A program with one of its limits; every stage is derived when first asked for."""

    program: Program
    kind: str

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_program, (self.program, self.kind)

    def __deepcopy__(self, memo: dict[int, Any]) -> Limit:
        return self  # it never changes

    def __repr__(self) -> str:
        kind = "π" if self.kind == "pi" else self.kind
        told = f"{kind}-limit of {self.program.name}, over the spaces {', '.join(self.program.spaces)}"
        for _, graph in self._derived.values():  # what is not derived yet may not exist
            return f"<{told}; {len(graph.nodes)} tensors, kernels {', '.join(Kernels(graph.kernels))}>"
        return f"<{told}>"

    def _repr_html_(self) -> str:
        from tpc.report.notebook import limit_html

        return limit_html(self)

    @cached_property
    def _derived(self) -> dict[str, tuple[Program, LimitGraph]]:
        return {}

    @cached_property
    def _folded(self) -> dict[tuple[str, int, bool, int], LimitGraph]:
        return {}

    @cached_property
    def _kernel_functions(self) -> dict[tuple[str, tuple[str, ...]], KernelFunction]:
        return {}

    @property
    def is_kernel(self) -> bool:
        """Whether the limit is a kernel of two samples, and not a model that is trained."""
        return self.kind in KERNEL_PASSES

    def trained(self, loss: str = "cross_entropy") -> Program:
        """The program with loss, projected gradients and norms; for kernel limits one output with its gradients."""
        return self._stage(loss)[0]

    def graph(
        self, loss: str = "cross_entropy", degree: int | None = None, halves: bool = False, points: int = 0
    ) -> LimitGraph:
        """The limit graph of the trained program; with a degree, old atoms are folded to tensors up to it.

        What these leave out is sampled at so many `points`.
        """
        if degree is not None and self.is_kernel:
            raise UsageError(f"the {self.kind}-limit is a kernel, which has no atoms to fold: leave the degree out")
        if degree is None:
            if points:
                raise UsageError("points sample what folding leaves out: give a degree to fold to (--fold-degree)")
            return self._stage(loss)[1]
        key = (loss, degree, halves, points)
        if key not in self._folded:
            made = FOLDED[self.kind](self._stage(loss)[0], degree, halves, points)
            self._folded[key] = verify_limit(made, f"folding to degree {degree}")
        return self._folded[key]

    def _stage(self, loss: str) -> tuple[Program, LimitGraph]:
        loss = "" if self.is_kernel else loss
        if loss not in self._derived:
            program = verify(attach_loss(self.program, loss), "attach_loss") if loss else self.program
            for name, run in KERNEL_PASSES.get(self.kind, PASSES):
                program = verify(run(program), name)
            graph = verify_limit(LIMITS[self.kind](program), f"the {self.kind}-limit")
            check_kernels(graph, self.program)
            if self.is_kernel:
                refuse_divergent(graph, self.program)
            self._derived[loss] = (program, graph)
        return self._derived[loss]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before training: expectations that are infinite at coinciding latents, and samples
        that depend on each other.
        """
        if self.is_kernel:
            return ()
        return (*divergence_warnings(self.graph()), *((_JOINED,) if self.program.joins_samples else ()))

    @property
    def kernels(self) -> Kernels:
        """The derived kernels by name, such as "V[relu, relu]"; "V[relu(x), relu(x)]" is found, too."""
        return Kernels(self.graph().kernels)

    def emit(self, stage: str, degree: int | None = None, points: int = 0) -> str:
        """A stage of the compilation as text; see `tpc.emit.STAGES`. With a degree the limit is folded to it, and what
        that leaves out is sampled at so many `points`.
        """
        from tpc.emit import emit

        return emit(self, stage, degree, points)

    def summary(self) -> str:
        """One screen: lines, spaces, parameters, kernels with their closed forms, cost per step."""
        from tpc.emit import summary

        return summary(self)

    def to_networkx(self, degree: int | None = None, points: int = 0) -> Any:
        """The limit graph, folded if a degree is given, as a networkx.DiGraph."""
        from tpc.limits.view import to_networkx

        return to_networkx(self.graph(degree=degree, points=points), self.trained())

    def build(self, input_dim: int, rank: int, **options: Any) -> Model:
        """An initialized model; see `tpc.runtime.models.model.build` for the options."""
        from tpc.runtime.models.model import build

        if self.is_kernel:
            raise UsageError(
                f"the {self.kind}-limit is a kernel and not a model that is trained: call .kernel(x1, x2), or compile "
                "with limit='pi'"
            )
        return build(self, input_dim, rank, **options)

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
            raise UsageError(f"the {self.kind}-limit is no kernel: compile with limit='nngp' or limit='ntk'")
        names = (only,) if isinstance(only, str) else tuple(only)
        known = ("nngp",) if self.kind == "nngp" else ("nngp", "ntk")
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"the {self.kind}-limit has the kernels {', '.join(known)}, got {unknown[0]!r}")
        key = (backend, names)
        if key not in self._kernel_functions:
            self._kernel_functions[key] = KernelFunction(self, backend, names)
        return self._kernel_functions[key]
