"""What kernels are called: V[relu, relu], V[silu′, silu′], V[φ, φ′] for a long expression φ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import sympy as sp
from sympy import Expr, Symbol

from tpc.errors import UsageError
from tpc.gaussian.kernel import Kernel, kernel
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X
from tpc.program.naming import HIGHEST, LONGEST, function_name, named, primed, same_up_to_number

Pair = tuple[Expr, Expr]


class FunctionNames:
    """Names of functions of X: that of a known one, a short expression itself, else φ (or φ1, φ2, …), with primes."""

    def __init__(self, functions: Iterable[Expr]) -> None:
        self._functions = tuple(dict.fromkeys(functions))

    def __getitem__(self, phi: Expr) -> str:
        return plain(self.shown(phi))

    def shown(self, phi: Expr) -> Expr:
        """The name as a symbol, a multiple of one, or the expression of a function that needs no name."""
        return self._found[phi] if phi in self._found else _known(phi)

    def applied(self, phi: Expr, variable: Symbol) -> Expr:
        """The function at a variable, for printing."""
        shown = self.shown(phi)
        names = {s: sp.Function(s.name)(variable) for s in shown.free_symbols if s != X}
        return shown.xreplace({X: variable, **names})

    @property
    def definitions(self) -> dict[str, Expr]:
        """The functions called φ, by name."""
        return {name: phi for phi, name in self._letters.items()}

    @cached_property
    def _unknown(self) -> tuple[Expr, ...]:
        return tuple(f for f in self._functions if f.has(X) and function_name(f) is None)

    @cached_property
    def _derived(self) -> dict[Expr, tuple[Expr, int, Expr]]:
        """function -> (base, order, number): what is number times a derivative of another one."""
        found: dict[Expr, tuple[Expr, int, Expr]] = {}
        for base in self._unknown:
            slope = base
            for order in range(1, HIGHEST + 1):
                slope = sp.diff(slope, X)
                for f in self._unknown:
                    number = same_up_to_number(f, slope)
                    if f != base and number is not None and _root(base, found) != f:
                        found.setdefault(f, (base, order, number))
        return found

    @cached_property
    def _letters(self) -> dict[Expr, str]:
        """Functions without a name that are long, or whose derivatives are."""
        roots = {f: _root(f, self._derived) for f in self._unknown}
        long = dict.fromkeys(roots[f] for f in self._unknown if len(plain(named(f))) > LONGEST)
        return {f: "φ" if len(long) == 1 else f"φ{k}" for k, f in enumerate(long, 1)}

    @cached_property
    def _found(self) -> dict[Expr, Expr]:
        found = {f: _known(f) for f in self._functions}
        found |= {f: Symbol(letter) for f, letter in self._letters.items()}
        for f, (base, order, number) in self._derived.items():
            while base in self._derived:
                base, more, factor = self._derived[base]
                order, number = order + more, number * factor
            if base in self._letters:
                found[f] = number * Symbol(primed(self._letters[base], order))
        return found


def _root(f: Expr, derived: Mapping[Expr, tuple[Expr, int, Expr]]) -> Expr:
    while f in derived:
        f = derived[f][0]
    return f


def _known(phi: Expr) -> Expr:
    name = function_name(phi)
    return named(phi) if name is None else Symbol(name)


def plain(expr: Expr) -> str:
    """A name, or an expression in x that `parse_nonlinearity` reads."""
    return str(expr).replace("DiracDelta(", "δ(").replace("absolute(", "abs(")


class KernelNames(FunctionNames):
    """The names of the kernels of a limit."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)
        super().__init__(f for pair in self.pairs for f in pair)

    def kernel(self, phi: Expr, psi: Expr) -> str:
        """V[φ, ψ]"""
        return f"V[{self[phi]}, {self[psi]}]"


class Kernels(Mapping[str, Kernel]):
    """The kernels of a limit by name. Any text for φ and ψ that means the same is taken: V[relu(x), relu(x)], too."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        names = KernelNames(pairs)
        self._pairs = {names.kernel(phi, psi): (phi, psi) for phi, psi in names.pairs}

    def __getitem__(self, name: str) -> Kernel:
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return kernel(*found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"<{len(self)} kernels: {', '.join(self)}>"

    def _find(self, name: str) -> Pair | None:
        """The pair of a name; of functions that are multiples of a pair's, those that the name says."""
        if name in self._pairs:
            return self._pairs[name]
        wanted = _parsed(name)
        for phi, psi in self._pairs.values() if wanted is not None else ():
            assert wanted is not None
            numbers = same_up_to_number(wanted[0], phi), same_up_to_number(wanted[1], psi)
            if None not in numbers:
                return (phi, psi) if numbers == (1, 1) else wanted
        return None


def _parsed(name: str) -> Pair | None:
    text = name.strip()
    if not (text.startswith("V[") and text.endswith("]")):
        return None
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 1:
            try:
                return parse_nonlinearity(text[2:i]), parse_nonlinearity(text[i + 1 : -1])
            except UsageError:
                return None
    return None
