"""A kernel at numbers or arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from sympy import DiracDelta

from tpc.errors import GaussianError
from tpc.gaussian.closed import ClosedForm
from tpc.gaussian.evaluate import precise, vectorised
from tpc.gaussian.numeric import numeric_kernel, value_at
from tpc.gaussian.symbols import C, P, Q
from tpc.program.naming import kernel_name


def value_of(v: ClosedForm, p: Any, q: Any, c: Any, dtype: str = "float64") -> Any:
    """V at numbers (a float, exact where a closed form exists) or at arrays (in `dtype`)."""
    _check_point(p, q, c)
    if all(np.ndim(x) == 0 for x in (p, q, c)):
        if v.value is not None:
            return _closed(v, float(p), float(q), float(c))
        return value_at(v.phi, v.psi, float(p), float(q), float(c))
    p, q, c = (np.asarray(x, dtype=dtype) for x in (p, q, c))
    if v.value is not None:
        return vectorised(v.value, (P, Q, C))(p, q, c).astype(dtype)
    return numeric_kernel(v.phi, v.psi)(p, q, c).astype(dtype)


def _closed(v: ClosedForm, p: float, q: float, c: float) -> float:
    """A closed form at a point, refused where it diverges; 0 where a δ meets a zero vector, as in generated code."""
    if any(variance == 0 and f.has(DiracDelta) for f, variance in ((v.phi, p), (v.psi, q))):
        return 0.0
    try:
        return float(precise(v.value, {P: p, Q: q, C: c}))
    except ZeroDivisionError:
        raise GaussianError(
            f"{kernel_name(v.phi, v.psi)} is infinite at p = {p:g}, q = {q:g}, c = {c:g}: it diverges as the "
            "correlation goes to ±1\n  Fix: take a point with c² < p·q"
        ) from None


def _check_point(p: Any, q: Any, c: Any) -> None:
    p, q, c = (np.asarray(x, dtype=np.float64) for x in (p, q, c))
    if np.any(p < 0) or np.any(q < 0) or not all(np.all(np.isfinite(x)) for x in (p, q, c)):
        raise GaussianError("expected finite variances p ≥ 0 and q ≥ 0 and a finite covariance c")
    if np.any(np.abs(c) > np.sqrt(p) * np.sqrt(q) * (1 + 1e-6)):
        raise GaussianError("expected a covariance with c² ≤ p·q, got one outside the Cauchy–Schwarz bound")
