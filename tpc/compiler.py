"""The compiler, from top to bottom: program → loss → backward → projection → norms → limit → lowering → source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tpc.errors import UsageError
from tpc.limits.existence import check_kernels, singular_kernels
from tpc.limits.fold import fold
from tpc.limits.graph import LimitGraph
from tpc.limits.pi import pi_limit
from tpc.limits.verify import verify_limit
from tpc.passes.backward import backward
from tpc.passes.loss import attach_loss
from tpc.passes.project import norms, project
from tpc.program.program import Program
from tpc.program.verify import verify

if TYPE_CHECKING:
    from tpc.runtime.model import Model

PASSES: tuple[tuple[str, Callable[[Program], Program]], ...] = (
    ("backward", backward),
    ("project", project),
    ("norms", norms),
)
LIMITS: dict[str, Callable[[Program], LimitGraph]] = {"pi": pi_limit}
FOLDED: dict[str, Callable[[Program, int, bool], LimitGraph]] = {"pi": fold}


def compile_program(program: Program, limit: str = "pi") -> Limit:
    """Derive a limit of a program. Raises UsageError for an unknown limit, ProgramError where it has none."""
    if limit not in LIMITS:
        raise UsageError(f"expected a limit among {', '.join(LIMITS)}, got {limit!r}")
    return Limit(verify(program, "tracing"), limit)


@dataclass(frozen=True)
class Limit:
    """A program with one of its limits; every stage is derived when first asked for."""

    program: Program
    kind: str

    @cached_property
    def _derived(self) -> dict[str, tuple[Program, LimitGraph]]:
        return {}

    @cached_property
    def _folded(self) -> dict[tuple[str, int, bool], LimitGraph]:
        return {}

    def trained(self, loss: str = "cross_entropy") -> Program:
        """The program with loss, projected gradients and their norms."""
        return self._stage(loss)[0]

    def graph(self, loss: str = "cross_entropy", degree: int | None = None, halves: bool = False) -> LimitGraph:
        """The limit graph of the trained program; with a degree, old atoms are folded to tensors up to it."""
        if degree is None:
            return self._stage(loss)[1]
        key = (loss, degree, halves)
        if key not in self._folded:
            made = FOLDED[self.kind](self._stage(loss)[0], degree, halves)
            self._folded[key] = verify_limit(made, f"folding to degree {degree}")
        return self._folded[key]

    def _stage(self, loss: str) -> tuple[Program, LimitGraph]:
        if loss not in self._derived:
            program = verify(attach_loss(self.program, loss), "attach_loss")
            for name, run in PASSES:
                program = verify(run(program), name)
            graph = verify_limit(LIMITS[self.kind](program), f"the {self.kind}-limit")
            check_kernels(graph, self.program)
            self._derived[loss] = (program, graph)
        return self._derived[loss]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before training: kernels that are infinite at coinciding latents."""
        return singular_kernels(self.graph())

    @property
    def kernels(self) -> dict[str, Any]:
        """The derived kernels by name, such as "V[relu(x), relu(x)]"."""
        from tpc.gaussian import kernel

        return {f"V[{phi}, {psi}]": kernel(phi, psi) for phi, psi in self.graph().kernels}

    def emit(self, stage: str, degree: int | None = None) -> str:
        """A stage of the compilation as text; see `tpc.emit.STAGES`. With a degree the limit is folded to it."""
        from tpc.emit import emit

        return emit(self, stage, degree)

    def summary(self) -> str:
        """One screen: lines, spaces, parameters, kernels with their closed forms, cost per step."""
        from tpc.emit import summary

        return summary(self)

    def to_networkx(self, degree: int | None = None) -> Any:
        """The limit graph, folded if a degree is given, as a networkx.DiGraph."""
        from tpc.limits.view import to_networkx

        return to_networkx(self.graph(degree=degree))

    def build(self, input_dim: int, rank: int, **options: Any) -> Model:
        """An initialized model; see `tpc.runtime.model.build` for the options."""
        from tpc.runtime.model import build

        return build(self, input_dim, rank, **options)
