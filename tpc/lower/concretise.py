"""From limit graph to plain tensor arithmetic: kernels become closed forms, Gram entries contractions.

Where φ and ψ are positively homogeneous of degrees a and b, V = |g|ᵃ |g'|ᵇ κ(ρ) with ρ = ⟨g/|g|, g'/|g'|⟩: the norms
leave the loop over atoms, and stored unit vectors need none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import sympy as sp
from sympy import Expr

from tpc.gaussian.expectation import expectation
from tpc.gaussian.kernel import kernel
from tpc.gaussian.primitives import rsqrt
from tpc.gaussian.symbols import RHO, C, P, Q
from tpc.gaussian.symbols import gram as gram_symbol
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, Gram, Kernel, State, gram, rank_axis, upper_triangle
from tpc.limits.nodes import kernel as kernel_node
from tpc.limits.store import Store
from tpc.lower.instructions import AccumulateGradient, AppendAtoms, Lowered
from tpc.lower.places import places
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, without
from tpc.program.functions import X, argument, step
from tpc.program.node import node
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import ONE, ZERO, Tensor


@node
class Tabulated(Tensor):
    """V[φ,ψ](p, q, c) from a table, for pairs without a closed form."""

    phi: Expr
    psi: Expr
    p: Tensor
    q: Tensor
    c: Tensor

    @property
    def symbols(self) -> tuple[Expr, ...]:
        return (X,)


def unit(g: Tensor) -> Tensor:
    """g/|g|, zero for a zero latent."""
    if isinstance(g, State) and g.unit:
        return g
    return tensor.contract((tensor.elementwise(rsqrt(argument(0)), (square(g),)), g))


def square(g: Tensor) -> Tensor:
    """|g|²"""
    return ONE if isinstance(g, State) and g.unit else contraction(g, g, rank_axis(g))


def contraction(a: Tensor, b: Tensor, axis: Axis) -> Tensor:
    return tensor.Contract((a, b), (axis,))


def norm_power(g: Tensor, k: int) -> Tensor:
    """|g|ᵏ, with |0|⁰ = 0 and |0|⁻¹ = 0: the conventions step(0) = 0 and zero gradient at a zero latent."""
    p = square(g)
    if p is ONE:
        return ONE
    fn: Expr
    if k == 0:
        fn = step(argument(0))
    elif k > 0:
        fn = sp.sqrt(argument(0)) ** k
    else:
        fn = rsqrt(argument(0)) ** (-k)
    return tensor.elementwise(fn, (p,))


class Concretiser(Rewriter[Tensor]):
    """Rewrites tensors. `multipliers` gives every atom a factor of its own."""

    def __init__(self, graph: LimitGraph | None = None, multipliers: bool = False) -> None:
        super().__init__(None if graph is None else places(graph, multipliers))

    def rule(self, x: Tensor) -> Tensor:
        match x:
            case Kernel():
                return self._kernel(x)
            case Gram():
                return contraction(self(x.a), self(x.b), x.rank)
            case Expectation():
                return self._expectation(x)
            case tensor.Broadcast():
                return tensor.broadcast(self(x.arg), x.axes)
        return self.remade(x)

    def _kernel(self, x: Kernel) -> Tensor:
        v = kernel(x.phi, x.psi)
        if v.value is None:
            return Tabulated(x.phi, x.psi, self(x.p), self(x.q), self(x.c))
        if v.degrees is not None and v.kappa is not None:
            a, b = v.degrees
            alone = _latent(x.p) if not x.psi.has(X) else None
            if alone is not None:
                number = v.kappa.xreplace({RHO: sp.Integer(0)})
                return tensor.contract((tensor.Constant(number), norm_power(self(alone), a)))
            pair = _pair(x)
            if pair is not None:
                g, h = self(pair[0]), self(pair[1])
                number, kappa_fn = _constant_factor(v.kappa.xreplace({RHO: argument(0)}))
                rho = contraction(unit(g), unit(h), rank_axis(g))
                kappa = tensor.elementwise(kappa_fn, (rho,))
                return tensor.contract((tensor.Constant(number), norm_power(g, a), norm_power(h, b), kappa))
        number, fn = _constant_factor(v.value.xreplace({P: argument(0), Q: argument(1), C: argument(2)}))
        value = tensor.elementwise(fn, (self(x.p), self(x.q), self(x.c)))
        return tensor.contract((tensor.Constant(number), value))

    def _expectation(self, x: Expectation) -> Tensor:
        found = expectation(x.fn, [argument(i) for i in range(x.size)])
        images = {gram_symbol(i, j): argument(k) for k, (i, j) in enumerate(upper_triangle(len(x.grams)))}

        def made(value: Expr) -> Tensor:
            return tensor.elementwise(value.xreplace(images), x.grams)

        if found.value is not None and not found.given:
            return self(made(found.value))
        terms = []
        for t in found.terms:
            factors = [made(t.coefficient)]
            if t.kernel is not None and t.variances is not None and t.covariance is not None:
                places = (made(value) for value in (*t.variances, t.covariance))
                factors.append(kernel_node(t.kernel.phi, t.kernel.psi, *places))
            terms.append(self(tensor.contract(factors)))
        return tensor.add(terms)

    def column(self, store: Store, g: Tensor) -> Tensor:
        """A stored latent of the atoms a step appends."""
        return unit(self(g)) if store.degree is not None else self(g)

    def coefficient(self, store: Store, coefficient: Tensor, latents: Sequence[Tensor]) -> Tensor:
        """The stored coefficient, with the latent's norm folded in where rows are unit vectors."""
        a = self(coefficient)
        if store.degree is None:
            return a
        return tensor.contract((a, norm_power(self(latents[0]), store.degree)))


def concretise(lowered: Lowered) -> Lowered:
    """The stage: every output as tensor arithmetic, what atoms are made of for every index of a batch.

    Where nothing flows back to a weight its atoms would have no coefficients: they are not appended.
    """
    concrete = Concretiser(lowered.graph, lowered.multipliers)
    if not lowered.changes:
        return lowered.rewritten(concrete)
    given = dict(lowered.gradients.outputs)
    made: dict[str, Tensor] = {}
    for c in lowered.changes:
        operands = [given.pop(o.key) for o in c.operands]
        if isinstance(c, AccumulateGradient):
            made[c.operands[0].key] = _along(c.state, concrete(operands[0]))
        elif concrete(operands[0]) is not ZERO:
            made.update(zip((o.key for o in c.operands), _appended(c, operands, concrete)))
    changes = tuple(c for c in lowered.changes if c.operands[0].key in made)
    kept = [(name, t) for name, t in lowered.gradients.outputs if name in made or name in given]
    step = replace(lowered.gradients, outputs=tuple((n, made[n] if n in made else concrete(t)) for n, t in kept))
    return replace(lowered.rewritten(concrete).with_function(step), changes=changes)


def _appended(c: AppendAtoms, operands: Sequence[Tensor], concrete: Concretiser) -> Iterator[Tensor]:
    store, latents = c.store, operands[1 : 1 + len(c.store.columns)]
    mixed = any(a.size is not None for a in c.batch)

    def along(t: Tensor, extra: Axes) -> Tensor:
        whole = tensor.broadcast(t, (*c.batch, *extra))
        return tensor.rename(whole, {a: replace(a, role="last") for a in extra if a.size} if mixed else {})

    yield along(concrete.coefficient(store, operands[0], latents), store.coefficients.axes[1:])
    for column, g in zip(store.columns, latents):
        yield along(concrete.column(store, g), column.axes[1:])
    for theta in operands[1 + len(latents) :]:
        yield along(concrete(theta), ())


def _along(state: Tensor, gradient: Tensor) -> Tensor:
    """The gradient along all axes of the state, whose lengths the state tells where nothing else does."""
    if all(a.size is not None for a in without(state.axes, gradient.axes)):
        return tensor.broadcast(gradient, state.axes)
    return tensor.Add((gradient, tensor.Contract((ZERO, state), ())))


@cache
def _constant_factor(fn: Expr) -> tuple[Expr, Expr]:
    """fn = number · rest, the number irrational or not."""
    fn = sp.factor_terms(fn)
    number, rest = fn.as_independent(*fn.free_symbols, as_Add=False) if fn.free_symbols else (fn, sp.Integer(1))
    return number, rest


def _latent(p: Tensor) -> Tensor | None:
    return p.a if isinstance(p, Gram) and p.a is p.b else None


def _pair(x: Kernel) -> tuple[Tensor, Tensor] | None:
    """The latents g, h of V[φ,ψ](|g|², |h|², ⟨g,h⟩)."""
    if not isinstance(x.c, Gram):
        return None
    for g, h in ((x.c.a, x.c.b), (x.c.b, x.c.a)):
        if gram(g, g) is x.p and gram(h, h) is x.q:
            return g, h
    return None
