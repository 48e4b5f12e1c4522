"""The tail of a folded sum: what its polynomial leaves out, as values at random points.

With the atoms' sum X(z) = Σ_m A_m x_m(z) and its Hermite terms P of degree ≤ D, the tail X − P is kept at N fixed
points z_i ~ N(0, I): T_i = (1/N) (X − P)(z_i). For any function R of a batch's latents

    E[R (X − P)] ≈ Σ_i T_i R_{>D}(z_i),      R_{>D} = R less its own Hermite terms of degree ≤ D,

without bias over the draw of the points, and with a variance of E[R_{>D}² (X − P)²]/N: a random feature expansion
(Rahimi, Recht 2007) of the part of the kernel that no tensor of low degree holds. The gradient of the right side by the
latents g_b of R, where R′ is R differentiated by the one that goes back, is

    Σ_i T_i ( R′_{≥D}(z_i) z_i − Σ_b g_b (∂_b R′)_{D−1, D}(z_i) ),

the subscript meaning the terms of these degrees. So backward stays the exact gradient of the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import factorial, prod

import sympy as sp
from sympy import DiracDelta, Expr

from tpc.limits.expect import expectation
from tpc.limits.hermite import covariance_symbol, derivative, indices, wick
from tpc.limits.nodes import State, gram, rank_axis
from tpc.limits.store import Store, Tail
from tpc.limits.term import LimitTerm
from tpc.program import tensor
from tpc.program.axes import Axes, Axis
from tpc.program.functions import argument
from tpc.program.ir import theta
from tpc.program.tensor import ZERO, Constant, Contract, Tensor

ROLE = "point"


@dataclass(frozen=True)
class Beside:
    """What stands beside a stored tensor, Σ_over factors · tensor, and the names that its outer axes have there."""

    factors: tuple[Tensor, ...]
    over: Axes
    names: Mapping[Axis, Axis]

    @property
    def flat(self) -> tuple[Tensor, ...]:
        """The factors, those of plain products one by one."""
        products = (f.factors if isinstance(f, Contract) and not f.over else (f,) for f in self.factors)
        return tuple(g for factors in products for g in factors)


def tail_of(store: Store, degree: int, points: int) -> Tail | None:
    """The tail of a store; None where no points are asked for, or nothing is left beyond the degree."""
    beyond_it = indices(len(store.columns), degree + 1)
    if not points or not store.columns or all(derivative(store.fn, index) == 0 for index in beyond_it):
        return None
    axis = Axis(f"{store.name}.z", points, ROLE)
    return Tail(
        State(f"{store.name}.Z", (axis, rank_axis(store.columns[0]))),
        State(f"{store.name}.T", (axis, *store.coefficients.axes[1:])),
        State(f"{store.name}.wT", ()),
    )


def beyond(fn: Expr, degree: int, latents: Sequence[Tensor], thetas: Sequence[Tensor], points: State) -> Tensor:
    """fn less its Hermite terms of degree ≤ `degree`, at every point."""
    return _at(points, fn, range(degree + 1), latents, thetas)


def negated_terms(
    fn: Expr, degrees: Iterable[int], latents: Sequence[Tensor], thetas: Sequence[Tensor], points: State
) -> Tensor:
    """The negated Hermite terms of fn of these degrees, at every point."""
    return _at(points, fn, degrees, latents, thetas, whole=False)


def values(tail: Tail, reader: LimitTerm, fn: Expr, degree: int, beside: Beside) -> Iterator[Tensor]:
    """Σ_i T_i R_{>D}(z_i) for R = fn."""
    if not fn.has(DiracDelta):  # a distribution has terms, but no values
        yield from _read(tail, beyond(fn, degree, reader.latents, reader.thetas, tail.points), beside)


def slopes(tail: Tail, reader: LimitTerm, fn: Expr, degree: int, beside: Beside) -> Iterator[Tensor]:
    """-Σ_i T_i (∂_b R′)_{D−1, D}(z_i) for ∂_b R′ = fn; `beside` has the latent g_b."""
    degrees = range(max(0, degree - 1), degree + 1)
    yield from _read(tail, negated_terms(fn, degrees, reader.latents, reader.thetas, tail.points), beside)


def gradients(tail: Tail, reader: LimitTerm, fn: Expr, degree: int, beside: Beside) -> Iterator[Tensor]:
    """Σ_i T_i R′_{≥D}(z_i) z_i for R′ = fn."""
    if not fn.has(DiracDelta):
        made = beyond(fn, degree - 1, reader.latents, reader.thetas, tail.points)
        yield from _read(tail, made, beside, (tail.points,))


def _read(tail: Tail, made: Tensor, beside: Beside, opened: tuple[Tensor, ...] = ()) -> Iterator[Tensor]:
    if made is not ZERO:
        kept = tensor.rename(tail.values, dict(beside.names))
        yield tensor.contract((tail.weight, kept, made, *opened, *beside.factors), (*beside.over, tail.axis))


def _at(
    points: State,
    fn: Expr,
    degrees: Iterable[int],
    latents: Sequence[Tensor],
    thetas: Sequence[Tensor],
    whole: bool = True,
) -> Tensor:
    """fn, or nothing, less its Hermite terms Σ_β 1/β! E[∂^β fn] :u^β: of these degrees; u_i = ⟨z, latents[i]⟩."""
    args: list[Tensor] = []

    def symbol(x: Tensor) -> Expr:
        if isinstance(x, Constant):
            return x.value
        if x not in args:
            args.append(x)
        return argument(args.index(x))

    variables = {argument(i): symbol(gram(g, points)) for i, g in enumerate(latents)}
    parameters = {theta(j): symbol(t) for j, t in enumerate(thetas)}
    made = fn.xreplace({**variables, **parameters}) if whole else sp.Integer(0)
    pairs = [(i, j) for i in range(len(latents)) for j in range(i, len(latents))]
    covariances = {covariance_symbol(i, j): symbol(gram(latents[i], latents[j])) for i, j in pairs}
    for n in degrees:
        for index in indices(len(latents), n):
            slope = derivative(fn, index)
            value = expectation(slope, latents, thetas) if slope != 0 else ZERO
            if value is not ZERO:
                weight = symbol(value) / prod(map(factorial, index))
                made -= weight * wick(index).xreplace({**variables, **covariances})
    return tensor.elementwise(made, args)
