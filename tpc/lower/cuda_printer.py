"""One function of a limit as Python that drives a CUDA device: few calls, each of which does much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from tpc.limits.nodes import State
from tpc.lower.cuda_group import Group, groups, has_rule
from tpc.lower.instructions import Loop
from tpc.lower.layout import layout
from tpc.lower.native_loop import NativeLoop
from tpc.lower.native_module import calls, of_atoms
from tpc.lower.numpy_printer import NUMPY
from tpc.lower.places import MomentWeight, Multiplier
from tpc.lower.writer import Dialect, Line, Writer, is_elementwise
from tpc.program import tensor
from tpc.program.tensor import Constant, Contract, Tensor


def cuda_dialect(native: Mapping[int, NativeLoop], collected: list[Group]) -> Dialect:
    """Elementwise tensors wait until a step needs them, and are then computed together (tpc/lower/cuda_group.py).

    Numbers that the host knows stay on the host. What has no rule is an array operation of the device's library.
    """
    return replace(NUMPY, total=_total, loop=calls(native), steps=_grouped(collected))


def _grouped(collected: list[Group]) -> Callable[[Writer], Iterator[Line]]:
    def steps(w: Writer) -> Iterator[Line]:
        pending: set[Tensor] = set()
        made = loops = 0

        def next_name() -> str:
            nonlocal made
            made += 1
            return f"{w.function.name}_e{made}"

        def needed(wanted: Sequence[Tensor]) -> Iterator[Line]:
            """Calls that compute what is still pending of the tensors."""
            for group in groups([x for x in wanted if x in pending], pending, next_name):
                collected.append(group)
                pending.difference_update(group.results)
                names = [w.target(x) for x in group.results]
                given = ", ".join(w.array(x) for x in group.leaves)
                target = ", ".join(names) + ("," if len(names) == 1 else "")
                yield w.line(f'{target} = native["{group.name}"]({given})', *names).commented(group.axes)

        for s in w.function.steps:
            if isinstance(s, Loop):
                loops += 1
                yield from needed(s.captured)
                yield from w.dialect.loop(w, s, loops)
            elif is_elementwise(s) and not _on_host(s) and has_rule(s):
                pending.add(s)
            else:
                yield from needed([n for n in s.operands if isinstance(n, Tensor)])
                yield from (line.commented(s.axes) for line in w.dialect.statement(w, s))
        yield from needed([t for _, t in w.function.outputs])

    return steps


def _on_host(x: Tensor) -> bool:
    """Whether a number is known to the host: multipliers and weights of stores, sizes, and what they give."""
    if x.axes:
        return False
    if isinstance(x, Multiplier | MomentWeight | tensor.Size | Constant):
        return True
    if isinstance(x, State):
        return False
    return is_elementwise(x) and all(_on_host(n) for n in x.operands if isinstance(n, Tensor))


def _total(w: Writer, x: Contract) -> str:
    """Sums of products by kernels of the runtime or as matrix products, where they are such."""
    axes = layout(x.factors[0].axes)
    if all(set(f.axes) == set(axes) for f in x.factors) and len(x.factors) <= 2 and axes and not of_atoms(x):
        arrays = ", ".join(w.array(f) for f in x.factors)
        if set(x.over) == set(axes):
            return f"rt.total({arrays})"
        if set(x.over) == set(axes[-len(x.over) :]):
            return f"rt.row_sums({len(axes) - len(x.over)}, {arrays})"
        if set(x.over) == set(axes[: len(x.over)]):
            return f"rt.column_sums({len(x.over)}, {arrays})"
    return _product(w, x) or NUMPY.total(w, x)


def _product(w: Writer, x: Contract) -> str:
    """A product of two matrices, or of a matrix and a vector."""
    if len(x.factors) != 2 or len(x.over) != 1 or of_atoms(x):
        return ""
    a, b = x.factors
    (shared,) = x.over
    want = layout(x.axes)
    if want and want[0] in b.axes:
        a, b = b, a
    if max(len(a.axes), len(b.axes)) > 2 or len(want) != len(a.axes) + len(b.axes) - 2:
        return ""
    first, second = layout(a.axes), layout(b.axes)
    flags = [", ta=True" if first[0] == shared and len(first) == 2 else ""]
    flags += [", tb=True" if second[-1] == shared and len(second) == 2 else ""]
    return f"rt.matmul({w.array(a)}, {w.array(b)}{''.join(flags)})"
