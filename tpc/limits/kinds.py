"""The limits there are, one entry each: what it is called, how it is derived, and what is built of it.

Everything that differs between limits is asked of the entry; a limit is added by `add`, from outside, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tpc.errors import UsageError

if TYPE_CHECKING:
    from tpc.limits.graph import LimitGraph
    from tpc.program.program import Program

    Pass = Callable[[Program], Program]

ALL, READOUTS = "all", "readouts"


@dataclass(frozen=True)
class Recipe:
    """How a limit is derived: named passes over the program, the limit of their result, the same with folded atoms.

    `fold` takes the program, a degree, whether folded matrices are read once for both passes, and a number of points.
    """

    passes: tuple[tuple[str, Pass], ...]
    derive: Callable[[Program], LimitGraph]
    fold: Callable[[Program, int, bool, int], LimitGraph] | None = None


@dataclass(frozen=True)
class LimitKind:
    """A limit. `builds` is "model", which is trained, or "kernel", a function of two samples.

    `recipe` gives the recipe when it is first needed: what it imports takes longer than most commands. `kernels` names
    what is computed of two samples, with the weights whose gradients' inner product it is in a finite network: ALL, or
    READOUTS, those after the last hidden layer.
    """

    name: str
    title: str
    builds: str
    recipe: Callable[[], Recipe]
    kernels: Mapping[str, str] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """What stands before "-limit": π, ntk."""
        return self.title.removesuffix("-limit") if self.title.endswith("-limit") else self.name

    @property
    def kernel(self) -> str:
        """The kernel that regression takes: the last one."""
        return list(self.kernels)[-1]

    @property
    def learning(self) -> str:
        """Which weights learn in a finite network that trains as the last of the kernels says."""
        return list(self.kernels.values())[-1] if self.kernels else ALL

    @property
    def is_kernel(self) -> bool:
        """Whether a kernel of two samples is built, not a model that is trained."""
        return self.builds == "kernel"


def _pi() -> Recipe:
    from tpc.limits.fold import fold
    from tpc.limits.pi import pi_limit
    from tpc.passes.adapt import release
    from tpc.passes.backward import backward
    from tpc.passes.project import norms, project

    passes = (("backward", backward), ("release", release), ("project", project), ("norms", norms))
    return Recipe(passes, pi_limit, fold)


def _nngp() -> Recipe:
    from tpc.limits.nngp import nngp_limit
    from tpc.passes.per_sample import single_output

    return Recipe((("single_output", single_output),), nngp_limit)


def _ntk() -> Recipe:
    from tpc.limits.ntk import ntk_limit
    from tpc.passes.per_sample import gradients, single_output

    return Recipe((("single_output", single_output), ("gradients", gradients)), ntk_limit)


LIMITS: dict[str, LimitKind] = {}


def add(kind: LimitKind) -> None:
    """Make a limit known under its name."""
    LIMITS[kind.name] = kind


add(LimitKind("pi", "π-limit", "model", _pi))
add(LimitKind("nngp", "NNGP limit", "kernel", _nngp, {"nngp": READOUTS}))
add(LimitKind("ntk", "NTK limit", "kernel", _ntk, {"nngp": READOUTS, "ntk": ALL}))


def limit_kind(name: str) -> LimitKind:
    """The entry of a limit. Raises UsageError for an unknown name."""
    if name not in LIMITS:
        raise UsageError(f"expected a limit among {', '.join(LIMITS)}, got {name!r}")
    return LIMITS[name]


def trained_limits() -> tuple[str, ...]:
    """The names of limits that models are built of."""
    return tuple(name for name, kind in LIMITS.items() if kind.builds == "model")


def kernel_limits() -> tuple[str, ...]:
    """The names of limits that are kernels."""
    return tuple(name for name, kind in LIMITS.items() if kind.is_kernel)
