"""From program to limit: the stages of a derivation, each made when first asked for and verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from tpc.errors import UsageError
from tpc.gaussian.names import Kernels
from tpc.limits.existence import check_kernels, divergence_warnings, refuse_divergent
from tpc.limits.graph import LimitGraph
from tpc.limits.kinds import LimitKind, limit_kind
from tpc.limits.verify import verify_limit
from tpc.passes.loss import attach_loss
from tpc.passes.samples import admitted
from tpc.program.program import Program
from tpc.program.verify import verify

_JOINED = (
    "the network declares that samples depend on each other (tpc.joins_samples): its outputs are those of the batches "
    "of training, and of an evaluation's, which differ in size"
)


@dataclass(frozen=True, repr=False)
class Derivation:
    """A program with one of its limits; every stage is derived when first asked for."""

    program: Program
    kind: str

    facade: ClassVar[type[Derivation] | None] = None  # what users hold (tpc.compiler.Limit), once that is there

    @classmethod
    def of(cls, program: Program, limit: str = "pi") -> Self:
        """The derivation of a limit of a program. Raises UsageError for an unknown limit, ProgramError for a program
        that joins samples.
        """
        limit_kind(limit)
        return cls(admitted(program), limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.program, self.kind)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it never changes

    def __repr__(self) -> str:
        told = f"{self.title}, over the spaces {', '.join(self.program.spaces)}"
        for _, graph in self._derived.values():  # what is not derived yet may not exist
            return f"<{told}; {len(graph.nodes)} tensors, kernels {', '.join(Kernels(graph.kernels))}>"
        return f"<{told}>"

    @cached_property
    def _derived(self) -> dict[str, tuple[Program, LimitGraph]]:
        return {}

    @cached_property
    def _folded(self) -> dict[tuple[str, int, bool, int], LimitGraph]:
        return {}

    @property
    def entry(self) -> LimitKind:
        """What differs between limits."""
        return limit_kind(self.kind)

    @property
    def title(self) -> str:
        """Such as "π-limit of mlp"."""
        return f"{self.entry.symbol}-limit of {self.program.name}"

    @property
    def is_kernel(self) -> bool:
        """Whether the limit is a kernel of two samples, and not a model that is trained."""
        return self.entry.is_kernel

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
            made = self.limit_of(self._stage(loss)[0], degree, halves, points)
            self._folded[key] = verify_limit(made, f"folding to degree {degree}")
        return self._folded[key]

    def limit_of(
        self, trained: Program, degree: int | None = None, halves: bool = False, points: int = 0
    ) -> LimitGraph:
        """This kind of limit of a program that has passed all passes, such as `trained()` with further outputs."""
        recipe = self.entry.recipe()
        if degree is None:
            return recipe.derive(trained)
        if recipe.fold is None:
            raise UsageError(f"the {self.kind}-limit has no folded form: leave the degree out")
        return recipe.fold(trained, degree, halves, points)

    def stages(self, loss: str = "cross_entropy") -> Iterator[tuple[str, Program]]:
        """The program after every pass, by the pass's name, verified."""
        program = self.program
        if not self.is_kernel:
            program = verify(attach_loss(program, loss), "attach_loss")
            yield "attach_loss", program
        for name, run in self.entry.recipe().passes:
            program = verify(run(program), name)
            yield name, program

    def _stage(self, loss: str) -> tuple[Program, LimitGraph]:
        loss = "" if self.is_kernel else loss
        if loss not in self._derived:
            program = self.program
            for _, program in self.stages(loss):  # noqa: B007, the last one
                pass
            graph = verify_limit(self.limit_of(program), f"the {self.kind}-limit")
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

    def to_networkx(self, degree: int | None = None, points: int = 0) -> Any:
        """The limit graph, folded if a degree is given, as a networkx.DiGraph."""
        from tpc.limits.view import to_networkx  # networkx takes a quarter of a second

        return to_networkx(self.graph(degree=degree, points=points), self.trained())


def derived(program: Program, limit: str = "pi") -> Derivation:
    """The derivation as users hold it: what a file is read into."""
    return (Derivation.facade or Derivation).of(program, limit)
