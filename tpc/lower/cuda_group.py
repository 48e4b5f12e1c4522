"""Elementwise work outside loops as CUDA kernels: one for everything that the next step needs on the same axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tpc.lower.c_elementwise import KNOWN, device_function
from tpc.lower.cuda_loop import wrapped
from tpc.lower.elementwise import Builder
from tpc.lower.layout import layout
from tpc.lower.operations import Operation, Value
from tpc.program import tensor
from tpc.program.axes import Axes
from tpc.program.functions import argument
from tpc.program.tensor import Constant, Contract, Tensor


@dataclass
class Group:
    """A kernel with a thread for every index of `axes`: `leaves` go in, `results` come out."""

    name: str
    axes: Axes
    leaves: list[Tensor] = field(default_factory=list)
    results: list[Tensor] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def places(self, x: Tensor) -> tuple[int, ...]:
        """Which of the group's axes an array has, in the order in which it lies."""
        return tuple(self.axes.index(a) for a in layout(x.axes))


def groups(needed: Iterable[Tensor], pending: set[Tensor], name: Callable[[], str]) -> Iterator[Group]:
    """Kernels for the needed tensors; what they are computed from is computed again in each, as far as it is pending.

    A tensor joins the kernel of another that has all its axes.
    """
    spaces: list[tuple[Axes, list[Tensor]]] = []
    for x in sorted(dict.fromkeys(needed), key=lambda t: -len(t.axes)):
        for axes, members in spaces:
            if set(x.axes) <= set(axes):
                members.append(x)
                break
        else:
            spaces.append((layout(x.axes), [x]))
    for axes, members in spaces:
        yield _group(Group(name(), axes), members, pending)


def _group(made: Group, members: list[Tensor], pending: set[Tensor]) -> Group:
    count = iter(range(1, 1 << 30))
    builder = Builder(lambda: f"t{next(count)}")
    known: dict[Tensor, Value] = {}

    def value(x: Tensor) -> Value:
        if isinstance(x, Constant):
            return Value("", (), float(x.value))
        if x not in known:
            known[x] = computed(x) if x in pending else leaf(x)
        return known[x]

    def leaf(x: Tensor) -> Value:
        made.leaves.append(x)
        return Value(f"x{len(made.leaves)}", x.axes)

    def computed(x: Tensor) -> Value:
        if isinstance(x, tensor.Map):
            return builder.expression(x.fn, {argument(i): value(a) for i, a in enumerate(x.args)})
        parts = x.factors if isinstance(x, Contract) else x.terms if isinstance(x, tensor.Add) else ()
        result = value(parts[0])
        for part in parts[1:]:
            result = builder.emit("multiply" if isinstance(x, Contract) else "add", result, value(part))
        return result

    for x in members:
        made.values.append(value(x))
        made.results.append(x)
    made.operations = builder.operations
    return made


def has_rule(x: Tensor) -> bool:
    """Whether CUDA knows every operation of an elementwise tensor."""
    if not isinstance(x, tensor.Map):
        return True
    count = iter(range(1 << 30))
    builder = Builder(lambda: f"t{next(count)}")
    builder.expression(x.fn, {argument(i): Value(f"x{i}", a.axes) for i, a in enumerate(x.args)})
    return all(o.op in KNOWN for o in builder.operations)


def cuda_group(group: Group) -> str:
    """The device function of one element, and the kernel that calls it at every index of the group."""
    element, axes = f"{group.name}_element", range(len(group.axes))
    inputs = [f"x{k + 1}" for k in range(len(group.leaves))]
    outputs = [f"y{k + 1}" for k in range(len(group.results))]
    parameters = [f"tpc_int n{k}" for k in axes] or ["tpc_int n0"]
    for name, x in zip(inputs, group.leaves):
        parameters += [f"const float *{name}", *([] if x.axes else [f"float {name}_number"])]
    parameters += [f"float *{y}" for y in outputs]
    read = [_read(name, group.places(x)) for name, x in zip(inputs, group.leaves)]
    call = [*read, *(f"&z{y}" for y in outputs)]
    lines = [
        device_function(element, inputs, group.operations, dict(zip(outputs, group.values))),
        *wrapped(f"TPC_KERNEL void {group.name}(", parameters),
        "{",
        *_indices(len(group.axes)),
        f"    float {', '.join(f'z{y}' for y in outputs)};",
        *wrapped(f"    {element}(", call, ");", "        "),
        *(f"    {_written(y, group.places(x), len(group.axes))}" for y, x in zip(outputs, group.results)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _indices(count: int) -> Iterator[str]:
    """i0, i1, … from the number of the thread; the last one counts fastest."""
    sizes = [f"n{k}" for k in range(count)] or ["n0"]
    yield "    const tpc_int i = tpc_index();"
    yield f"    if (i >= {' * '.join(sizes)})"
    yield "        return;"
    for k in range(count):
        inner = sizes[k + 1 :]
        outer = f"i / {inner[0]}" if len(inner) == 1 else f"i / ({' * '.join(inner)})" if inner else "i"
        yield f"    const tpc_int i{k} = {outer}{f' % n{k}' if k else ''};"


def _offset(places: tuple[int, ...]) -> str:
    text = f"i{places[0]}"
    for count, k in enumerate(places[1:]):
        text = f"({text}) * n{k} + i{k}" if count else f"{text} * n{k} + i{k}"
    return text


def _read(name: str, places: tuple[int, ...]) -> str:
    return f"{name}[{_offset(places)}]" if places else f"({name} ? *{name} : {name}_number)"


def _written(name: str, places: tuple[int, ...], count: int) -> str:
    """One thread writes a number that several compute."""
    missing = " && ".join(f"i{k} == 0" for k in range(count) if k not in places)
    target = f"{name}[{_offset(places)}] = z{name};" if places else f"*{name} = z{name};"
    return f"if ({missing}) {target}" if missing else target
