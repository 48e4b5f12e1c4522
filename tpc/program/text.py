"""Print a program as a listing, and parse a listing back to the identical program.

One node per line, `name : type = operation`; weights and data first, outputs last. Numbers are written in place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import sympy as sp

from tpc.errors import ProgramError, SourceLine, UsageError
from tpc.program import ir, naming, tensor
from tpc.program.axes import Axes, Axis, Space
from tpc.program.expression import parse_expression
from tpc.program.functions import argument
from tpc.program.node import Node
from tpc.program.program import Program
from tpc.program.tensor import Tensor


def listing(program: Program) -> str:
    """The program as text; `parse` gives the same object back."""
    names = Names(program.nodes)
    lines = [f"program {program.name}" + (f" {JOINS}" if program.joins_samples else "")]
    lines += [f"axis {a.name}" + ("" if a.size is None else f" = {a.size}") for a in program.axes if a.base == a.name]
    lines += [f"{names[n]} : {type_of(n)} = {operation(n, names)}" for n in program.nodes if not _inline(n)]
    lines += [f"output {name} = {names[value]}" for name, value in program.outputs]
    return "\n".join(lines) + "\n"


def pickled(program: Program) -> tuple[str, tuple[SourceLine | None, ...]]:
    """What `unpickled` needs: the listing, and the user's line of every node."""
    return listing(program), tuple(program.sources.get(n) for n in program.nodes)


def unpickled(text: str, lines: Sequence[SourceLine | None]) -> Program:
    """The program of a pickle."""
    made = parse(text)
    return replace(made, sources={n: line for n, line in zip(made.nodes, lines) if line is not None})


class Names:
    """Names for the nodes of a listing: weights and data keep theirs, the rest count up by kind."""

    def __init__(self, nodes: Sequence[Node], prefix: Callable[[Node], str] | None = None) -> None:
        prefix = prefix or _prefix
        self._names: dict[Node, str] = {}
        counts: dict[str, int] = {}
        taken = {getattr(n, "name", "") for n in nodes}
        for n in nodes:
            if _inline(n):
                self._names[n] = str(n.value) if isinstance(n, tensor.Constant) else ""
                continue
            name = getattr(n, "name", "")
            while not name or (name in taken and not hasattr(n, "name")):
                letter = prefix(n)
                counts[letter] = counts.get(letter, 0) + 1
                name = f"{letter}{counts[letter]}"
            self._names[n] = name

    def __getitem__(self, n: Node) -> str:
        return self._names[n]

    @staticmethod
    def is_line(n: Node) -> bool:
        """Whether a node has a line of its own; numbers are written in place."""
        return not _inline(n)


def _prefix(n: Node) -> str:
    if isinstance(n, ir.Vector):
        return "h" if n.kind == "G" else "x"
    return "w" if isinstance(n, ir.Matrix) else "s"


def _inline(n: Node) -> bool:
    return isinstance(n, tensor.Constant)


def type_of(n: Node) -> str:
    """The type column of a listing: kind, space and finite axes."""
    if isinstance(n, ir.Vector):
        return f"{n.kind} {n.space}[{_axes(n.axes)}]"
    if isinstance(n, ir.Matrix):
        return f"matrix {n.out} <- {n.inn}"
    assert isinstance(n, Tensor)
    return f"scalar[{_axes(n.axes)}]"


def _axes(axes: Axes) -> str:
    return ", ".join(map(str, axes))


def _pairs(pairs: tuple[tuple[Axis, Axis], ...]) -> str:
    return ", ".join(f"{a}->{b}" for a, b in pairs)


def operation(n: Node, names: Names) -> str:
    """The right-hand side of a line."""

    def args(nodes: tuple[Node, ...]) -> str:
        return ", ".join(names[x] for x in nodes)

    match n:
        case tensor.Input():
            return "data"
        case tensor.Weight():
            return f"weight(std {n.std})"
        case ir.VectorWeight():
            return f"weight({n.role}, std {n.std})"
        case ir.MatrixWeight():
            return f"weight(std {n.std})"
        case tensor.Size():
            return f"size[{n.axis}]()"
        case tensor.Map():
            return f"map({shown(n.fn)}; {args(n.args)})"
        case tensor.Add():
            return f"add({args(n.terms)})"
        case tensor.Contract():
            return f"{'sum[' + _axes(n.over) + ']' if n.over else 'mul'}({args(n.factors)})"
        case tensor.LogSumExp():
            return f"logsumexp[{n.over}]({names[n.arg]})"
        case tensor.Rename() | ir.RenameVector():
            return f"rename[{_pairs(n.pairs)}]({names[n.arg]})"
        case tensor.Broadcast():
            return f"broadcast[{_axes(n.along)}]({names[n.arg]})"
        case ir.Moment():
            return f"moment({shown(n.fn)}; {args(n.xs)}" + (f"; {args(n.thetas)})" if n.thetas else ")")
        case ir.Nonlin():
            return f"nonlin({shown(n.fn)}; {args(n.xs)}" + (f"; {args(n.thetas)})" if n.thetas else ")")
        case ir.LinComb():
            terms = [(f"sum[{_axes(over)}] " if over else "") + f"{names[c]} * {names[x]}" for c, x, over in n.terms]
            return f"lincomb({', '.join(terms)})"
        case ir.MatMul():
            return f"matmul({names[n.matrix]}, {names[n.x]})"
        case ir.Transpose():
            return f"transpose({names[n.arg]})"
        case ir.Project():
            return f"project({names[n.arg]})"
        case tensor.StopGradient() | ir.StopGradientVector():
            return f"stop_gradient({names[n.arg]})"
        case ir.Outer():
            return f"outer[{_axes(n.over)}]({names[n.y]}, {names[n.x]})"
        case ir.MatrixSum():
            return f"add({args(n.terms)})"
    raise AssertionError(f"no listing for {type(n).__name__}")


@lru_cache(maxsize=4096)
def shown(fn: sp.Expr) -> str:
    """A function of u0, u1, …, with the names of what has names where the text is read back as the same expression."""
    text = naming.text(fn)
    symbols = {str(s): s for s in fn.free_symbols}
    return text if text == str(fn) or parse_expression(text, symbols) == fn else str(fn)


JOINS = "joins samples"  # after the name of a network that declares it
_LINE = re.compile(r"(?P<name>\S+) : (?P<type>[^=]*?) = (?P<op>\w+)(?:\[(?P<axes>[^\]]*)\])?(?:\((?P<args>.*)\))?$")
_VECTOR = re.compile(r"[GX] (?P<space>\S+?)\[(?P<axes>[^\]]*)\]$")
_TERM = re.compile(r"(?:sum\[(?P<over>[^\]]*)\] )?(?P<c>\S+) \* (?P<x>\S+)$")

# What tracing and the passes call things. Names become part of generated code, so a listing may hold no others.
_NAMES = {
    "program": r"[\w.<>-]+",  # the name of a function; one may be <lambda>
    "axis": r"\w+",
    "space": r"\w+",
    "node": r"\w+(\.\w+)*",
    "output": r"(\w+:)?\w+(\.\w+)*",
}
_ROLES = ("input", "readout")


def parse(text: str, file: str = "<listing>") -> Program:
    """The program a listing describes; raises ProgramError naming the line that cannot be read."""
    return _Parser(text, file).parse()


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.lines = text.splitlines()
        self.file = file
        self.line = 0
        self.axes: dict[str, Axis] = {}
        self.nodes: dict[str, Node] = {}

    def fail(self, message: str) -> ProgramError:
        text = self.lines[self.line - 1] if 0 < self.line <= len(self.lines) else ""
        return ProgramError(message, SourceLine(self.file, self.line, text))

    def parse(self) -> Program:
        name, outputs, joins = "", list[tuple[str, Node]](), False
        for number, raw in enumerate(self.lines, 1):
            self.line = number
            words = raw.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "program" and (len(words) == 2 or words[2:] == JOINS.split()):
                name, joins = self.name("program", words[1]), len(words) > 2
            elif words[0] == "axis" and len(words) in (2, 4):
                size = int(words[3]) if len(words) == 4 and words[3].isdecimal() else None
                self.axes[words[1]] = Axis(self.name("axis", words[1]), size)
            elif words[0] == "output" and len(words) == 4:
                outputs.append((self.name("output", words[1]), self.node(words[3])))
            elif match := _LINE.match(raw.strip()):
                made = self.name("node", match["name"])
                self.nodes[made] = self._checked(match)
            else:
                raise self.fail("expected `name : type = operation(…)`")
        if not name or not outputs:
            self.line = len(self.lines)
            raise self.fail("expected a listing that starts with `program NAME` and ends with `output NAME = …`")
        return Program(name, tuple(outputs), joins_samples=joins)

    def _checked(self, match: re.Match[str]) -> Node:
        made = self.operation(match)
        if type_of(made) != match["type"].strip():
            raise self.fail(f"expected the type {type_of(made)}, got {match['type'].strip()}")
        return made

    def name(self, kind: str, name: str) -> str:
        if not re.fullmatch(_NAMES[kind], name):
            raise self.fail(f"expected letters, digits and _ in the name of the {kind}, got {name!r}")
        return name

    def node(self, name: str) -> Node:
        if name in self.nodes:
            return self.nodes[name]
        try:
            return tensor.Constant(self.number(name))
        except ProgramError:
            raise self.fail(f"{name!r} is used before it is defined") from None

    def number(self, text: str) -> sp.Expr:
        value = self.expression(text)
        if value.free_symbols:
            raise self.fail(f"expected a number, got {text!r}")
        return value

    def expression(self, text: str, xs: int = 0, thetas: int = 0) -> sp.Expr:
        symbols = {f"u{i}": argument(i) for i in range(xs)} | {f"t{i}": ir.theta(i) for i in range(thetas)}
        try:
            return parse_expression(text, symbols)
        except UsageError as e:
            raise self.fail(str(e)) from None

    def axis(self, name: str) -> Axis:
        base = self.axes.get(name.rstrip("'"))
        if base is None:
            raise self.fail(f"the axis {name!r} is not declared")
        return Axis(name, base.size, base.role)

    def axis_list(self, text: str | None) -> Axes:
        return tuple(self.axis(a.strip()) for a in (text or "").split(",") if a.strip())

    def tensors(self, text: str) -> tuple[Tensor, ...]:
        return tuple(self.tensor(a) for a in _split(text))

    def tensor(self, name: str) -> Tensor:
        found = self.node(name)
        if not isinstance(found, Tensor):
            raise self.fail(f"expected a scalar, {name!r} is a {type_of(found)}")
        return found

    def vector(self, name: str) -> ir.Vector:
        found = self.node(name)
        if not isinstance(found, ir.Vector):
            raise self.fail(f"expected a vector, {name!r} is a {type_of(found)}")
        return found

    def matrix(self, name: str) -> ir.Matrix:
        found = self.node(name)
        if not isinstance(found, ir.Matrix):
            raise self.fail(f"expected a matrix, {name!r} is a {type_of(found)}")
        return found

    def pairs(self, text: str | None) -> tuple[tuple[Axis, Axis], ...]:
        halves = [p.split("->") for p in (text or "").split(",")]
        if any(len(h) != 2 for h in halves):
            raise self.fail("expected rename[old->new, …]")
        return tuple((self.axis(a.strip()), self.axis(b.strip())) for a, b in halves)

    def operation(self, match: re.Match[str]) -> Node:
        op, over, body, kind = match["op"], match["axes"], match["args"] or "", match["type"].strip()
        if op in ("data", "weight"):
            return self.leaf(match["name"], kind, op, body)
        rules: dict[str, Callable[[], Node]] = {
            "size": lambda: tensor.Size(self.axis(over or "")),
            "map": lambda: self.applied(body, tensor.Map),
            "add": lambda: (
                ir.MatrixSum(tuple(map(self.matrix, _split(body))))
                if kind.startswith("matrix")
                else tensor.Add(self.tensors(body))
            ),
            "mul": lambda: tensor.Contract(self.tensors(body), ()),
            "sum": lambda: tensor.Contract(self.tensors(body), self.axis_list(over)),
            "logsumexp": lambda: tensor.LogSumExp(self.tensor(body), self.axis(over or "")),
            "broadcast": lambda: tensor.Broadcast(self.tensor(body), self.axis_list(over)),
            "rename": lambda: (
                tensor.Rename(self.tensor(body), self.pairs(over))
                if kind.startswith("scalar")
                else ir.RenameVector(self.vector(body), self.pairs(over))
            ),
            "moment": lambda: self.applied(body, ir.Moment),
            "nonlin": lambda: self.applied(body, ir.Nonlin),
            "lincomb": lambda: ir.LinComb(tuple(self.terms(body))),
            "matmul": lambda: self.matmul(body),
            "transpose": lambda: ir.Transpose(self.matrix(body)),
            "project": lambda: ir.Project(self.vector(body)),
            "outer": lambda: self.outer(body, over),
            "stop_gradient": lambda: (
                tensor.StopGradient(self.tensor(body))
                if kind.startswith("scalar")
                else ir.StopGradientVector(self.vector(body))
            ),
        }
        if op not in rules:
            raise self.fail(f"unknown operation {op!r}; expected one of {', '.join(sorted(rules))}, data, weight")
        if not body.strip() and op != "size":
            raise self.fail(f"{op} expects arguments")
        return rules[op]()

    def two(self, body: str) -> tuple[str, str]:
        parts = _split(body)
        if len(parts) != 2:
            raise self.fail(f"expected 2 arguments, got {len(parts)}")
        return parts[0], parts[1]

    def matmul(self, body: str) -> ir.MatMul:
        w, x = self.two(body)
        return ir.MatMul(self.matrix(w), self.vector(x))

    def outer(self, body: str, over: str | None) -> ir.Outer:
        y, x = self.two(body)
        return ir.Outer(self.vector(y), self.vector(x), self.axis_list(over))

    def applied(self, body: str, build: Callable[..., Node]) -> Node:
        fn, *groups = [part.strip() for part in body.split(";")]
        if not groups or not groups[0]:
            raise self.fail("expected `expression; arguments`")
        if build is tensor.Map:
            args = self.tensors(groups[0])
            return build(self.expression(fn, len(args)), args)
        xs = tuple(map(self.vector, _split(groups[0])))
        thetas = self.tensors(groups[1]) if len(groups) > 1 else ()
        return build(self.expression(fn, len(xs), len(thetas)), xs, thetas)

    def terms(self, body: str) -> Iterator[tuple[Tensor, ir.Vector, Axes]]:
        for part in _split(body):
            match = _TERM.match(part)
            if match is None:
                raise self.fail(f"expected `[sum[axes] ]coefficient * vector`, got {part!r}")
            yield self.tensor(match["c"]), self.vector(match["x"]), self.axis_list(match["over"])

    def leaf(self, name: str, kind: str, op: str, body: str) -> Node:
        scalar = re.match(r"scalar\[(?P<axes>[^\]]*)\]$", kind)
        if op == "data":
            if scalar is None:
                raise self.fail("data is a scalar[…]")
            return tensor.Input(name, self.axis_list(scalar["axes"]))
        role, _, std_text = body.rpartition("std ")
        std = self.number(std_text)
        if scalar is not None:
            return tensor.Weight(name, self.axis_list(scalar["axes"]), std)
        if vector := _VECTOR.match(kind):
            role = role.strip(" ,")
            if role not in _ROLES:
                raise self.fail(f"expected the role {' or '.join(_ROLES)}, got {role!r}")
            return ir.VectorWeight(name, self.space(vector["space"]), self.axis_list(vector["axes"]), role, std)
        left, arrow, right = kind.removeprefix("matrix ").partition(" <- ")
        if not arrow:
            raise self.fail("expected the type scalar[…], G space[…], X space[…] or matrix out <- in")
        return ir.MatrixWeight(name, self.space(left), self.space(right), std)

    def space(self, name: str) -> Space:
        return Space(self.name("space", name))


def _split(body: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, ch in enumerate(body):
        depth += (ch in "([") - (ch in ")]")
        if ch == "," and depth == 0:
            parts.append(body[start:i].strip())
            start = i + 1
    return [*parts, body[start:].strip()] if body.strip() else []
