"""A term of a normal form in the limit: what sums over atoms, expectations and projections are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from sympy import Expr

from tpc.errors import GaussianError
from tpc.gaussian.kernel import kernel
from tpc.limits.nodes import rank_axis
from tpc.limits.store import Store
from tpc.passes.moves import Move, end, moved, moved_parameter
from tpc.program import ir, tensor
from tpc.program.axes import Axes, Axis, union
from tpc.program.functions import X, argument
from tpc.program.ir import theta
from tpc.program.renaming import freshened
from tpc.program.tensor import Tensor


@dataclass(frozen=True)
class LimitTerm:
    """Σ_over coefficient · fn(⟨z, latents⟩; thetas): a normal-form term in the limit."""

    coefficient: Tensor
    fn: Expr
    latents: tuple[Tensor, ...]
    thetas: tuple[Tensor, ...]
    over: Axes


@dataclass(frozen=True)
class Leaf:
    """Σ_m a_m X_m over the atoms of a store: a = A, or ⟨A, dual⟩, all of it moved where the vector was."""

    store: Store
    moves: tuple[Move, ...] = ()
    dual: Tensor | None = None

    @property
    def coefficients(self) -> Tensor:
        """a"""
        s = self.store
        a = self._moved(s.coefficients)
        return a if self.dual is None else tensor.contract((a, self.dual), (rank_axis(s.coefficients),))

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The latents of the atoms."""
        return tuple(self._moved(c) for c in self.store.columns)

    @property
    def thetas(self) -> tuple[Tensor, ...]:
        """The parameters of the atoms."""
        made: list[Tensor] = list(self.store.thetas)
        for x in self.moves:
            made = [moved_parameter(x, t) for t in made]
        return tuple(made)

    @property
    def names(self) -> dict[Axis, Axis] | None:
        """The names that the outer axes of the store have got; None where they went through a window."""
        names = {a: a for a in self.store.coefficients.axes[1:]}
        for x in self.moves:
            if isinstance(x, ir.RenameVector):
                new = dict(x.pairs)
                names = {a: new.get(b, b) for a, b in names.items()}
            elif end(x) in names.values():
                return None
        return {a: b for a, b in names.items() if a != b}

    def _moved(self, value: Tensor) -> Tensor:
        return reduce(lambda t, x: moved(x, t), self.moves, value)


def multiply(a: LimitTerm, b: LimitTerm, also: Axes) -> LimitTerm:
    """The product of two terms, bound axes of b kept apart from all of a."""
    taken = union(also, a.over, *(t.axes for t in (a.coefficient, *a.latents, *a.thetas)))
    b = freshened(b, b.over, taken)
    latents, thetas = list(a.latents), list(a.thetas)
    images: dict[Expr, Expr] = {}
    for i, g in enumerate(b.latents):
        if g not in latents:
            latents.append(g)
        images[argument(i)] = argument(latents.index(g))
    for j, p in enumerate(b.thetas):
        if p not in thetas:
            thetas.append(p)
        images[theta(j)] = theta(thetas.index(p))
    return LimitTerm(
        tensor.contract((a.coefficient, b.coefficient)),
        a.fn * b.fn.xreplace(images),
        tuple(latents),
        tuple(thetas),
        (*a.over, *b.over),
    )


def degree_of(fn: Expr) -> int | None:
    """k when fn(u0) is positively homogeneous of degree k; its atoms are then stored as unit vectors."""
    phi = fn.xreplace({argument(0): X})
    try:
        degrees = kernel(phi, phi).degrees
    except GaussianError:  # reported with the user's line by `check_kernels`
        return None
    return None if degrees is None else degrees[0]
