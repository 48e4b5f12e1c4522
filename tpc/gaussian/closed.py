"""V[φ,ψ](p, q, c) = E φ(u)ψ(v) by rules: its derivation, its closed form, and what homogeneity makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import sympy as sp
from sympy import Expr, Symbol

from tpc.errors import GaussianError
from tpc.gaussian.covariance import Covariance
from tpc.gaussian.domain import check_finite
from tpc.gaussian.factors import Sum, decompose
from tpc.gaussian.moments import E, Reduction, Step
from tpc.gaussian.primitives import gap, guard_zero, textbook
from tpc.gaussian.regular import check_regular, parity, split_delta, straighten
from tpc.gaussian.symbols import RHO, C, P, Q, U, V
from tpc.gaussian.tidy import collect_terms
from tpc.program.functions import X
from tpc.program.naming import kernel_name, text

MOST_PAIRS = 400  # of terms of φ and ψ: beyond, a table is quicker to make
ROOT = Symbol("g", nonnegative=True)  # √(pq − c²) while deriving


@dataclass(frozen=True, repr=False)
class ClosedForm:
    """V[φ,ψ] as rules give it; `value` is None where they give none, and numbers must do.

    `value` is written in the primitives of `tpc.gaussian.primitives`; `plain` in textbook functions.
    `degrees` (a, b) are set when φ and ψ are positively homogeneous, and then
    V = p^(a/2) q^(b/2) κ(c/√(pq)) with `kappa` = κ in the symbol RHO.
    """

    phi: Expr
    psi: Expr
    value: Expr | None
    rules: tuple[Step, ...]
    degrees: tuple[int, int] | None

    def __repr__(self) -> str:
        form = "without a closed form" if self.value is None else f"= {self.plain}"
        return f"<{kernel_name(self.phi, self.psi)}(p, q, c) {form}>"

    @cached_property
    def plain(self) -> Expr | None:
        """The value as a book would print it."""
        return None if self.value is None else textbook(self.value)

    @cached_property
    def kappa(self) -> Expr | None:
        """V at p = q = 1, as a function of RHO, for homogeneous φ and ψ."""
        if self.degrees is None or self.value is None:
            return None
        return self.value.xreplace({P: sp.S.One, Q: sp.S.One, C: RHO})

    @cached_property
    def pole(self) -> int:
        """k, where V grows like (pq − c²)^(−k/2) as |ρ| → 1; 0 where it is bounded."""
        powers = () if self.value is None else self.value.atoms(sp.Pow)
        return max((-int(e.exp) for e in powers if isinstance(e.base, gap) and e.exp.is_negative), default=0)


@lru_cache(maxsize=2048)
def closed_form(phi: Expr, psi: Expr | None = None) -> ClosedForm:
    """The kernel of two nonlinearities of X (φ = ψ when psi is omitted), by rules alone.

    Raises `GaussianError` when the expectation does not exist or no rule and no quadrature covers it.
    """
    phi = sp.sympify(phi)
    psi = phi if psi is None else sp.sympify(psi)
    phi, psi = straighten(phi), straighten(psi)
    check_finite(phi)
    check_finite(psi)
    left, right = decompose(phi), decompose(psi)
    value: Expr | None = None
    steps: tuple[Step, ...] = ()
    degrees = None
    if left is not None and right is not None:
        a, b = degree(left), degree(right)
        degrees = None if a is None or b is None else (a, b)
        value, steps = _derive(phi, psi, left, right)
    elif (parity(phi), parity(psi)) in ((0, 1), (1, 0)):
        value = sp.S.Zero
        steps = (Step("parity", E(phi.subs(X, U) * psi.subs(X, V)), value),)
    if value is None:
        _check_numeric(phi, psi)
    return ClosedForm(phi, psi, value, steps, degrees)


def _check_numeric(phi: Expr, psi: Expr) -> None:
    """Refuse at once what `numeric_kernel` cannot tabulate."""
    check_regular(phi)
    check_regular(psi)
    if all(split_delta(f)[1] != 0 for f in (phi, psi)):
        raise GaussianError(
            f"E φ(u)ψ(v) diverges at ρ = ±1 for φ = {text(phi)}, ψ = {text(psi)}: expected a Dirac delta in at most one"
        )


def degree(terms: Sum) -> int | None:
    """The common positive-homogeneity degree of the terms, if they have one."""
    degrees = {f.degree for _, f in terms}
    return degrees.pop() if len(degrees) == 1 else None


def _derive(phi: Expr, psi: Expr, left: Sum, right: Sum) -> tuple[Expr | None, tuple[Step, ...]]:
    if len(left) * len(right) > MOST_PAIRS:
        return None, ()
    derivation = Reduction()
    law = Covariance.of([[P, C], [C, Q]], root=ROOT)
    total: Expr = sp.S.Zero
    shown: Expr = sp.S.Zero
    for a, f in left:
        for b, g in right:
            value = derivation.moment((f, g), law, (U, V))
            if value is None:
                return None, ()
            total += a * b * value
            shown += a * b * E(f.to_expr(U) * g.to_expr(V))
    steps = tuple(s.xreplace({ROOT: gap(P, Q, C)}) for s in derivation.steps)
    if len(left) * len(right) > 1:
        steps = (Step("bilinearity", E(phi.subs(X, U) * psi.subs(X, V)), shown), *steps)
    return finish(total), steps


def finish(total: Expr) -> Expr:
    """Collect a derived value and write it in the stable primitives."""
    return guard_zero(collect_terms(total).xreplace({ROOT: gap(P, Q, C)}), ((P, (C,)), (Q, (C,))))
