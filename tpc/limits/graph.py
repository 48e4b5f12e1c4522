"""The limit graph: what a derivation finds, as finite tensors over latents, Gram entries, kernels and stored atoms."""

from __future__ import annotations

from dataclasses import dataclass, field

from sympy import Expr

from tpc.limits.nodes import Kernel
from tpc.limits.store import Accumulate, Append, Fold, Store, Update
from tpc.program.axes import Axes, union
from tpc.program.node import Node, topological
from tpc.program.tensor import Tensor

DIAGONAL = ".diagonal"  # what follows the name of a kernel at equal samples


@dataclass(frozen=True)
class LimitGraph:
    """A derived limit: outputs, the update of every weight, squared gradient norms.

    `folds` is empty while every atom is kept. `sources` maps a node to the first instruction of the program that it
    is the limit of (side data, for reports). `divergent` are the expectations that are infinite where two latents are
    one up to a factor.
    """

    name: str
    limit: str
    outputs: tuple[tuple[str, Tensor], ...]
    updates: tuple[tuple[str, tuple[Update, ...]], ...]
    norms: tuple[tuple[str, Tensor], ...]
    sources: dict[Tensor, Node] = field(default_factory=dict, compare=False, repr=False)
    folds: tuple[Fold, ...] = ()
    divergent: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __getitem__(self, output: str) -> Tensor:
        return dict(self.outputs)[output]

    @property
    def stores(self) -> tuple[Store, ...]:
        found = (u.store for _, updates in self.updates for u in updates if isinstance(u, Append))
        return tuple({s.name: s for s in found}.values())

    @property
    def accumulated(self) -> tuple[Accumulate, ...]:
        return tuple(u for _, updates in self.updates for u in updates if isinstance(u, Accumulate))

    @property
    def roots(self) -> tuple[Tensor, ...]:
        """Every tensor a step needs."""
        found: list[Tensor] = [t for _, t in self.outputs]
        for _, updates in self.updates:
            for u in updates:
                found += [u.coefficient, *u.columns, *u.thetas] if isinstance(u, Append) else [u.gradient]
        return tuple(found + [t for _, t in self.norms])

    @property
    def nodes(self) -> list[Tensor]:
        return [n for n in topological(self.roots) if isinstance(n, Tensor)]

    @property
    def kernels(self) -> tuple[tuple[Expr, Expr], ...]:
        """The pairs (φ, ψ) of all V[φ,ψ], in order of first use."""
        return tuple(dict.fromkeys((n.phi, n.psi) for n in self.nodes if isinstance(n, Kernel)))

    @property
    def axes(self) -> Axes:
        return union(*(n.axes for n in self.nodes))
