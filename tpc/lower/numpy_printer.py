"""Print scheduled functions as readable NumPy source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from string import ascii_letters

from tpc.errors import InternalError
from tpc.limits.nodes import State
from tpc.limits.power import Half, Opened, Power, Product, Slope, order_of
from tpc.lower.concretise import Tabulated
from tpc.lower.elementwise import Builder, Operation, Value
from tpc.lower.schedule import Function, Loop
from tpc.program import tensor
from tpc.program.axes import SAMPLE, SUPPORT, Axes, Axis, union, without
from tpc.program.functions import argument
from tpc.program.node import Node, topological
from tpc.program.tensor import Constant, Contract, Tensor

_SAMPLES = (SAMPLE.name, SUPPORT.name)  # axes whose lengths are those of a batch
_WORD = re.compile(r"\w+")
_OF_FOLD = re.compile(r"[Mw]\d+$")
_OF_TAIL = {"Z": "points", "T": "tail", "wT": "scale"}
_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_UFUNC = {
    "add": "np.add", "subtract": "np.subtract", "multiply": "np.multiply", "divide": "np.divide", "power": "np.power",
    "negative": "np.negative", "square": "np.square", "sqrt": "np.sqrt", "reciprocal": "np.reciprocal", "exp": "np.exp",
    "log": "np.log", "sin": "np.sin", "cos": "np.cos", "tanh": "np.tanh", "abs": "np.abs", "sign": "np.sign",
    "arccos": "np.arccos", "arcsin": "np.arcsin", "arctan2": "np.arctan2", "maximum": "np.maximum",
    "minimum": "np.minimum",
    "sinh": "np.sinh", "cosh": "np.cosh", "asinh": "np.arcsinh", "log1p": "np.log1p", "expm1": "np.expm1",
    "rsqrt": "rt.rsqrt", "erf": "rt.erf", "erfc": "rt.erfc", "step": "rt.step", "relu": "rt.relu", "clip1": "rt.clip1",
    "softplus": "rt.softplus", "dawson": "rt.dawson", "erfcx": "rt.erfcx", "gap": "rt.gap",
    "inverse": "rt.inverse", "root_sum": "rt.root_sum",
}  # fmt: skip


def layout(axes: Axes) -> Axes:
    """The order of an array's axes: atoms, samples, support, features, points, classes, rank, packed powers of rank.

    Among classes those of role "last" are: the row of an atom may have classes as the batch it comes from has.

    Atoms come first because BLAS computes B gᵀ up to twice as fast as g Bᵀ when the batch is small.
    """

    def place(axis: Axis) -> tuple[int, str]:
        if axis.role == "rank":
            return 7, axis.name
        if axis.role == "power":
            return 8, axis.name
        if axis.role == "atom":
            return -1, axis.name
        if axis.role == "point":
            return 4, axis.name
        if axis.size is not None:
            return 5 + (axis.role == "last"), axis.name
        return (_SAMPLES.index(axis.base) if axis.base in _SAMPLES else 3), axis.name

    return tuple(sorted(axes, key=place))


def half_layout(x: Half) -> Axes:
    """The axes of the array that folded tensors make of a latent."""
    return (*without(x.arg.axes, (x.rank,)), *without(x.matrix.axes, (x.slot,)), x.left)


@singledispatch
def expression(x: Tensor, printer: NumpyPrinter) -> str:
    """The array of an instruction that is a function of whole arrays, of the names of those."""
    raise InternalError(f"the NumPy printer has no rule for {type(x).__name__}")


class NumpyPrinter:
    """One function at a time: `text` is its source."""

    def __init__(self, function: Function, tables: dict[tuple[str, str], str] | None = None) -> None:
        self._function = function
        self.tables = {} if tables is None else tables
        self._keepers = self._shared_products()
        self._names: dict[Tensor, str] = {}
        self._taken: dict[str, int] = {}

    @property
    def function_name(self) -> str:
        """What the function is called."""
        return self._function.name

    @property
    def names(self) -> dict[Tensor, str]:
        """The name of every tensor that `text` has printed, arguments and states included."""
        return dict(self._names)

    # --- names -------------------------------------------------------------------------------------------------

    def _fresh(self, wish: str) -> str:
        base = wish.replace("'", "_").replace(".", "_")
        name, k = base, self._taken.get(base, 1)
        while name in self._taken:
            k += 1
            name = f"{base}{k}"
        self._taken[base] = k  # names before it are taken, too
        self._taken.setdefault(name, 1)
        return name

    def _temporary(self) -> str:
        return self._fresh("t")

    def _name(self, x: Tensor) -> str:
        if x not in self._names:
            prefix = "g" if any(a.role == "rank" for a in x.axes) else "s"
            if any(a.role == "atom" for a in x.axes):
                prefix = "k"
            self._names[x] = self._fresh(getattr(x, "name", prefix))
        return self._names[x]

    def array(self, x: Tensor) -> str:
        """The name of the array of a tensor, whose dimensions are `layout(x.axes)`."""
        return self._name(x)

    def _named(self, n: Node) -> str:
        """The name a node has by now, if any."""
        return self._names.get(n, "") if isinstance(n, Tensor) else ""

    def _value(self, x: Tensor) -> Value:
        if isinstance(x, Constant):
            return Value("", (), float(x.value))
        return Value(self._name(x), x.axes)

    # --- arrays ------------------------------------------------------------------------------------------------

    @staticmethod
    def _number(x: float) -> str:
        return repr(int(x)) if x == int(x) and abs(x) < 1e15 else repr(x)

    def table(self, x: Tabulated) -> str:
        """The module's name for a tabulated kernel."""
        return self.tables.setdefault((str(x.phi), str(x.psi)), f"KERNEL{len(self.tables) + 1}")

    def _aligned(self, v: Value, axes: Axes, full: bool = False) -> str:
        """The value, indexed so that it broadcasts against arrays with `axes`; `full` gives it all of them."""
        if v.number is not None:
            return self._number(v.number)
        target = layout(axes)
        have = layout(v.axes)
        if have == target or (not full and (not have or have == target[len(target) - len(have) :])):
            return v.name
        index = ", ".join(":" if a in have else "None" for a in target)
        return f"{v.name}[{index}]"

    def _infix(self, o: Operation, texts: Sequence[str]) -> str:
        if o.op == "reciprocal":  # of a length too, where np.reciprocal would round
            return f"1 / {texts[0]}"
        return f"{texts[0]} {_INFIX[o.op]} {texts[1]}" if o.op in _INFIX else f"{_UFUNC[o.op]}({', '.join(texts)})"

    @staticmethod
    def _ufunc(op: str) -> str:
        return _UFUNC[op]

    # --- statements --------------------------------------------------------------------------------------------

    def _statement(self, x: Tensor) -> Iterator[str]:
        """Lines that compute one tensor outside a loop."""
        name = self._name(x)
        match x:
            case tensor.Size():
                yield f"{name} = {self._size(x.axis)}"
            case Contract() if x.over:
                yield f"{name} = {self._contraction(x)}"
            case tensor.Map() | tensor.Add() | Contract():
                yield from self._inlined(x, name)
            case tensor.LogSumExp():
                axis = layout(x.arg.axes).index(x.over)
                yield f"{name} = rt.logsumexp({self._name(x.arg)}, axis={axis})"
            case tensor.Rename():
                yield f"{name} = {self._permuted(self._name(x.arg), self._renamed(x), layout(x.axes))}"
            case tensor.Broadcast():
                shape = ", ".join(self._length(a, x) for a in layout(x.axes))
                yield f"{name} = np.broadcast_to({self._aligned(self._value(x.arg), x.axes)}, ({shape},))"
            case Tabulated():
                arrays = ", ".join(self._aligned(self._value(t), x.axes, True) for t in (x.p, x.q, x.c))
                yield f"{name} = {self.table(x)}({arrays})"
            case Power():
                yield f"{name} = rt.power({self._last(x.arg, x.rank)}, {order_of(x.slot)})"
            case Half():
                yield f"{name} = {self._permuted(self._half(x, 'half'), half_layout(x), layout(x.axes))}"
            case Product():
                shared = layout(without(x.axes, (x.slot,)))
                args = ", ".join(self._along(g, shared, x.rank) for g in x.args)
                made = f"rt.product(({args}))"
                yield f"{name} = {self._permuted(made, (*shared, x.slot), layout(x.axes))}"
            case Slope() | Opened():
                last = x.rank if isinstance(x, Slope) else x.lower
                shared = layout(union(without(x.dual.axes, (x.slot,)), without(x.arg.axes, (last,))))
                dual = self._aligned(self._value(x.dual), (*shared, x.slot))
                made = f"{type(x).__name__.lower()}({dual}, {self._along(x.arg, shared, last)}, {order_of(x.slot)})"
                yield f"{name} = {self._permuted(f'rt.{made}', (*shared, x.rank), layout(x.axes))}"
            case _:
                yield f"{name} = {expression(x, self)}"

    def _half(self, x: Half, function: str) -> str:
        store = x.slot.base.rpartition("^")[0]
        return f'state["{store}.folded"].{function}({order_of(x.slot)}, {self._last(x.arg, x.rank)})'

    def _last(self, x: Tensor, axis: Axis) -> str:
        """The array of a tensor with `axis` as its last one."""
        have = layout(x.axes)
        return self._permuted(self._name(x), have, (*without(have, (axis,)), axis))

    def _along(self, x: Tensor, shared: Axes, axis: Axis) -> str:
        """The array of a tensor with `axis` as its last one, to broadcast against `shared` before it."""
        array, have = self._last(x, axis), [a in x.axes for a in shared]
        return array if all(have) else f"{array}[{', '.join(':' if a else 'None' for a in have)}]"

    @staticmethod
    def _renamed(x: tensor.Rename) -> Axes:
        new = dict(x.pairs)
        return tuple(new.get(a, a) for a in layout(x.arg.axes))

    @staticmethod
    def _permuted(text: str, have: Axes, want: Axes) -> str:
        if have == want:
            return text
        order = tuple(have.index(a) for a in want)
        return f"{text}.T" if order == (1, 0) else f"{text}.transpose{order}"

    def _length(self, axis: Axis, x: Tensor) -> str:
        return str(axis.size) if axis.size is not None else self._size(axis)

    def _size(self, axis: Axis) -> str:
        """The length of an axis, read off an argument that has it."""
        for known in (*self._function.inputs, *self._states()):
            for position, a in enumerate(layout(known.axes)):
                if a.base == axis.base:
                    return f"{self._name(known)}.shape[{position}]"
        if axis.size is not None:
            return str(axis.size)
        raise InternalError(f"nothing tells the length of {axis}")

    def _operations(self, x: Tensor, builder: Builder) -> Value:
        """Elementwise work on one tensor as operations."""
        if isinstance(x, tensor.Map):
            values = {argument(i): self._value(a) for i, a in enumerate(x.args)}
            return builder.expression(x.fn, values)
        parts = x.factors if isinstance(x, Contract) else x.terms if isinstance(x, tensor.Add) else ()
        result = self._value(parts[0])
        for part in parts[1:]:
            result = builder.emit("multiply" if isinstance(x, Contract) else "add", result, self._value(part))
        return result

    def _inlined(self, x: Tensor, name: str) -> Iterator[str]:
        """Elementwise work as one expression, after lines for what occurs in it more than once."""
        builder = Builder(self._temporary)
        result = self._operations(x, builder)
        uses = Counter(a.name for o in builder.operations for a in o.args)
        texts: dict[str, str] = {}
        for o in builder.operations:
            args = []
            for a in o.args:
                text = texts.get(a.name)
                if text is None:
                    args.append(self._aligned(a, o.target.axes))
                else:
                    whole = layout(a.axes) == layout(o.target.axes)
                    text = f"({text})" if o.op in _INFIX or o.op == "reciprocal" else text
                    args.append(text if whole else self._aligned(Value(text, a.axes), o.target.axes))
            written = self._infix(o, args)
            if uses[o.target.name] > 1:
                yield f"{o.target.name} = {written}"
            else:
                texts[o.target.name] = written
        yield f"{name} = {texts.get(result.name) or self._aligned(result, x.axes)}"

    def _contraction(self, x: Contract) -> str:
        """A sum of a product of at most two tensors as matmul, sum or einsum."""
        if len(x.factors) == 1:
            (f,) = x.factors
            places = tuple(layout(f.axes).index(a) for a in x.over)
            return f"{self._name(f)}.sum(axis={places[0] if len(places) == 1 else places})"
        if len(x.factors) != 2:
            raise InternalError("contractions are planned two by two")
        a, b = x.factors
        shared = [axis for axis in a.axes if axis in b.axes]
        want = layout(x.axes)
        if set(shared) == set(x.over) and shared:
            left = [axis for axis in layout(a.axes) if axis not in shared]
            right = [axis for axis in layout(b.axes) if axis not in shared]
            if want and (want[0] in right or (not left and right)):
                a, b, left, right = b, a, right, left
            if len(shared) == 1 and len(left) <= 1 and len(right) <= 1:
                if shared[0].role == "power" and len(left) == len(right) == 1:  # many times faster this way round
                    return f"({self._name(b)} @ {self._name(a)}.T).T"
                first = self._permuted(self._name(a), layout(a.axes), (*left, *shared))
                second = self._permuted(self._name(b), layout(b.axes), (*shared, *right))
                return self._matmul(x, first, second)
            summed = [[layout(t.axes).index(axis) for axis in shared] for t in (a, b)]
            whole = f"np.tensordot({self._name(a)}, {self._name(b)}, {summed})"
            return self._permuted(whole, (*left, *right), want)
        batched = self._batched(x, a, b, want)
        if batched:
            return batched
        letters = {axis: ascii_letters[k] for k, axis in enumerate(union(a.axes, b.axes))}
        spec = ",".join("".join(letters[i] for i in layout(t.axes)) for t in (a, b))
        return f'np.einsum("{spec}->{"".join(letters[i] for i in want)}", {self._name(a)}, {self._name(b)})'

    def _batched(self, x: Contract, a: Tensor, b: Tensor, want: Axes) -> str:
        """A matrix times a vector for every index of a shared axis, where the arrays lie so."""
        matrix, vector = (a, b) if len(a.axes) == 3 else (b, a)
        rows, columns, over = layout(matrix.axes), layout(vector.axes), x.over
        if len(rows) != 3 or len(columns) != 2 or len(over) != 1 or rows[0] != columns[0] or columns[1] != over[0]:
            return ""
        m, v = self._name(matrix), self._name(vector)
        if over[0] == rows[2]:
            return self._matvecs(x, m, v) if want == rows[:2] else ""
        return self._vecmats(x, v, m) if want == (rows[0], rows[2]) else ""

    def _matmul(self, x: Contract, first: str, second: str) -> str:
        """A product of two arrays with at most two axes."""
        return f"{first} @ {second}"

    def _matvecs(self, x: Contract, matrices: str, vectors: str) -> str:
        return f"({matrices} @ {vectors}[:, :, None])[:, :, 0]"

    def _vecmats(self, x: Contract, vectors: str, matrices: str) -> str:
        return f"({vectors}[:, None, :] @ {matrices})[:, 0]"

    # --- loops -------------------------------------------------------------------------------------------------

    def _loop(self, loop: Loop, index: int) -> Iterator[str]:
        arrays = ", ".join(self._name(s) for s in loop.states)
        for c in loop.captured:
            self._name(c)
        results = [self._name(s) for s in loop.sums]
        kept = [n for n in loop.body if n in self._keepers and self._keepers[n] is loop]
        given = [n for n in loop.body if n in self._keepers and self._keepers[n] is not loop]
        arrays = ", ".join([arrays, *(self._name(n) for n in given)])
        yield f"def block{index}({arrays}):"
        for line in self._block(loop, kept, given):
            yield f"    {line}"
        results += [f"{self._name(n)}_kept" for n in kept]
        columns = ", ".join(f'"{column_of(s, loop.atom)}"' for s in loop.states)
        target = ", ".join(results) + ("," if len(results) == 1 else "")
        rows = next(
            (f"{self._name(c)}.shape[0]" for c in loop.captured if c.axes and layout(c.axes)[0].base in _SAMPLES), "1"
        )
        options = f", keep={len(kept)}" if kept else ""
        if given:
            options += f", kept=({''.join(self._name(n) + '_kept, ' for n in given).rstrip()})"
        yield f'{target} = rt.over_blocks(block{index}, state["{loop.atom.base}"], ({columns},), {rows}{options})'

    def _shared_products(self) -> dict[Tensor, Loop]:
        """Products with stored latents that several loops need, by the loop that computes them first."""
        first: dict[Tensor, Loop] = {}
        shared: dict[Tensor, Loop] = {}
        for loop in (s for s in self._function.steps if isinstance(s, Loop)):
            for n in loop.body:
                if isinstance(n, Contract) and n.over:
                    if n in first:
                        shared[n] = first[n]
                    first.setdefault(n, loop)
        return shared

    def _block(self, loop: Loop, kept: Sequence[Tensor], given: Sequence[Tensor]) -> Iterator[str]:
        builder = Builder(self._temporary)
        lines: list[tuple[str, Operation | Contract | tensor.Rename | Tabulated, Value]] = []
        for n in loop.body:
            before = len(builder.operations)
            if isinstance(n, tensor.Map | tensor.Add) or (isinstance(n, Contract) and not n.over):
                result = self._operations(n, builder)
                lines += [("op", o, o.target) for o in builder.operations[before:]]
                self._names[n] = result.name if result.number is None else self._number(result.number)
            elif isinstance(n, Contract | tensor.Rename | Tabulated):
                lines.append(("node", n, Value(self._name(n), n.axes)))
            else:
                raise InternalError(f"a block cannot compute {type(n).__name__}")
        returned = []
        for s in loop.sums:
            returned.append(self._contraction(s))
        used_last = self._last_uses(lines, loop)
        owned: set[str] = set()
        for position, (kind, what, target) in enumerate(lines):
            if kind == "node":
                assert isinstance(what, Contract | tensor.Rename | Tabulated)
                if what in given:
                    yield f"if {target.name} is None:  # too large to keep"
                    yield from (f"    {line}" for line in self._statement(what))
                else:
                    yield from self._statement(what)
                if not isinstance(what, tensor.Rename) and what not in self._keepers:
                    owned.add(target.name)
                continue
            assert isinstance(what, Operation)
            texts = [self._aligned(a, target.axes) for a in what.args]
            reusable = [
                a.name
                for a in what.args
                if a.name in owned and used_last[a.name] == position and layout(a.axes) == layout(target.axes) != ()
            ]
            out = f", out={reusable[0]}" if reusable else ""
            yield f"{target.name} = {_UFUNC[what.op]}({', '.join(texts)}{out})"
            owned.add(target.name)
        returned += [self._name(n) for n in kept]
        yield f"return {', '.join(returned)}" + ("," if len(returned) == 1 else "")

    def _last_uses(
        self, lines: list[tuple[str, Operation | Contract | tensor.Rename | Tabulated, Value]], loop: Loop
    ) -> dict[str, int]:
        last: dict[str, int] = {}
        for position, (_, what, _) in enumerate(lines):
            operands = what.args if isinstance(what, Operation) else what.operands
            for a in operands:
                last[a.name if isinstance(a, Value) else self._named(a)] = position
        for s in loop.sums:
            for n in s.operands:
                last[self._named(n)] = len(lines)
        return last

    # --- the function ------------------------------------------------------------------------------------------

    def _states(self) -> list[State]:
        steps = self._function.steps
        roots: list[Tensor] = [t for _, t in self._function.outputs]
        for s in steps:
            roots += s.sums if isinstance(s, Loop) else (s,)
        given = set(self._function.inputs)
        return [n for n in topological(roots) if isinstance(n, State) and n not in given and not _in_store(n)]

    def _steps(self) -> Iterator[str]:
        """Lines that compute everything, in order."""
        loops = 0
        for s in self._function.steps:
            if isinstance(s, Loop):
                loops += 1
                yield from self._loop(s, loops)
            else:
                yield from (commented(line, s.axes) for line in self._statement(s))

    def text(self) -> str:
        """The source of the function."""
        arguments = ", ".join(["state", *(self._name(i) for i in self._function.inputs)])
        lines = []
        for state in self._states():
            lines.append(f"{self._name(state)} = {_found(state)}")
        lines += self._steps()
        results = ", ".join(f'"{name}": {self._aligned(self._value(t), t.axes)}' for name, t in self._function.outputs)
        lines.append(f"return {{{results}}}")
        uses = Counter(_WORD.findall("\n".join(lines)))
        body = [line for line in lines if not line.endswith("]") or _is_used(line, uses)]
        return f"def {self._function.name}({arguments}):\n" + "\n".join(f"    {line}" for line in body)


def commented(line: str, axes: Axes) -> str:
    """A line that computes an array, with the axes of the array behind it."""
    return f"{line}  # [{', '.join(map(str, layout(axes)))}]" if axes else line


def _is_used(line: str, uses: Mapping[str, int]) -> bool:
    names, _, value = line.partition(" = ")
    return not value.startswith('state["') or any(uses[name] > 1 for name in names.split(", "))


def _found(state: State) -> str:
    """Where the argument `state` of a function holds an array or a number of a store."""
    store, _, part = state.name.rpartition(".")
    if part == "scale":
        return f'state["{store}"].scale'
    if any(a.role == "power" for a in state.axes) or _OF_FOLD.match(part):
        return f'state["{store}.folded"].{"moment" if part[0] == "M" else "weight"}({part[1:]})'
    if part in _OF_TAIL:
        return f'state["{store}.folded"].{_OF_TAIL[part]}'
    return f'state["{state.name}"]'


def _in_store(s: State) -> bool:
    return any(a.role == "atom" for a in s.axes)


def column_of(s: State, atom: Axis) -> str:
    """The column of a store that a state is: "hidden1.B" of the store hidden1 is "B"."""
    return s.name.removeprefix(atom.base + ".")
