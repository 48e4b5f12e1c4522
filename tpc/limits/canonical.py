"""Are two tensors the same function? Both are written as sums of monomials with a canonical form, and compared.

A monomial is a number times opaque factors (data, states, maps, kernels, log-sum-exps), summed over bound axes that are
numbered by how the factors use them, so names of bound axes do not matter. Gram entries are multiplied out, kernels are
bilinear, and expectations of polynomials times functions go by Stein's lemma.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import sympy as sp

from tpc.gaussian.expectation import split
from tpc.gaussian.stein import Reducer
from tpc.gaussian.symbols import gram as symbol
from tpc.limits.nodes import Expectation, Gram, Kernel, State, kernel, upper_triangle
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, union
from tpc.program.functions import argument
from tpc.program.node import Node, remade
from tpc.program.renaming import freshened, renamed
from tpc.program.rewrite import Recursion
from tpc.program.shift import Shifted, Unshifted
from tpc.program.tensor import Constant, Tensor

Monomial = tuple[sp.Expr, tuple[Tensor, ...], Axes]  # number, opaque factors, bound axes
Written = tuple[Tensor, tuple[tuple[Axis, str], ...]]  # a tensor with the names of the axes that its text mentions

LONG = 200  # characters


class Canonical:
    """Canonical text of tensors; remembers the expansion of every node.

    `opaque` tensors are not looked into: two derivations that share their forward pass are compared beyond it.
    """

    def __init__(self, opaque: Iterable[Tensor] = ()) -> None:
        self._opaque = {x: f"#{k}" for k, x in enumerate(opaque)}
        self._expanded: dict[Tensor, list[Monomial]] = {}
        self._scopes: dict[Tensor, Axes] = {}
        self._texts: dict[Written, str] = {}
        self._numbers: dict[str, int] = {}
        self._recall = Recursion()

    def key(self, x: Tensor) -> tuple[tuple[str, str], ...]:
        """Equal for tensors that are equal as sums of monomials."""
        return self._key(x, {})

    def _key(self, x: Tensor, names: dict[Axis, str]) -> tuple[tuple[str, str], ...]:
        values: dict[str, sp.Expr] = {}
        for number, factors, over in self._expand(x):
            text = self._monomial(factors, over, names)
            values[text] = values.get(text, sp.Integer(0)) + number
        return tuple(sorted((text, str(value)) for text, value in values.items() if value != 0))

    # --- expansion ---------------------------------------------------------------------------------------------

    def _expand(self, x: Tensor) -> list[Monomial]:
        return self._recall(self._expanded, x, lambda x: list(self._terms(x)))

    def _terms(self, x: Tensor) -> Iterable[Monomial]:
        match x:
            case _ if x in self._opaque and not isinstance(x, Constant):
                yield sp.Integer(1), (x,), ()
            case Constant():
                yield x.value, (), ()
            case tensor.Add():
                for t in x.terms:
                    yield from self._expand(t)
            case tensor.Contract():
                yield from self._multiplied(x.factors, x.over)
            case Gram():
                yield from self._multiplied((x.a, x.b), (x.rank,))
            case tensor.Broadcast():
                yield from self._expand(x.arg)
            case Kernel():
                pairs = list(product(sp.Add.make_args(sp.expand(x.phi)), sp.Add.make_args(sp.expand(x.psi))))
                made = tensor.add(kernel(phi, psi, x.p, x.q, x.c) for phi, psi in pairs)
                yield from [(sp.Integer(1), (x,), ())] if len(pairs) == 1 and made is x else self._expand(made)
            case Expectation():
                made = _reduced(x)
                yield from [(sp.Integer(1), (x,), ())] if made is x else self._expand(made)
            case Shifted() | Unshifted():
                yield from self._windowed(x)
            case tensor.Rename():
                new = dict(x.pairs)
                for term in self._expand(x.arg):
                    yield renamed(freshened(term, term[2], union(new.values(), x.arg.axes)), new)
            case _:
                yield sp.Integer(1), (x,), ()

    def _multiplied(self, factors: tuple[Tensor, ...], over: Axes) -> Iterable[Monomial]:
        free = union(*(f.axes for f in factors))
        for choice in product(*(self._expand(f) for f in factors)):
            number: sp.Expr = sp.Integer(1)
            parts: tuple[Tensor, ...] = ()
            bound: Axes = tuple(over)
            taken = union(free, over)
            for term in choice:
                n, fs, inner = freshened(term, term[2], taken)
                parts, bound, taken = parts + fs, bound + inner, union(taken, inner)
                number = number * n
            yield number, parts, bound

    def _windowed(self, x: Shifted | Unshifted) -> Iterable[Monomial]:
        """Windows are linear, and go to the factors that have their places, f g → shift(f) shift(g)."""
        w = x.window
        gone = w.source if isinstance(x, Shifted) else w.target
        inside = self._expand(x.arg)
        if inside == [(sp.Integer(1), (x.arg,), ())]:
            inside = []
            yield sp.Integer(1), (x,), ()
        for term in inside:
            number, factors, over = freshened(term, term[2], union(x.axes, x.arg.axes))
            undone = [(f, self._undone(x, f)) for f in factors]
            moved = tuple(type(x)(f, w) if g is None else f for f, g in undone if g is None or g is f)
            if all(g is not None for _, g in undone):
                moved = (*moved, type(x)(tensor.broadcast(tensor.ONE, (gone,)), w))
            taken = union(over, *(f.axes for f in moved))
            before = tuple(g for f, g in undone if g is not None and g is not f and not _is_one(g))
            for part in self._multiplied(before, ()):
                n, fs, bound = freshened(part, part[2], taken)
                yield number * n, moved + fs, over + bound

    def _undone(self, x: Shifted | Unshifted, f: Tensor) -> Tensor | None:
        """What f is before the window that x undoes, but for a mask; None where there is none."""
        gone = x.window.source if isinstance(x, Shifted) else x.window.target
        if gone not in f.axes:
            return f
        if isinstance(f, Shifted | Unshifted) and type(f) is not type(x) and f.window == x.window:
            return f.arg
        if not isinstance(f, Kernel | Gram | tensor.Map):
            return None
        images: dict[Node, Node] = {}
        for n in f.operands:
            found = self._undone(x, n) if isinstance(n, Tensor) else None
            if found is None:
                return None
            images[n] = found
        made = remade(f, images.__getitem__)
        return made if isinstance(made, Tensor) else None

    def _scope(self, x: Tensor) -> Axes:
        """Every axis that the text of x may mention."""
        return self._recall(self._scopes, x, self._scope_of)

    def _scope_of(self, x: Tensor) -> Axes:
        found: dict[Axis, None] = dict.fromkeys(x.axes)
        if x not in self._opaque:
            found.update(dict.fromkeys(b for _, b in x.renames))
            for n in x.operands:
                if isinstance(n, Tensor):
                    found.update(dict.fromkeys(self._scope(n)))
        return tuple(found)

    # --- names of bound axes -----------------------------------------------------------------------------------

    def _monomial(self, factors: tuple[Tensor, ...], over: Axes, names: dict[Axis, str]) -> str:
        """The factors in order, bound axes numbered so that the text does not depend on their names.

        Axes are told apart by the factors they touch (refined a few times); what remains is symmetric.
        """
        factors = _unmasked(factors)
        colour: dict[Axis, str] = {a: f"?{a.base}" for a in over}
        for _ in range(4):
            shown = {**names, **colour}
            texts = [self._text(f, shown) for f in factors]
            colour = {
                a: f"?{a.base}<" + ";".join(sorted(t for f, t in zip(factors, texts) if a in f.axes)) + ">"
                for a in over
            }
            ranks = {c: k for k, c in enumerate(sorted(set(colour.values())))}
            colour = {a: f"?{a.base}{ranks[c]}" for a, c in colour.items()}
        return (
            " ".join(sorted(self._text(f, {**names, **colour}) for f in factors)) + f" over {sorted(colour.values())}"
        )

    def _text(self, x: Tensor, names: dict[Axis, str]) -> str:
        used = tuple((a, names[a]) for a in self._scope(x) if a in names)
        return self._recall(self._texts, (x, used), self._short)

    def _short(self, given: Written) -> str:
        """The text, or its number where it is long: texts of deep tensors would be as long as those are deep."""
        text = self._written(given)
        return text if len(text) <= LONG else f"@{self._numbers.setdefault(text, len(self._numbers))}"

    def _written(self, given: Written) -> str:
        x, names = given[0], dict(given[1])

        def axes(shape: Axes) -> str:
            return ",".join(names.get(a, a.name) for a in shape)

        match x:
            case _ if x in self._opaque:
                return f"{self._opaque[x]}[{axes(x.axes)}]"
            case tensor.Rename():
                inner = dict(names)
                for a, b in x.pairs:
                    inner[a] = names.get(b, b.name)
                return self._text(x.arg, inner) if len(self._expand(x.arg)) == 1 else str(self._key(x.arg, inner))
            case Kernel():
                parts = [self._key(t, names) for t in (x.p, x.q, x.c)]
                one, two = (str(x.phi), parts[0]), (str(x.psi), parts[1])
                return f"V{sorted((one, two))}{parts[2]}"
            case tensor.Map():
                return f"map({x.fn}; {[self._key(a, names) for a in x.args]})"
            case tensor.LogSumExp():
                return f"lse[{x.over.base}]({self._key(x.arg, {**names, x.over: '#'})})"
            case Shifted() | Unshifted():
                w = x.window
                gone, come = (w.source, w.target) if isinstance(x, Shifted) else (w.target, w.source)
                inside = self._key(x.arg, {**names, gone: "#"})
                return f"{type(x).__name__}[{w.geometry} {axes((come, w.offset))}]({inside})"
            case tensor.Size():
                return f"size[{x.axis.base}]"
            case State() | tensor.Input():
                return f"{x.name}[{axes(x.axes)}]"
        if len(self._expand(x)) == 1 and self._expand(x)[0][1] == (x,):
            return f"{type(x).__name__}({[self._key(t, names) for t in x.operands if isinstance(t, Tensor)]})"
        return str(self._key(x, names))


def _reduced(x: Expectation) -> Tensor:
    """An expectation as kernels, by Stein's lemma alone; x itself where more than two functions are left."""
    variables = tuple(argument(i) for i in range(x.size))
    symbols = dict(zip((symbol(i, j) for i, j in upper_triangle(len(x.grams))), x.grams, strict=True))
    reducer = Reducer(variables)
    for coefficient, parts in split(x.fn, variables):
        reducer.reduce(coefficient, parts)
    terms = []
    for key, (coefficient, _) in reducer.found.items():
        places = [form.index(1) for form, _ in key if sum(map(abs, form)) == 1 and 1 in form]
        if len(places) != len(key) or len(key) > 2:
            return x
        phi, psi = (*(f for _, f in key), sp.Integer(1), sp.Integer(1))[:2]
        i, j = (*places, *places[:1], *places[:1], 0, 0)[:2]
        pair = kernel(phi, psi, *(symbols[symbol(*ij)] for ij in ((i, i), (j, j), (i, j))))
        for monomial in sp.Add.make_args(sp.expand(coefficient)):
            powers = monomial.as_powers_dict()
            grams = [symbols[s] for s, n in powers.items() if s in symbols for _ in range(int(n))]
            number = sp.Mul(*(s**n for s, n in powers.items() if s not in symbols))
            terms.append(tensor.contract((Constant(number), *grams, pair)))
    return tensor.add(terms)


def _unmasked(factors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Without masks that other factors of the same window make good, which are zero where it sees nothing."""
    found = [_window(f) for f in factors]
    seen = {window for window, masks in filter(None, found) if not masks}
    kept: list[Tensor] = []
    for f, w in zip(factors, found):
        if w is None or not w[1]:
            kept.append(f)
        elif w[0] not in seen:
            seen.add(w[0])
            kept.append(f)
    return tuple(kept)


def _window(f: Tensor) -> tuple[tuple[object, ...], bool] | None:
    """A window as where it leads from what, and whether f is but a mask."""
    names = dict(f.pairs) if isinstance(f, tensor.Rename) else {}
    f = f.arg if isinstance(f, tensor.Rename) else f
    if not isinstance(f, Shifted | Unshifted):
        return None
    w, come = f.window, f.window.target if isinstance(f, Shifted) else f.window.source
    place = (type(f), w.geometry, names.get(come, come), names.get(w.offset, w.offset))
    return place, _is_one(f.arg)


def _is_one(x: Tensor) -> bool:
    return isinstance(x, tensor.Broadcast) and x.arg is tensor.ONE
