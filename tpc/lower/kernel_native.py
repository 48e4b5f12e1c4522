"""Pairs of a kernel limit as C: one pass over a block's products of the data, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tpc.errors import InternalError
from tpc.lower.c_elementwise import FUNCTIONS, KNOWN, device_function
from tpc.lower.elementwise import Builder
from tpc.lower.instructions import Function, Loop
from tpc.lower.kernel_module import KERNEL, kernel_module
from tpc.lower.kernels import OTHER, LoweredKernels
from tpc.lower.operations import Value
from tpc.lower.writer import Writer, is_elementwise
from tpc.program import tensor
from tpc.program.axes import SAMPLE
from tpc.program.functions import argument
from tpc.program.tensor import Contract, Input, Tensor

PRECISE = Path(__file__).with_name("kernel_functions.h")
REALS = ("float", "double")


@dataclass(frozen=True)
class NativeKernels:
    """Source of the Python module, with `products` of the data, and of the C function `pairs_float`, `pairs_double`.

    `left`, `right` and `numbers` are places among what `pairs` takes of the rows, of the columns, and of either;
    `outputs` are the kernels in the order of their arrays.
    """

    python: str
    c: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    numbers: tuple[int, ...]
    outputs: tuple[str, ...]


def native_kernels(lowered: LoweredKernels) -> NativeKernels | None:
    """The kernels in C; None where they need more than a pass over products of the data."""
    made = _Pairs(lowered.pairs)
    if not made.fits:
        return None
    first, second = lowered.pairs.inputs[: len(lowered.first)], lowered.pairs.inputs[len(lowered.first) :]
    left = tuple(i for i, t in enumerate(first) if t.axes == (SAMPLE,))
    right = tuple(i for i, t in enumerate(second) if t.axes == (OTHER,))
    numbers = tuple(i for i, t in enumerate(first) if not t.axes)
    named = tuple((made.values[p].name, p) for p in made.products)
    products = Function("products", lowered.pairs.inputs, made.products, named)
    python = kernel_module(lowered) + "\n\n" + Writer(products, KERNEL).text + "\n"
    arrays = [first[i] for i in left], [second[i] for i in right], [first[i] for i in numbers]
    c = _source(lowered, made, *arrays)
    return NativeKernels(python, c, left, right, numbers, tuple(name for name, _ in lowered.pairs.outputs))


class _Pairs:
    """The pair function as products of the data and operations on one entry."""

    def __init__(self, pairs: Function) -> None:
        names = count(1)
        self.builder = Builder(lambda: f"t{next(names)}")
        sums = (n for n in pairs.steps if isinstance(n, Contract) and n.over)
        self.products = tuple(n for n in sums if all(isinstance(f, Input) for f in n.factors))
        self.values: dict[Tensor, Value] = {p: Value(f"m{i}", p.axes) for i, p in enumerate(self.products, 1)}
        self.fits = self._translate(pairs) and all(o.op in KNOWN for o in self.builder.operations)
        self.results = {name: self._value(t) for name, t in pairs.outputs} if self.fits else {}

    def _translate(self, pairs: Function) -> bool:
        for n in pairs.steps:
            if isinstance(n, Loop):
                raise InternalError("pairs of samples have no atoms")
            if n in self.values:
                continue
            if not is_elementwise(n) or not set(n.axes) <= {SAMPLE, OTHER}:
                return False
            if isinstance(n, tensor.Map):
                values = {argument(i): self._value(a) for i, a in enumerate(n.args)}
                self.values[n] = self.builder.expression(n.fn, values)
                continue
            op, parts = ("add", n.terms) if isinstance(n, tensor.Add) else ("multiply", n.operands)
            result: Value | None = None
            for part in parts:
                assert isinstance(part, Tensor)
                result = self._value(part) if result is None else self.builder.emit(op, result, self._value(part))
            assert result is not None
            self.values[n] = result
        return all({*p.axes} == {SAMPLE, OTHER} for p in self.products)

    def _value(self, t: Tensor) -> Value:
        if isinstance(t, tensor.Constant):
            return Value("", (), float(t.value))
        if isinstance(t, Input):
            return Value(t.name, t.axes)
        return self.values[t]


def _name(t: Tensor) -> str:
    assert isinstance(t, Input)
    return t.name


_CALL = """
typedef struct {
    int64_t rows, columns;
    const double *const *products, *const *left, *const *right; /* [row][column], [row], [column] */
    const double *numbers;
    void *const *out;
    const int64_t *strides; /* of the rows of out */
} tpc_pairs;
"""


def _source(
    lowered: LoweredKernels, made: _Pairs, left: list[Tensor], right: list[Tensor], numbers: list[Tensor]
) -> str:
    graph = lowered.graph
    arguments = [v.name for p, v in made.values.items() if p in made.products]
    arguments += [_name(t) for t in (*left, *right, *numbers)]
    results = {f"w{i}": value for i, value in enumerate(made.results.values(), 1)}
    element = device_function("pairs_element", arguments, made.builder.operations, results, "double")
    parts = [
        f"/* The kernels of the {graph.limit}-limit of {graph.name}, as C generated by tpc. */\n",
        FUNCTIONS.read_text(encoding="utf-8"),
        PRECISE.read_text(encoding="utf-8"),
        _CALL,
        element,
        *(_pass(real, made, left, right, numbers) for real in REALS),
    ]
    return "\n".join(parts)


def _pass(real: str, made: _Pairs, left: list[Tensor], right: list[Tensor], numbers: list[Tensor]) -> str:
    """The loop over a block for one type of results."""
    products = [made.values[p].name for p in made.products]
    outputs = [f"w{i}" for i in range(1, len(made.results) + 1)]
    given = [*(f"{m}[j]" for m in products), *(_name(t) for t in left), *(f"{_name(t)}[j]" for t in right)]
    given += [*(_name(t) for t in numbers), *(f"&{w}" for w in outputs)]
    rows = "call->columns * i"
    lines = [
        f'__attribute__((visibility("default"))) void pairs_{real}(const tpc_pairs *call)',
        "{",
        *(f"    const double {_name(t)} = call->numbers[{k}];" for k, t in enumerate(numbers)),
        *(f"    const double *{_name(t)} = call->right[{k}];" for k, t in enumerate(right)),
        "    for (int64_t i = 0; i < call->rows; i++) {",
        *(f"        const double *{m} = call->products[{k}] + {rows};" for k, m in enumerate(products)),
        *(f"        const double {_name(t)} = call->left[{k}][i];" for k, t in enumerate(left)),
        *(
            f"        {real} *{w}_out = ({real} *)call->out[{k}] + call->strides[{k}] * i;"
            for k, w in enumerate(outputs)
        ),
        "#pragma omp simd",
        "        for (int64_t j = 0; j < call->columns; j++) {",
        f"            double {', '.join(outputs)};",
        f"            pairs_element({', '.join(given)});",
        *(f"            {w}_out[j] = ({real}){w};" for w in outputs),
        "        }",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"
