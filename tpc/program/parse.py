"""Read a listing: the identical nodes that `tpc.program.lines` wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sympy as sp

from tpc.errors import ProgramError, SourceLine, UsageError
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axes, Axis, Space
from tpc.program.expression import parse_expression
from tpc.program.functions import argument
from tpc.program.lines import JOINS, type_of
from tpc.program.node import Node
from tpc.program.tensor import Tensor
from tpc.program.window import Window

Listed = tuple[str, tuple[tuple[str, Node], ...], bool]  # name, outputs, whether samples may depend on each other

_LINE = re.compile(r"(?P<name>\S+) : (?P<type>[^=]*?) = (?P<op>\w+)(?:\[(?P<axes>[^\]]*)\])?(?:\((?P<args>.*)\))?$")
_VECTOR = re.compile(r"[GX] (?P<space>\S+?)\[(?P<axes>[^\]]*)\]$")
_MATRIX = re.compile(r"matrix (?P<out>\S+) <- (?P<inn>[^\s\[]+)(?:\[(?P<axes>[^\]]*)\])?$")
_WINDOW = re.compile(
    r"(?P<source>[\w']+)->(?P<target>[\w']+), (?P<offset>[\w']+)(?:, stride (?P<stride>\d+))?"
    r"(?:, dilation (?P<dilation>\d+))?(?:, pad (?P<pad>-?\d+))?(?P<circular>, circular)?$"
)
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


@dataclass(frozen=True)
class Right:
    """What follows the operation of a line, [brackets](body), and the type column before it."""

    brackets: str
    body: str
    kind: str

    @property
    def is_scalar(self) -> bool:
        return self.kind.startswith("scalar")

    @property
    def is_matrix(self) -> bool:
        return self.kind.startswith("matrix")


def read(text: str, file: str) -> Listed:
    """What a listing describes; raises ProgramError naming the line that cannot be read."""
    return Parser(text, file).parse()


class Parser:
    """Reads lines; `OPERATIONS` says how each is read."""

    def __init__(self, text: str, file: str) -> None:
        self.lines = text.splitlines()
        self.file = file
        self.line = 0
        self.axes: dict[str, Axis] = {}
        self.nodes: dict[str, Node] = {}

    def fail(self, message: str) -> ProgramError:
        text = self.lines[self.line - 1] if 0 < self.line <= len(self.lines) else ""
        return ProgramError(message, SourceLine(self.file, self.line, text))

    def parse(self) -> Listed:
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
        return name, tuple(outputs), joins

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

    def window(self, text: str) -> Window:
        match = _WINDOW.match(text)
        if match is None:
            raise self.fail(
                "expected [source->target, offsets, stride k, dilation k, pad k, circular], the numbers if need be"
            )
        source, target, offset = (self.axis(match[part]) for part in ("source", "target", "offset"))
        if missing := [str(a) for a in (source, target, offset) if a.size is None]:
            raise self.fail(f"the axes of a window have known lengths, {missing[0]} has none")
        stride, dilation, pad = int(match["stride"] or 1), int(match["dilation"] or 1), int(match["pad"] or 0)
        return Window(source, target, offset, stride, dilation, pad, match["circular"] is not None)

    def operation(self, match: re.Match[str]) -> Node:
        op, over, body, kind = match["op"], match["axes"], match["args"] or "", match["type"].strip()
        if op in ("data", "weight"):
            return self.leaf(match["name"], kind, op, body)
        if op not in OPERATIONS:
            raise self.fail(f"unknown operation {op!r}; expected one of {', '.join(sorted(OPERATIONS))}, data, weight")
        if not body.strip() and op != "size":
            raise self.fail(f"{op} expects arguments")
        return OPERATIONS[op](self, Right(over or "", body, kind))

    def two(self, body: str) -> tuple[str, str]:
        parts = _split(body)
        if len(parts) != 2:
            raise self.fail(f"expected 2 arguments, got {len(parts)}")
        return parts[0], parts[1]

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
        matrix = _MATRIX.match(kind)
        if matrix is None:
            raise self.fail("expected the type scalar[…], G space[…], X space[…] or matrix out <- in")
        left, right = self.space(matrix["out"]), self.space(matrix["inn"])
        return ir.MatrixWeight(name, left, right, std, self.axis_list(matrix["axes"]))

    def space(self, name: str) -> Space:
        return Space(self.name("space", name))


def _matmul(p: Parser, r: Right) -> Node:
    w, x = p.two(r.body)
    return ir.MatMul(p.matrix(w), p.vector(x))


def _outer(p: Parser, r: Right) -> Node:
    y, x = p.two(r.body)
    return ir.Outer(p.vector(y), p.vector(x), p.axis_list(r.brackets))


def _add(p: Parser, r: Right) -> Node:
    if r.is_matrix:
        return ir.MatrixSum(tuple(map(p.matrix, _split(r.body))))
    return tensor.Add(p.tensors(r.body))


def _rename(p: Parser, r: Right) -> Node:
    pairs = p.pairs(r.brackets)
    return tensor.Rename(p.tensor(r.body), pairs) if r.is_scalar else ir.RenameVector(p.vector(r.body), pairs)


def _stop_gradient(p: Parser, r: Right) -> Node:
    return tensor.StopGradient(p.tensor(r.body)) if r.is_scalar else ir.StopGradientVector(p.vector(r.body))


def _shift(p: Parser, r: Right) -> Node:
    window = p.window(r.brackets)
    if r.is_scalar:
        return shift.Shifted(p.tensor(r.body), window)
    return shift.ShiftedVector(p.vector(r.body), window)


def _unshift(p: Parser, r: Right) -> Node:
    window = p.window(r.brackets)
    if r.is_scalar:
        return shift.Unshifted(p.tensor(r.body), window)
    return shift.UnshiftedVector(p.vector(r.body), window)


OPERATIONS: dict[str, Callable[[Parser, Right], Node]] = {
    "size": lambda p, r: tensor.Size(p.axis(r.brackets)),
    "map": lambda p, r: p.applied(r.body, tensor.Map),
    "add": _add,
    "mul": lambda p, r: tensor.Contract(p.tensors(r.body), ()),
    "sum": lambda p, r: tensor.Contract(p.tensors(r.body), p.axis_list(r.brackets)),
    "logsumexp": lambda p, r: tensor.LogSumExp(p.tensor(r.body), p.axis(r.brackets)),
    "broadcast": lambda p, r: tensor.Broadcast(p.tensor(r.body), p.axis_list(r.brackets)),
    "rename": _rename,
    "moment": lambda p, r: p.applied(r.body, ir.Moment),
    "nonlin": lambda p, r: p.applied(r.body, ir.Nonlin),
    "lincomb": lambda p, r: ir.LinComb(tuple(p.terms(r.body))),
    "matmul": _matmul,
    "transpose": lambda p, r: ir.Transpose(p.matrix(r.body)),
    "project": lambda p, r: ir.Project(p.vector(r.body)),
    "learned": lambda p, r: ir.Learned(p.vector(r.body)),
    "outer": _outer,
    "stop_gradient": _stop_gradient,
    "shift": _shift,
    "unshift": _unshift,
}


def _split(body: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, ch in enumerate(body):
        depth += (ch in "([") - (ch in ")]")
        if ch == "," and depth == 0:
            parts.append(body[start:i].strip())
            start = i + 1
    return [*parts, body[start:].strip()] if body.strip() else []
