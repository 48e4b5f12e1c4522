"""E fn(u₁, …, u_k) of jointly Gaussian variables as kernels of their covariances.

In the π-limit the variables are ⟨z, g_i⟩ of latents g_i, with Gram entries for covariances; in kernel limits they are
the Gaussian vectors of a network at initialization, with covariances derived from the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import sympy as sp
from sympy import Expr

from tpc.errors import GaussianError
from tpc.gaussian.expectation import expectation as reduced
from tpc.gaussian.kernel import kernel as derived
from tpc.gaussian.regular import has_kink
from tpc.limits.nodes import Expectation, Kernel, gram, kernel
from tpc.program import tensor
from tpc.program.functions import X, argument, partial
from tpc.program.ir import theta
from tpc.program.naming import kernel_name, text
from tpc.program.tensor import ONE, ZERO, Constant, Tensor

G = TypeVar("G")


def expectation(fn: Expr, latents: Sequence[Tensor], thetas: Sequence[Tensor] = ()) -> Tensor:
    """The expectation over z ~ N(0, I) of fn, in u_i = ⟨z, latents[i]⟩ and t_j = thetas[j]."""
    return gaussian_mean(fn, latents, thetas, gram)


def gaussian_mean(
    fn: Expr, latents: Sequence[G], thetas: Sequence[Tensor], covariance: Callable[[G, G], Tensor]
) -> Tensor:
    """E fn over zero-mean Gaussians u_i with Cov(u_i, u_j) = covariance(latents[i], latents[j]); t_j = thetas[j].

    Bilinear: sums are taken apart where they join different variables, and numbers and parameters come out.
    Independent variables are taken apart, too. Products of functions of one variable each become V[φ,ψ]; a bare
    factor u_i of a longer product goes by Stein's lemma, unless its terms diverge one by one where two variables are
    one up to a factor: they then stay together, as one expectation.
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
                parts = [gaussian_mean(t, latents, thetas, covariance) for t in summands]
                return tensor.contract((Constant(number), tensor.add(parts)))
            return tensor.contract((*outside, _joint(fn, latents, ts, covariance)))
        if us:
            groups[us[0]] = groups.get(us[0], sp.Integer(1)) * factor
        else:
            scalar = factor.xreplace({theta(j): argument(j) for j in range(len(thetas))})
            outside.append(tensor.elementwise(scalar, thetas))
    parts = [_product(g, latents, covariance) for g in _independent(groups, latents, covariance)]
    return tensor.contract((*outside, *parts))


def divergences(value: Tensor, bound: int = 0) -> Iterator[str]:
    """The kernels and expectations in a mean that grow faster than (pq − c²)^(−bound/2) as |ρ| → 1.

    Those without a value have none; `check_kernels` tells them.
    """
    match value:
        case tensor.Contract():
            for f in value.factors:
                yield from divergences(f, bound)
        case tensor.Add():
            for t in value.terms:
                yield from divergences(t, bound)
        case Kernel() if has_kink(value.phi) and has_kink(value.psi):
            with suppress(GaussianError):
                if derived(value.phi, value.psi).pole > bound:
                    yield kernel_name(value.phi, value.psi)
        case Expectation():
            with suppress(GaussianError):
                if reduced(value.fn, [argument(i) for i in range(value.size)]).divergence > bound:
                    yield f"E[{text(value.fn)}]"


def _independent(
    groups: dict[int, Expr], latents: Sequence[G], covariance: Callable[[G, G], Tensor]
) -> Iterable[dict[int, Expr]]:
    """The factors, those of independent variables apart: E of their product is the product of their E."""
    if len(groups) < 2:
        return (groups,)
    joined: list[set[int]] = []
    for i in groups:
        met = [s for s in joined if any(covariance(latents[i], latents[j]) is not ZERO for j in s)]
        joined = [s for s in joined if s not in met] + [set().union({i}, *met)]
    return [{i: phi for i, phi in groups.items() if i in s} for s in sorted(joined, key=min)]


def _summands(fn: Expr, factor: Expr) -> list[Expr]:
    """fn as a sum, by distributing it over one of its factors and no other."""
    rest = sp.Mul(*(f for f in sp.Mul.make_args(fn) if f != factor))
    return [rest * t for t in sp.Add.make_args(factor if isinstance(factor, sp.Add) else sp.expand(factor))]


def _product(groups: dict[int, Expr], latents: Sequence[G], covariance: Callable[[G, G], Tensor]) -> Tensor:
    """E Π φ_i(u_i) for distinct variables."""
    if not groups:
        return ONE
    if len(groups) <= 2:
        (i, phi), (j, psi) = (*groups.items(), (0, sp.Integer(1)), (0, sp.Integer(1)))[:2]
        a, b = latents[i], latents[j]
        phi, psi = phi.xreplace({argument(i): X}), psi.xreplace({argument(j): X})
        if not psi.has(X):
            return kernel(phi, psi, covariance(a, a) if phi.has(X) else ZERO, ZERO, ZERO)
        return kernel(phi, psi, covariance(a, a), covariance(b, b), covariance(a, b))
    if _diverges(groups):
        return _joint(sp.Mul(*groups.values()), latents, [], covariance)
    for i, phi in groups.items():
        if phi == argument(i):  # Stein: E[u_i F] = Σ_j Cov(u_i, u_j) E[∂_j F]
            rest = sp.Mul(*(psi for j, psi in groups.items() if j != i))
            parts = [
                tensor.contract((c, gaussian_mean(partial(rest, argument(j)), latents, (), covariance)))
                for j in groups
                if j != i and (c := covariance(latents[i], latents[j])) is not ZERO
            ]
            return tensor.add(parts)
    return _joint(sp.Mul(*groups.values()), latents, [], covariance)


def _joint(fn: Expr, latents: Sequence[G], thetas: Sequence[int], covariance: Callable[[G, G], Tensor]) -> Tensor:
    used = [i for i in range(len(latents)) if fn.has(argument(i))]
    if thetas:
        raise GaussianError(
            f"no rule for E {fn}: a parameter enters a nonlinearity of a Gaussian variable. Scale the vector before "
            "the nonlinearity instead."
        )
    fn = _renumbered(fn, used)
    kept = [latents[i] for i in used]
    grams = tuple(covariance(kept[i], kept[j]) for i in range(len(kept)) for j in range(i, len(kept)))
    return Expectation(fn, grams)


def _renumbered(fn: Expr, used: Sequence[int]) -> Expr:
    return fn.xreplace({argument(i): argument(k) for k, i in enumerate(used)})


def _diverges(groups: dict[int, Expr]) -> bool:
    """Whether plain Stein leads to kernels that are infinite where two variables are one, up to a factor."""
    if sum(map(has_kink, groups.values())) != 2:
        return False
    fn = _renumbered(sp.Mul(*groups.values()), list(groups))
    try:
        return reduced(fn, [argument(k) for k in range(len(groups))]).given
    except GaussianError:  # told by `check_kernels`, with the user's line
        return True
