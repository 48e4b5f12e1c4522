"""What lowering works on: functions of tensors, and what a step does with what they give, instruction by instruction.

Every stage (tpc/lower/lowered.py) takes a `Lowered` and gives one. Tensors are the outputs of `functions`; instructions
name them by these outputs, so a stage that rewrites tensors leaves instructions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from tpc.errors import InternalError
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.limits.store import Fold, Store
from tpc.program.axes import Axes, Axis
from tpc.program.tensor import Contract, Tensor


@dataclass(frozen=True)
class Loop:
    """For every block of `atom`: compute `body`, and add the block's share to each of `sums`.

    Later loops take the products `kept` of all blocks; `given` are those that an earlier one kept.
    """

    atom: Axis
    states: tuple[State, ...]
    captured: tuple[Tensor, ...]
    body: tuple[Tensor, ...]
    sums: tuple[Contract, ...]
    kept: tuple[Tensor, ...] = ()
    given: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Function:
    """What computes `outputs` from `inputs` and states: once scheduled, a straight-line list of tensors and loops."""

    name: str
    inputs: tuple[Tensor, ...]
    steps: tuple[Tensor | Loop, ...]
    outputs: tuple[tuple[str, Tensor], ...]


# --- what a step does ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operand:
    """An output of `gradients`, and the column of a store it goes to, or "gradient"."""

    key: str
    target: str
    is_latent: bool = False  # or a parameter: what no learning rate multiplies


@dataclass(frozen=True)
class AppendAtoms:
    """For every index of `batch`, store an atom; its coefficient is -rate·clip times the first operand."""

    weight: str
    store: Store
    batch: Axes
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class AccumulateGradient:
    """m ← μ m + clip·∇;  W ← keep·W - rate·m, for the gradient that is the only operand."""

    weight: str
    state: State
    operands: tuple[Operand, ...]


Change = AppendAtoms | AccumulateGradient


@dataclass(frozen=True)
class Guard:
    """The step is applied only if the loss, every operand of the changes and, where it clips, every norm is finite, and
    if nothing that the changes store leaves the range of its numbers.
    """

    changes: tuple[Change, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The outputs of `gradients` that must be finite besides the loss."""
        return tuple(o.key for c in self.changes for o in c.operands)


@dataclass(frozen=True)
class AgeAtoms:
    """m ← μ m;  A ← keep·A - rate·m for all atoms stored by now."""

    weight: str
    store: Store


@dataclass(frozen=True)
class AgeMoments:
    """M ← keep·M for what the atoms of a store are folded to."""

    weight: str
    store: Store


@dataclass(frozen=True)
class FoldMoments:
    """The oldest atoms of a store beyond its window go to its tensors.

    By the functions so named: `profiles` gives E ∂^α fn of atoms by multi-index, `exact` E fn fn' of two sets of atoms,
    `sampled` what atoms are beyond the degree at the points of the tail, if there is one. They take the columns of the
    atoms' latents and parameters.
    """

    fold: Fold
    profiles: str
    exact: str
    sampled: str | None

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of its functions."""
        return tuple(name for name in (self.profiles, self.exact, self.sampled) if name is not None)


Instruction = Guard | AgeAtoms | AgeMoments | AppendAtoms | AccumulateGradient | FoldMoments


# --- all of it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lowered:
    """A limit on its way to code.

    `changes` are what a step changes, weight by weight; scheduling makes `update` of them, in the order of execution.
    `multipliers` gives every atom a factor of its own, which momentum needs.
    """

    graph: LimitGraph
    functions: tuple[Function, ...]
    changes: tuple[Change, ...] = ()
    update: tuple[Instruction, ...] = ()
    folds: tuple[FoldMoments, ...] = ()
    multipliers: bool = False

    def function(self, name: str) -> Function:
        """A function by its name."""
        found = next((f for f in self.functions if f.name == name), None)
        if found is None:
            raise InternalError(f"the {self.graph.limit}-limit of {self.graph.name} has no function {name}")
        return found

    @property
    def predict(self) -> Function:
        return self.function("predict")

    @property
    def gradients(self) -> Function:
        return self.function("gradients")

    @property
    def norms(self) -> Function:
        return self.function("norms")

    @property
    def guard(self) -> Guard:
        """What a step must fulfil to be applied."""
        return Guard(self.changes)

    def with_function(self, function: Function) -> Lowered:
        """With this function in place of the one of its name."""
        return replace(self, functions=tuple(function if f.name == function.name else f for f in self.functions))

    def rewritten(self, rule: Callable[[Tensor], Tensor]) -> Lowered:
        """With every output of every function replaced by its image."""

        def image(f: Function) -> Function:
            return replace(f, outputs=tuple((name, rule(t)) for name, t in f.outputs))

        return replace(self, functions=tuple(map(image, self.functions)))
