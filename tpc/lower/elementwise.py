"""Elementwise functions as three-address code: what every array printer emits, one operation per line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sympy as sp
from sympy import Expr

from tpc.errors import InternalError
from tpc.gaussian import primitives as g
from tpc.lower.operations import ARITY, FOLD, Operation, Value
from tpc.lower.plan import volume
from tpc.lower.quotients import Factor, growth, is_quotient, multiplied_out, quotient, root_of_sum
from tpc.program import functions as f
from tpc.program.axes import union

_DIRECT: dict[type, str] = {
    sp.exp: "exp", sp.log: "log", sp.sin: "sin", sp.cos: "cos", sp.tanh: "tanh", sp.erf: "erf", sp.erfc: "erfc",
    sp.Abs: "abs", sp.sign: "sign", sp.acos: "arccos", sp.asin: "arcsin", sp.atan2: "arctan2", sp.sinh: "sinh",
    sp.cosh: "cosh", sp.asinh: "asinh",
    f.relu: "relu", f.step: "step", f.sign: "sign", f.absolute: "abs", f.softplus: "softplus",
    g.rsqrt: "rsqrt", g.arctan2: "arctan2", g.dawson: "dawson", g.erfcx: "erfcx",
}  # fmt: skip


class Builder:
    """Turns expressions into operations; a value computed before is not computed again."""

    def __init__(self, fresh: Callable[[], str]) -> None:
        self.operations: list[Operation] = []
        self._fresh = fresh
        self._known: dict[tuple[str, tuple[Value, ...]], Value] = {}
        self._clip: set[Value] = set()  # values known to lie in [-1, 1]

    def emit(self, op: str, *args: Value) -> Value:
        """The value of op(args), from an earlier operation where there is one."""
        if ARITY[op] != len(args):
            raise InternalError(f"{op} takes {ARITY[op]} arguments, got {len(args)}")
        if all(a.number is not None for a in args):
            return Value("", (), FOLD[op](*(a.number for a in args)))
        if op == "clip1" and args[0] in self._clip:
            return args[0]
        key = (op, args)
        if key not in self._known:
            target = Value(self._fresh(), union(*(a.axes for a in args)))
            self.operations.append(Operation(target, op, args))
            self._known[key] = target
            if op == "clip1":
                self._clip.add(target)
        return self._known[key]

    def expression(self, expr: Expr, values: Mapping[Expr, Value]) -> Value:
        """The value of an expression whose symbols have `values`."""
        if expr in values:
            return values[expr]
        if expr.has(g.gap1, g.angle1):
            values = self._clipped(expr, values)
        if not expr.free_symbols:
            return Value("", (), float(expr))
        if isinstance(expr, sp.Add):
            return self._sum(expr, values)
        if isinstance(expr, sp.Mul):
            return self._product(expr, values)
        if isinstance(expr, sp.Pow):
            return self._power(expr.base, expr.exp, values)
        if isinstance(expr, sp.Max | sp.Min):
            parts = [self.expression(a, values) for a in expr.args]
            op = "maximum" if isinstance(expr, sp.Max) else "minimum"
            return self._fold(op, parts)
        root = self._root(expr.args[0], values) if isinstance(expr, g.rsqrt) else None
        if root is not None:
            return self.emit("inverse", root)
        args = [self.expression(a, values) for a in expr.args]
        if isinstance(expr, g.gap):
            return self.emit("gap", *args)
        if isinstance(expr, g.angle):
            # + 0 turns -0.0 into 0.0: at a zero latent the angle is 0, not π
            height = self.expression(g.gap(*expr.args), values)  # the same for c and -c
            return self.emit("arctan2", height, self.emit("add", args[2], Value("", (), 0.0)))
        if isinstance(expr, g.gap1):
            one = Value("", (), 1.0)
            return self.emit(
                "sqrt", self.emit("multiply", self.emit("subtract", one, args[0]), self.emit("add", one, args[0]))
            )
        if isinstance(expr, g.angle1):
            return self.emit("arccos", args[0])
        if type(expr) in _DIRECT:
            return self.emit(_DIRECT[type(expr)], *args)
        raise InternalError(f"no array operation for {expr.func} in {expr}")

    def _clipped(self, expr: Expr, values: Mapping[Expr, Value]) -> Mapping[Expr, Value]:
        """Correlations leave [-1, 1] by rounding alone: clip them once, before any use."""
        new = dict(values)
        for part in expr.atoms(g.gap1, g.angle1):
            for symbol in part.args[0].free_symbols:
                new[symbol] = self.emit("clip1", values[symbol])
        return new

    def _fold(self, op: str, parts: Sequence[Value]) -> Value:
        """Join small arrays first, so that large ones are touched once."""
        ordered = sorted(parts, key=lambda v: volume(v.axes))
        result = ordered[0]
        for part in ordered[1:]:
            result = self.emit(op, result, part)
        return result

    def _sum(self, expr: sp.Add, values: Mapping[Expr, Value]) -> Value:
        positive = [t for t in expr.args if not t.could_extract_minus_sign()]
        negative = [t for t in expr.args if t.could_extract_minus_sign()]
        if not positive:
            return self.emit("negative", self.expression(-expr, values))
        result = self._fold("add", [self.expression(t, values) for t in positive])
        for t in negative:
            result = self.emit("subtract", result, self.expression(-t, values))
        return result

    def _product(self, expr: sp.Mul, values: Mapping[Expr, Value]) -> Value:
        if is_quotient(expr):
            return self._quotient(multiplied_out(expr), values)
        top: list[Value] = []
        bottom: list[Value] = []
        for factor in expr.args:
            inverted = isinstance(factor, sp.Pow) and factor.exp.is_negative and bool(factor.free_symbols)
            if inverted and not isinstance(factor.base, g.gap | g.gap1):
                bottom.append(self._power(factor.base, -factor.exp, values))
            else:
                top.append(self.expression(factor, values))
        if len(top) > 1 and top[0].number == -1:
            top[1:2] = [self.emit("negative", top[1])]
            top = top[1:]
        numerator = self._fold("multiply", top) if top else Value("", (), 1.0)
        return self.emit("divide", numerator, self._fold("multiply", bottom)) if bottom else numerator

    def _quotient(self, expr: Expr, values: Mapping[Expr, Value]) -> Value:
        if not expr.is_Mul:
            return self.expression(expr, values)
        number, rest = expr.as_independent(*expr.free_symbols, as_Add=False)
        if number.is_negative:
            return self.emit("negative", self.expression(-expr, values))
        factors = [f for part in sp.Mul.make_args(rest) for f in self._factors(part, values)]
        return quotient(float(number), factors, self.emit, lambda x: Value("", (), x))

    def _factors(self, part: Expr, values: Mapping[Expr, Value]) -> list[Factor]:
        """A power as equal factors, or as what divides."""
        base, exponent = part.as_base_exp()
        inverted = bool(exponent.is_negative)
        root = self._root(base, values)
        if root is not None and (2 * exponent).is_Integer:
            return [Factor(root, growth(base) / 2, inverted)] * abs(int(2 * exponent))
        if not exponent.is_Integer:
            return [Factor(self.expression(part, values), growth(part))]
        if isinstance(base, g.gap) and inverted:
            return [Factor(self.emit("inverse", self.expression(base, values)), -1.0)] * -int(exponent)
        return [Factor(self.expression(base, values), growth(base), inverted)] * abs(int(exponent))

    def _root(self, base: Expr, values: Mapping[Expr, Value]) -> Value | None:
        """√base for a sum with the square of a gap, which is not computed."""
        parts = root_of_sum(base)
        return parts and self.emit("root_sum", *(self.expression(e, values) for e in parts))

    def _power(self, base: Expr, exponent: Expr, values: Mapping[Expr, Value]) -> Value:
        if base == sp.E:
            return self.emit("exp", self.expression(exponent, values))
        root = self._root(base, values) if (2 * exponent).is_odd else None
        if root is not None:
            power = self._power_of(root, abs(2 * exponent))
            return self.emit("reciprocal", power) if exponent.is_negative else power
        b = self.expression(base, values)
        if exponent.is_negative and isinstance(base, g.gap | g.gap1):  # 0 at |ρ| = 1, where 1/gap is infinite
            inverse = self.emit("inverse", b)
            return inverse if exponent == -1 else self._power_of(inverse, -exponent)
        if exponent.is_negative:
            return self.emit("reciprocal", self._power(base, -exponent, values))
        return self._power_of(b, exponent)

    def _power_of(self, b: Value, exponent: Expr) -> Value:
        """b to a positive power, by squaring where it is whole."""
        if exponent == sp.Rational(1, 2):
            return self.emit("sqrt", b)
        if exponent.is_Integer:
            n = int(exponent)
            if n == 1:
                return b
            half = b if n in (2, 3) else self._power_of(b, sp.Integer(n // 2))
            squared = self.emit("square", half)
            return squared if n % 2 == 0 else self.emit("multiply", squared, b)
        if (2 * exponent).is_Integer:
            whole = sp.floor(exponent)
            return self.emit("multiply", self._power_of(b, whole), self.emit("sqrt", b))
        return self.emit("power", b, Value("", (), float(exponent)))
