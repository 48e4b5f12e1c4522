"""The nodes of limit graphs: stored arrays, Gram entries, kernels V[φ,ψ] and expectations of several variables.

The rest of a limit graph is the finite tensor language of programs, now with a rank axis per space and an atom axis per
store. Builders resolve what is trivial, and each node has its backward rule here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy as sp
from sympy import Expr

from tpc.errors import InternalError
from tpc.gaussian.regular import parity
from tpc.passes.backward import Flow, vjp
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, union, without
from tpc.program.functions import X, argument
from tpc.program.naming import split_number
from tpc.program.node import Scope, node
from tpc.program.tensor import ONE, ZERO, Tensor


@node
class State(Tensor):
    """A stored array. `unit` says that its rows are unit vectors along the rank axis."""

    name: str
    shape: Axes
    unit: bool = False

    @property
    def introduces(self) -> Axes:
        return self.shape


@node
class Gram(Tensor):
    """⟨a, b⟩ over the rank axis: the covariance of the Gaussians ⟨z, a⟩ and ⟨z, b⟩."""

    a: Tensor
    b: Tensor
    rank: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.a, self.b), (self.rank,)),)

    @classmethod
    def build(cls, a: Tensor, b: Tensor, _: Axis) -> Tensor:
        return gram(a, b)


@node
class Kernel(Tensor):
    """V[φ,ψ](p, q, c) = E φ(u) ψ(v) for Gaussians u, v with variances p, q and covariance c."""

    phi: Expr
    psi: Expr
    p: Tensor
    q: Tensor
    c: Tensor

    @property
    def symbols(self) -> tuple[Expr, ...]:
        return (X,)

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return kernel(*fields)


@node
class Expectation(Tensor):
    """E fn(u0, u1, …) for three or more jointly Gaussian variables; `grams` is their covariance's upper triangle."""

    fn: Expr
    grams: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """The number of variables."""
        return upper_triangle(len(self.grams))[-1][1] + 1

    @property
    def symbols(self) -> tuple[Expr, ...]:
        return tuple(argument(i) for i in range(self.size))


def stored(axes: Axes) -> Axes:
    """Finite axes in the order in which stored arrays have them (tpc/lower/layout.py)."""
    return tuple(sorted(axes, key=lambda a: (a.size is not None, a.name)))


def rank_axis(x: Tensor) -> Axis:
    """The rank axis of a latent."""
    found = [a for a in x.axes if a.role == "rank"]
    if len(found) != 1:
        raise InternalError(f"a latent has one rank axis, {x!r} has {len(found)}")
    axis: Axis = found[0]
    return axis


def _place(x: Tensor) -> tuple[bool, int, tuple[str, ...]]:
    """Stored latents first, so that symmetric operations have one form."""
    return (not any(a.role == "atom" for a in x.axes), len(x.axes), tuple(a.name for a in x.axes))


def gram(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩; 1 for stored unit vectors, 0 for a zero latent."""
    if a is ZERO or b is ZERO:
        return ZERO
    if a is b and isinstance(a, State) and a.unit:
        return ONE
    a, b = (a, b) if _place(a) <= _place(b) else (b, a)
    return Gram(a, b, rank_axis(a))


def kernel(phi: Expr, psi: Expr, p: Tensor, q: Tensor, c: Tensor) -> Tensor:
    """V[φ,ψ] with numbers pulled out, so that functions have names where they can; trivial cases resolved."""
    m, phi = split_number(phi)
    n, psi = split_number(psi)
    if m * n == 0 or phi == 0 or psi == 0:
        return ZERO
    return tensor.contract((tensor.Constant(m * n), _kernel(phi, psi, p, q, c)))


def _kernel(phi: Expr, psi: Expr, p: Tensor, q: Tensor, c: Tensor) -> Tensor:
    if phi == X and psi == X:
        return c
    if not phi.has(X) and not psi.has(X):
        return ONE
    if {parity(phi), parity(psi)} == {0, 1}:  # φ(u)ψ(v) changes sign with (u, v)
        return ZERO
    if not phi.has(X):
        return Kernel(psi, sp.Integer(1), q, ZERO, ZERO)
    if not psi.has(X):
        return Kernel(phi, sp.Integer(1), p, ZERO, ZERO)
    if (_place_of(p), str(phi)) > (_place_of(q), str(psi)):
        return Kernel(psi, phi, q, p, c)
    return Kernel(phi, psi, p, q, c)


def _place_of(variance: Tensor) -> tuple[bool, int, tuple[str, ...]]:
    return (False, 0, ()) if variance is ONE else _place(variance)


@vjp.register
def _gram_vjp(n: Gram, dy: Tensor) -> Flow:
    # c = ⟨a, b⟩:  da = dc b,  db = dc a
    for x, other in ((n.a, n.b), (n.b, n.a)):
        axes = union(dy.axes, other.axes)
        yield x, tensor.broadcast(tensor.contract((dy, other), without(axes, x.axes)), x.axes)


@vjp.register
def _kernel_vjp(n: Kernel, dy: Tensor) -> Flow:
    # Price: ∂_c V[φ,ψ] = V[φ',ψ'],  ∂_p V[φ,ψ] = ½ V[φ'',ψ],  ∂_q V[φ,ψ] = ½ V[φ,ψ'']
    half = tensor.Constant(sp.Rational(1, 2))
    dphi, dpsi = sp.diff(n.phi, X), sp.diff(n.psi, X)
    slopes = (
        (n.p, tensor.contract((half, kernel(sp.diff(dphi, X), n.psi, n.p, n.q, n.c)))),
        (n.q, tensor.contract((half, kernel(n.phi, sp.diff(dpsi, X), n.p, n.q, n.c)))),
        (n.c, kernel(dphi, dpsi, n.p, n.q, n.c)),
    )
    for x, slope in slopes:
        share = tensor.contract((dy, slope), without(union(dy.axes, slope.axes), x.axes))
        yield x, tensor.broadcast(share, x.axes)


@vjp.register
def _expectation_vjp(n: Expectation, dy: Tensor) -> Flow:
    # Price again: ∂E f/∂c_ij = E ∂_i∂_j f, and half of that on the diagonal
    for k, (i, j) in enumerate(upper_triangle(len(n.grams))):
        slope_fn = sp.diff(n.fn, argument(i), argument(j)) * (sp.Rational(1, 2) if i == j else 1)
        if slope_fn != 0:
            slope = Expectation(slope_fn, n.grams)
            x = n.grams[k]
            yield x, tensor.contract((dy, slope), without(union(dy.axes, slope.axes), x.axes))


@vjp.register
def _state_vjp(n: State, dy: Tensor) -> Flow:
    return iter(())


def upper_triangle(count: int) -> list[tuple[int, int]]:
    """The index pairs (i ≤ j) of `count` Gram entries, row by row."""
    size = int((2 * count + 0.25) ** 0.5)
    return [(i, j) for i in range(size) for j in range(i, size)]


def atoms_in(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    return tuple(a for a in axes if a.role == "atom")
