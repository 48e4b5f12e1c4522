"""One function of a module while it is written: names, how arrays meet, and lines that know what they give and use.

How a tensor, a sum, a loop or the whole is written is told by a `Dialect`, a table of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tpc.errors import InternalError
from tpc.limits.nodes import State
from tpc.lower.concretise import Tabulated
from tpc.lower.elementwise import Builder
from tpc.lower.instructions import Function, Loop
from tpc.lower.layout import layout
from tpc.lower.operations import Value
from tpc.lower.places import Column, MomentState, MomentWeight, Multiplier, TailState
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, without
from tpc.program.functions import argument
from tpc.program.node import Node, topological
from tpc.program.tensor import Constant, Contract, Tensor

Tables = dict[tuple[str, str], str]  # the names of tabulated kernels in a module


@dataclass(frozen=True)
class Line:
    """A line of a function, with the names that it gives and uses; `block` is the inner function it is of."""

    text: str
    gives: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()
    block: str = ""

    def commented(self, axes: Axes) -> Line:
        """With the axes of the array that it computes behind it."""
        return replace(self, text=f"{self.text}  # [{', '.join(map(str, layout(axes)))}]") if axes else self

    def indented(self, block: str = "") -> Line:
        """One level deeper, as a part of an inner function if one is named."""
        return replace(self, text=f"    {self.text}", block=block or self.block)


@dataclass(frozen=True)
class Dialect:
    """How functions are written. Rules take the writer of the function first."""

    statement: Callable[[Writer, Tensor], Iterator[Line]]  # a tensor outside a loop
    total: Callable[[Writer, Contract], str]  # a sum of a product of at most two tensors
    matmul: Callable[[Contract, str, str], str]  # within it, of arrays with at most two axes
    matvecs: Callable[[Contract, str, str], str]  # of matrices and vectors, for every index of an axis
    vecmats: Callable[[Contract, str, str], str]
    loop: Callable[[Writer, Loop, int], Iterator[Line]]  # with its place among all, from 1
    steps: Callable[[Writer], Iterator[Line]]  # all of it, in order
    takes_state: bool = True


class Writer:
    """Writes a function: `lines` are those after its first, `text` is all of it."""

    def __init__(self, function: Function, dialect: Dialect, tables: Tables | None = None) -> None:
        self.function = function
        self.dialect = dialect
        self.tables: Tables = {} if tables is None else tables
        self.names: dict[Tensor, str] = {}  # of every tensor that is written, arguments and states included
        self._taken: dict[str, int] = {}
        self._used: set[str] = set()
        self.lines: tuple[Line, ...] = ()
        self.header = ""
        self._write()

    def _write(self) -> None:
        arguments = [self.target(i) for i in self.function.inputs]
        self.header = f"def {self.function.name}({', '.join(['state'] * self.dialect.takes_state + arguments)}):"
        states = {state: self.target(state) for state in self.states()}
        body = list(self.dialect.steps(self))
        results = [f'"{name}": {self.aligned(self.value(t), t.axes)}' for name, t in self.function.outputs]
        body.append(self.line(f"return {{{', '.join(results)}}}"))
        used = {name for line in body for name in line.uses}
        reads = [Line(f"{name} = {found(s)}", (name,)) for s, name in states.items() if name in used or is_part(s)]
        self.lines = tuple(reads + body)

    @property
    def text(self) -> str:
        """The source of the function."""
        return "\n".join([self.header, *(f"    {line.text}" for line in self.lines)])

    def line(self, text: str, *gives: str, uses: Iterable[str] | None = None) -> Line:
        """A line that uses the names asked for since the last one, unless it is told which."""
        return Line(text, gives, self.used() if uses is None else frozenset(uses))

    def used(self) -> frozenset[str]:
        """The names asked for since the last line."""
        found = frozenset(self._used)
        self._used.clear()
        return found

    # --- names -------------------------------------------------------------------------------------------------------

    def fresh(self, wish: str) -> str:
        """A name that is not taken yet."""
        base = wish.replace("'", "_").replace(".", "_")
        name, k = base, self._taken.get(base, 1)
        while name in self._taken:
            k += 1
            name = f"{base}{k}"
        self._taken[base] = k  # names before it are taken, too
        self._taken.setdefault(name, 1)
        return name

    def temporary(self) -> str:
        """The name of a step of elementwise work."""
        return self.fresh("t")

    def target(self, x: Tensor) -> str:
        """The name of a tensor, where it is given."""
        if x not in self.names:
            prefix = "g" if any(a.role == "rank" for a in x.axes) else "s"
            if any(a.role == "atom" for a in x.axes):
                prefix = "k"
            self.names[x] = self.fresh(getattr(x, "name", prefix))
        return self.names[x]

    def array(self, x: Tensor) -> str:
        """The name of the array of a tensor, where it is used; its dimensions are `layout(x.axes)`."""
        name = self.target(x)
        self._used.add(name)
        return name

    def named(self, n: Node) -> str:
        """The name a node has by now, if any."""
        return self.names.get(n, "") if isinstance(n, Tensor) else ""

    def value(self, x: Tensor) -> Value:
        """A tensor as an operand."""
        return Value("", (), float(x.value)) if isinstance(x, Constant) else Value(self.target(x), x.axes)

    def keep(self, x: Tensor, result: Value) -> None:
        """Let a tensor go by what its last operation gave."""
        self.names[x] = result.name if result.number is None else number(result.number)

    def table(self, x: Tabulated) -> str:
        """The module's name for a tabulated kernel."""
        return self.tables.setdefault((str(x.phi), str(x.psi)), f"KERNEL{len(self.tables) + 1}")

    # --- arrays ------------------------------------------------------------------------------------------------------

    def aligned(self, v: Value, axes: Axes, full: bool = False) -> str:
        """The value, indexed so that it broadcasts against arrays with `axes`; `full` gives it all of them."""
        if v.number is not None:
            return number(v.number)
        self._used.add(v.name)
        return indexed(v.name, v.axes, axes, full)

    def last(self, x: Tensor, axis: Axis) -> str:
        """The array of a tensor with `axis` as its last one."""
        have = layout(x.axes)
        return permuted(self.array(x), have, (*without(have, (axis,)), axis))

    def along(self, x: Tensor, shared: Axes, axis: Axis) -> str:
        """The array of a tensor with `axis` as its last one, to broadcast against `shared` before it."""
        array, have = self.last(x, axis), [a in x.axes for a in shared]
        return array if all(have) else f"{array}[{', '.join(':' if a else 'None' for a in have)}]"

    def size(self, axis: Axis) -> str:
        """The length of an axis, read off an argument that has it."""
        for known in (*self.function.inputs, *self.states()):
            for position, a in enumerate(layout(known.axes)):
                if a.base == axis.base:
                    return f"{self.array(known)}.shape[{position}]"
        if axis.size is not None:
            return str(axis.size)
        raise InternalError(f"nothing tells the length of {axis}")

    def states(self) -> list[State]:
        """What the function reads of the state, but for columns of stored atoms."""
        roots: list[Tensor] = [t for _, t in self.function.outputs]
        for s in self.function.steps:
            roots += s.sums if isinstance(s, Loop) else (s,)
        given = set(self.function.inputs)
        return [n for n in topological(roots) if isinstance(n, State) and n not in given and not isinstance(n, Column)]

    def operations(self, x: Tensor, builder: Builder) -> Value:
        """Elementwise work on one tensor as operations."""
        if isinstance(x, tensor.Map):
            return builder.expression(x.fn, {argument(i): self.value(a) for i, a in enumerate(x.args)})
        parts = x.factors if isinstance(x, Contract) else x.terms if isinstance(x, tensor.Add) else ()
        result = self.value(parts[0])
        for part in parts[1:]:
            result = builder.emit("multiply" if isinstance(x, Contract) else "add", result, self.value(part))
        return result


def is_elementwise(n: Tensor) -> bool:
    """Whether a tensor is computed entry by entry."""
    return isinstance(n, tensor.Map | tensor.Add) or (isinstance(n, Contract) and not n.over)


def number(x: float) -> str:
    """A number as Python writes it."""
    return repr(int(x)) if x == int(x) and abs(x) < 1e15 else repr(x)


def indexed(array: str, axes: Axes, wanted: Axes, full: bool = False) -> str:
    """An array with `axes` so that it broadcasts against those `wanted`."""
    target, have = layout(wanted), layout(axes)
    if have == target or (not full and (not have or have == target[len(target) - len(have) :])):
        return array
    return f"{array}[{', '.join(':' if a in have else 'None' for a in target)}]"


def permuted(array: str, have: Axes, want: Axes) -> str:
    """An array with its axes in another order."""
    if have == want:
        return array
    order = tuple(have.index(a) for a in want)
    return f"{array}.T" if order == (1, 0) else f"{array}.transpose{order}"


def found(state: State) -> str:
    """Where the argument `state` of a function holds an array or a number."""
    match state:
        case Multiplier():
            return f'state["{state.store}"].scale'
        case MomentState():
            return f'state["{state.store}.folded"].moment({state.order})'
        case MomentWeight():
            return f'state["{state.store}.folded"].weight({state.order})'
        case TailState():
            return f'state["{state.store}.folded"].{state.part}'
    return f'state["{state.name}"]'


def is_part(state: State) -> bool:
    """Whether a state is a number or a tensor of a store."""
    return isinstance(state, Multiplier | MomentState | MomentWeight | TailState)
