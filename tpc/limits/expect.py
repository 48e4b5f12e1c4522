"""E fn(⟨z, g₁⟩, …, ⟨z, g_k⟩) as kernels of Gram entries."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp
from sympy import Expr

from tpc.errors import GaussianError
from tpc.limits.graph import Expectation, gram, kernel
from tpc.program import tensor
from tpc.program.functions import X, argument, partial
from tpc.program.ir import theta
from tpc.program.tensor import ONE, ZERO, Constant, Tensor


def expectation(fn: Expr, latents: Sequence[Tensor], thetas: Sequence[Tensor] = ()) -> Tensor:
    """The expectation over z ~ N(0, I) of fn, in u_i = ⟨z, latents[i]⟩ and t_j = thetas[j].

    Bilinear: sums are taken apart where they join different variables, and numbers and parameters come out. Products
    of functions of one variable each become V[φ,ψ]; a bare factor u_i of a longer product goes by Stein's lemma.
    """
    variables = [argument(i) for i in range(len(latents))] + [theta(j) for j in range(len(thetas))]
    number, fn = sp.sympify(fn).as_independent(*variables, as_Add=False)
    if number == 0 or fn == 0:
        return ZERO
    outside: list[Tensor] = [Constant(number)]
    groups: dict[int, Expr] = {}
    for factor in sp.Mul.make_args(fn):
        us = [i for i in range(len(latents)) if factor.has(argument(i))]
        ts = [j for j in range(len(thetas)) if factor.has(theta(j))]
        if len(us) > 1 or (us and ts):
            summands = _summands(fn, factor)
            if len(summands) > 1:
                parts = [expectation(t, latents, thetas) for t in summands]
                return tensor.contract((Constant(number), tensor.add(parts)))
            return tensor.contract((*outside, _joint(fn, latents, ts)))
        if us:
            groups[us[0]] = groups.get(us[0], sp.Integer(1)) * factor
        else:
            scalar = factor.xreplace({theta(j): argument(j) for j in range(len(thetas))})
            outside.append(tensor.elementwise(scalar, thetas))
    return tensor.contract((*outside, _product(groups, latents)))


def _summands(fn: Expr, factor: Expr) -> list[Expr]:
    """fn as a sum, by distributing it over one of its factors and no other."""
    rest = sp.Mul(*(f for f in sp.Mul.make_args(fn) if f != factor))
    return [rest * t for t in sp.Add.make_args(factor if isinstance(factor, sp.Add) else sp.expand(factor))]


def _product(groups: dict[int, Expr], latents: Sequence[Tensor]) -> Tensor:
    """E Π φ_i(u_i) for distinct variables."""
    if not groups:
        return ONE
    if len(groups) <= 2:
        (i, phi), (j, psi) = (*groups.items(), (0, sp.Integer(1)), (0, sp.Integer(1)))[:2]
        a, b = latents[i], latents[j]
        phi, psi = phi.xreplace({argument(i): X}), psi.xreplace({argument(j): X})
        if not psi.has(X):
            return kernel(phi, psi, gram(a, a), ZERO, ZERO) if phi.has(X) else kernel(phi, psi, ZERO, ZERO, ZERO)
        return kernel(phi, psi, gram(a, a), gram(b, b), gram(a, b))
    for i, phi in groups.items():
        if phi == argument(i):  # Stein: E[u_i F] = Σ_j ⟨g_i, g_j⟩ E[∂_j F]
            rest = sp.Mul(*(psi for j, psi in groups.items() if j != i))
            parts = [
                tensor.contract((gram(latents[i], latents[j]), expectation(partial(rest, argument(j)), latents)))
                for j in groups
                if j != i
            ]
            return tensor.add(parts)
    return _joint(sp.Mul(*groups.values()), latents, [])


def _joint(fn: Expr, latents: Sequence[Tensor], thetas: Sequence[int]) -> Tensor:
    used = [i for i in range(len(latents)) if fn.has(argument(i))]
    if thetas:
        raise GaussianError(
            f"no rule for E {fn}: a parameter enters a nonlinearity of a Gaussian variable. Scale the vector before "
            "the nonlinearity instead."
        )
    fn = fn.xreplace({argument(i): argument(k) for k, i in enumerate(used)})
    kept = [latents[i] for i in used]
    grams = tuple(gram(kept[i], kept[j]) for i in range(len(kept)) for j in range(i, len(kept)))
    return Expectation(fn, grams)
