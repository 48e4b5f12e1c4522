"""V[φ,ψ](p, q, c) = E φ(u)ψ(v) as users hold it: form, numbers, derivatives (Price), series."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import DiracDelta, Expr

from tpc.gaussian.closed import ClosedForm, closed_form
from tpc.gaussian.primitives import gap
from tpc.program.functions import X

if TYPE_CHECKING:
    from tpc.gaussian.numeric import NumericKernel
    from tpc.gaussian.series import MehlerSeries


class Kernel(ClosedForm):
    """V[φ,ψ] with its derivation; `value` is None when only `numeric` exists."""

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

    def series(self, terms: int = 8) -> MehlerSeries:
        """The Mehler series up to ρ^terms."""
        from tpc.gaussian.series import MehlerSeries

        return MehlerSeries(self, terms)

    def at(self, p: Any, q: Any, c: Any, dtype: str = "float64") -> Any:
        """V at variances p, q and covariance c.

        Numbers give a float that is exact to the last digit where a closed form exists; arrays broadcast and
        are evaluated in `dtype`, as generated code does. Raises `GaussianError` for c² > pq or p, q < 0.
        """
        from tpc.gaussian.point import value_of

        return value_of(self, p, q, c, dtype)

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
    found = closed_form(phi, psi)
    return Kernel(found.phi, found.psi, found.value, found.rules, found.degrees)


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
