"""V[φ,ψ](p, q, c) = E φ(u)ψ(v): derivation, derivatives by Price's theorem, and homogeneity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import sympy as sp
from sympy import Expr, Symbol

from tpc.gaussian.covariance import Covariance
from tpc.gaussian.domain import check_finite
from tpc.gaussian.factors import Sum, decompose
from tpc.gaussian.moments import Derivation, E, Step
from tpc.gaussian.primitives import gap, guard_zero, textbook
from tpc.gaussian.symbols import RHO, C, P, Q, U, V
from tpc.gaussian.tidy import collect_terms
from tpc.program.functions import X

ROOT = Symbol("g", nonnegative=True)  # √(pq − c²) while deriving


@dataclass(frozen=True)
class Kernel:
    """V[φ,ψ] with its derivation; `value` is None when only `numeric` exists.

    `value` is written in the primitives of `tpc.gaussian.primitives`; `plain` in textbook functions.
    `degrees` (a, b) are set when φ and ψ are positively homogeneous, and then
    V = p^(a/2) q^(b/2) κ(c/√(pq)) with `kappa` = κ in the symbol RHO.
    """

    phi: Expr
    psi: Expr
    value: Expr | None
    rules: tuple[Step, ...]
    conditions: tuple[str, ...]
    degrees: tuple[int, int] | None

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

    def d_c(self) -> Kernel:
        """∂V/∂c = V[φ',ψ'] (Price)."""
        return kernel(self.phi.diff(X), self.psi.diff(X))

    def d_p(self) -> tuple[Expr, Kernel]:
        """∂V/∂p = ½ V[φ'',ψ] (Price), as (coefficient, kernel)."""
        return sp.S.Half, kernel(self.phi.diff(X, 2), self.psi)

    def d_q(self) -> tuple[Expr, Kernel]:
        """∂V/∂q = ½ V[φ,ψ''] (Price), as (coefficient, kernel)."""
        return sp.S.Half, kernel(self.phi, self.psi.diff(X, 2))


@lru_cache(maxsize=2048)
def kernel(phi: Expr, psi: Expr | None = None) -> Kernel:
    """The kernel of two nonlinearities of X (φ = ψ when psi is omitted).

    Raises `GaussianError` when the expectation does not exist or no rule and no quadrature covers it.
    """
    phi = sp.sympify(phi)
    psi = phi if psi is None else sp.sympify(psi)
    for function in (phi, psi):
        check_finite(function)
    left, right = decompose(phi), decompose(psi)
    degrees = None
    value, steps, conditions = None, (), ()
    if left is not None and right is not None:
        a, b = degree(left), degree(right)
        degrees = None if a is None or b is None else (a, b)
        value, steps = _derive(phi, psi, left, right)
    return Kernel(phi, psi, value, steps, conditions, degrees)


def degree(terms: Sum) -> int | None:
    """The common positive-homogeneity degree of the terms, if they have one."""
    degrees = {f.degree for _, f in terms}
    return degrees.pop() if len(degrees) == 1 else None


def _derive(phi: Expr, psi: Expr, left: Sum, right: Sum) -> tuple[Expr | None, tuple[Step, ...]]:
    derivation = Derivation()
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
    steps = tuple(derivation.steps)
    if len(left) * len(right) > 1:
        steps = (Step("bilinearity", E(phi.subs(X, U) * psi.subs(X, V)), shown), *steps)
    return finish(total), steps


def finish(total: Expr) -> Expr:
    """Collect a derived value and write it in the stable primitives."""
    return guard_zero(collect_terms(total).xreplace({ROOT: gap(P, Q, C)}), ((P, (C,)), (Q, (C,))))
