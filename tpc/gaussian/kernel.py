"""V[φ,ψ](p, q, c) = E φ(u)ψ(v): derivation, derivatives by Price's theorem, and homogeneity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import DiracDelta, Expr, Symbol

from tpc.errors import GaussianError
from tpc.gaussian.covariance import Covariance
from tpc.gaussian.domain import check_finite
from tpc.gaussian.factors import Sum, decompose
from tpc.gaussian.mehler import MehlerSeries
from tpc.gaussian.moments import Derivation, E, Step
from tpc.gaussian.primitives import gap, guard_zero, textbook
from tpc.gaussian.regular import check_regular, parity, split_delta, straighten
from tpc.gaussian.symbols import RHO, C, P, Q, U, V
from tpc.gaussian.tidy import collect_terms
from tpc.program.functions import X
from tpc.program.naming import kernel_name, text

if TYPE_CHECKING:
    from tpc.gaussian.numeric import NumericKernel

MOST_PAIRS = 400  # of terms of φ and ψ: beyond, a table is quicker to make
ROOT = Symbol("g", nonnegative=True)  # √(pq − c²) while deriving


@dataclass(frozen=True, repr=False)
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
    degrees: tuple[int, int] | None

    def __repr__(self) -> str:
        form = "without a closed form" if self.value is None else f"= {self.plain}"
        return f"<{kernel_name(self.phi, self.psi)}(p, q, c) {form}>"

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """What p, q and c must satisfy, and how accurate the value is."""
        accuracy = None if self.numeric is None else self.numeric.promise
        return _conditions(self.phi, self.psi, self.value, accuracy)

    @cached_property
    def numeric(self) -> NumericKernel | None:
        """What evaluates a kernel without a closed form, from tables that are made when they are first needed.

        Raises `GaussianError` where φ or ψ varies too fast for tables at a variance of 1.
        """
        if self.value is not None:
            return None
        from tpc.gaussian.numeric import numeric_kernel

        return numeric_kernel(self.phi, self.psi)

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

    def series(self, terms: int = 8) -> MehlerSeries:
        """The Mehler series up to ρ^terms."""
        return MehlerSeries(self, terms)

    def at(self, p: Any, q: Any, c: Any, dtype: str = "float64") -> Any:
        """V at variances p, q and covariance c.

        Numbers give a float that is exact to the last digit where a closed form exists; arrays broadcast and
        are evaluated in `dtype`, as generated code does. Raises `GaussianError` for c² > pq or p, q < 0.
        """
        from tpc.gaussian.evaluate import evaluate_kernel

        return evaluate_kernel(self, p, q, c, dtype)

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
    return Kernel(phi, psi, value, steps, degrees)


def _check_numeric(phi: Expr, psi: Expr) -> None:
    """Refuse at once what `numeric_kernel` cannot tabulate."""
    check_regular(phi)
    check_regular(psi)
    if all(split_delta(f)[1] != 0 for f in (phi, psi)):
        raise GaussianError(
            f"E φ(u)ψ(v) diverges at ρ = ±1 for φ = {text(phi)}, ψ = {text(psi)}: expected a Dirac delta in at most one"
        )


def _conditions(phi: Expr, psi: Expr, value: Expr | None, accuracy: str | None) -> tuple[str, ...]:
    found = ["(u, v) jointly Gaussian with mean 0, Var u = p, Var v = q, Cov(u, v) = c"]
    for name, f in (("p", phi), ("q", psi)):
        if f.has(DiracDelta):
            found.append(f"{name} > 0 (taken as 0 at a zero vector)")
    if value is not None and value.replace(gap, lambda *_: sp.S.Zero).has(sp.zoo, sp.nan):
        found.append("|ρ| < 1 (diverges at ρ = ±1)")
    if accuracy is not None:
        found.append(f"no closed form: evaluated from tables, {accuracy}")
    return tuple(found)


def degree(terms: Sum) -> int | None:
    """The common positive-homogeneity degree of the terms, if they have one."""
    degrees = {f.degree for _, f in terms}
    return degrees.pop() if len(degrees) == 1 else None


def _derive(phi: Expr, psi: Expr, left: Sum, right: Sum) -> tuple[Expr | None, tuple[Step, ...]]:
    if len(left) * len(right) > MOST_PAIRS:
        return None, ()
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
    steps = tuple(s.xreplace({ROOT: gap(P, Q, C)}) for s in derivation.steps)
    if len(left) * len(right) > 1:
        steps = (Step("bilinearity", E(phi.subs(X, U) * psi.subs(X, V)), shown), *steps)
    return finish(total), steps


def finish(total: Expr) -> Expr:
    """Collect a derived value and write it in the stable primitives."""
    return guard_zero(collect_terms(total).xreplace({ROOT: gap(P, Q, C)}), ((P, (C,)), (Q, (C,))))
