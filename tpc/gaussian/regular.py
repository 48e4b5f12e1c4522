"""Functions outside the normal-form family: their parity, their kinks, and the δ at 0 they may contain."""

from __future__ import annotations

import sympy as sp
from sympy import DiracDelta, Expr, Symbol

from tpc.errors import GaussianError
from tpc.gaussian.domain import shape
from tpc.gaussian.factors import decompose
from tpc.program.functions import X, absolute, relu, sign, step
from tpc.program.naming import called

KINKED = (relu, absolute, step, sign)


def parity(phi: Expr) -> int | None:
    """0 for an even function, 1 for an odd one, None where neither is evident."""
    mirrored = phi.subs(X, -X)
    mirrored = mirrored.replace(absolute, lambda x: absolute(-x) if _negated(x) else absolute(x))
    mirrored = mirrored.replace(sign, lambda x: -sign(-x) if _negated(x) else sign(x))
    if mirrored == phi or sp.expand(mirrored - phi) == 0:
        return 0
    return 1 if sp.expand(mirrored + phi) == 0 else None


def _negated(x: Expr) -> bool:
    return bool(x.could_extract_minus_sign())


def has_kink(phi: Expr) -> bool:
    """Whether φ is made of functions with kinks or jumps."""
    return bool(phi.has(*KINKED, DiracDelta))


def times_argument(phi: Expr) -> Expr:
    """x·φ(x), without what is 0 as x·δ(x)."""
    made = []
    for term in sp.Add.make_args(sp.expand(X * phi)):
        if not term.has(DiracDelta):
            made.append(term)
        elif (parts := decompose(term)) is not None:
            made += [c * f.to_expr(X) for c, f in parts]
        else:
            regular, weight = split_delta(term)
            made.append(regular + weight * DiracDelta(X))
    return sp.Add(*made)


def straighten(phi: Expr) -> Expr:
    """Give kinks at 0 the argument ±x: where g has the sign of x, relu(g) = g·step(x) and step(g) = step(x)."""
    half_line = Symbol("x", positive=True)
    for part in phi.atoms(*KINKED, DiracDelta):
        inner = part.args[0]
        signs = tuple(_sign_of(inner.subs(X, side * half_line)) for side in (1, -1))
        if inner.is_polynomial(X) or signs not in ((1, -1), (-1, 1)):
            continue
        side = signs[0] * X
        images = {relu: inner * step(side), absolute: inner * sign(side), step: step(side), sign: sign(side)}
        slope = inner.diff(X).subs(X, 0)
        if isinstance(part, DiracDelta) and slope.is_nonzero and len(part.args) == 1:
            phi = phi.xreplace({part: DiracDelta(X) / sp.Abs(slope)})
        elif part.func in images:
            phi = phi.xreplace({part: images[part.func]})
    return phi


def on_side(phi: Expr, side: int) -> Expr:
    """φ(side·x) for x > 0, where every kinked function of `check_regular` is linear or constant."""
    positive = Symbol("x", positive=True)
    folded = phi.xreplace({X: side * positive})

    def above(inner: Expr) -> bool:
        return bool(inner.is_positive or (inner.is_positive is None and shape(inner.subs(positive, X)).positive))

    folded = folded.replace(relu, lambda a: a if above(a) else sp.S.Zero)
    folded = folded.replace(absolute, lambda a: a if above(a) else -a)
    folded = folded.replace(step, lambda a: sp.S.One if above(a) else sp.S.Zero)
    folded = folded.replace(sign, lambda a: sp.S.One if above(a) else sp.S.NegativeOne)
    return folded.xreplace({positive: X})


def _sign_of(inner: Expr) -> int | None:
    if inner.is_positive:
        return 1
    return -1 if inner.is_negative else None


def split_delta(phi: Expr) -> tuple[Expr, Expr]:
    """(regular part, coefficient of δ) of φ; raises `GaussianError` for derivatives of δ that remain."""
    regular, weights = delta_weights(phi)
    if any(weights):
        raise GaussianError(f"no numeric kernel for derivatives of a Dirac delta, got {called(phi)}")
    return regular, weights.get(0, sp.S.Zero)


def delta_weights(phi: Expr) -> tuple[Expr, dict[int, Expr]]:
    """The regular part of φ, and the coefficients of δ, δ', … by order, those that are not 0."""
    if not phi.has(DiracDelta):
        return phi, {}
    regular: Expr = sp.S.Zero
    weights: dict[int, Expr] = {}
    for term in sp.Add.make_args(sp.expand(phi)):
        deltas = [f for f in sp.Mul.make_args(term) if f.has(DiracDelta)]
        if not deltas:
            regular += term
            continue
        if len(deltas) > 1 or not isinstance(deltas[0], DiracDelta):
            raise GaussianError(f"products of Dirac deltas have no expectation, got {term}")
        delta = deltas[0]
        order = int(delta.args[1]) if len(delta.args) > 1 else 0
        slope = delta.args[0].diff(X)
        scale = 1 / (sp.Abs(slope) * slope**order)
        smooth = term / delta
        for i in range(order + 1):  # f δ^(j) = Σ_i (−1)^i C(j,i) f^(i)(0) δ^(j−i)
            value = (-1) ** i * sp.binomial(order, i) * scale * _at_zero(smooth.diff(X, i))
            weights[order - i] = weights.get(order - i, sp.S.Zero) + value
    exact = {j: sp.nsimplify(sp.simplify(w)) for j, w in weights.items()}
    return regular, {j: w for j, w in exact.items() if w != 0}


def _at_zero(f: Expr) -> Expr:
    """f(0), with a jump at 0 counted half as the product with δ needs."""
    halved = f.replace(step, lambda x: sp.S.Half if x.subs(X, 0) == 0 else step(x))
    return halved.subs(X, 0)


def check_regular(phi: Expr) -> None:
    """Raise `GaussianError` where φ has a kink away from 0, which no quadrature here resolves."""
    for part in phi.atoms(*KINKED):
        inner = part.args[0]
        if not inner.has(X):
            continue
        bounds = shape(inner)
        if bounds.positive or bounds.negative:
            continue
        half_line = Symbol("x", positive=True)
        if any(_sign_of(inner.subs(X, side * half_line)) is None for side in (1, -1)):
            raise GaussianError(f"no kernel for {part}: expected kinks at x = 0 only, got one where {inner} = 0")
