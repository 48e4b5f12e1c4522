"""One function of a limit as Python that drives a CUDA device: few calls, each of which does much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tpc.limits.nodes import State
from tpc.lower.cuda_group import Group, groups, has_rule, is_elementwise
from tpc.lower.native_loop import NativeLoop
from tpc.lower.native_module import NativePrinter
from tpc.lower.numpy_printer import commented, layout
from tpc.lower.schedule import Function, Loop
from tpc.program import tensor
from tpc.program.axes import union
from tpc.program.tensor import Constant, Contract, Tensor


class CudaPrinter(NativePrinter):
    """Elementwise tensors wait until a step needs them, and are then computed together (tpc/lower/cuda_group.py).

    Numbers that the host knows stay on the host. What has no rule is an array operation of the device's library.
    """

    def __init__(
        self,
        function: Function,
        tables: dict[tuple[str, str], str] | None,
        loops: list[NativeLoop],
        collected: list[Group],
    ) -> None:
        super().__init__(function, tables, loops)
        self._collected = collected
        self._pending: set[Tensor] = set()
        self._made = 0

    # --- steps -------------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[str]:
        loops = 0
        for s in self._function.steps:
            if isinstance(s, Loop):
                loops += 1
                yield from self._needed(s.captured)
                yield from self._loop(s, loops)
            elif is_elementwise(s) and not self._on_host(s) and has_rule(s):
                self._pending.add(s)
            else:
                yield from self._needed([n for n in s.operands if isinstance(n, Tensor)])
                yield from (commented(line, s.axes) for line in self._statement(s))
        yield from self._needed([t for _, t in self._function.outputs])

    def _needed(self, wanted: Sequence[Tensor]) -> Iterator[str]:
        """Calls that compute what is still pending of the tensors."""
        for group in groups([x for x in wanted if x in self._pending], self._pending, self._next):
            self._collected.append(group)
            self._pending -= set(group.results)
            names = [self._name(x) for x in group.results]
            given = "".join(f"{self._name(x)}, " for x in group.leaves)
            target = ", ".join(names) + ("," if len(names) == 1 else "")
            yield commented(f'{target} = native["{group.name}"]({given.removesuffix(", ")})', group.axes)

    def _next(self) -> str:
        self._made += 1
        return f"{self._function.name}_e{self._made}"

    def _on_host(self, x: Tensor) -> bool:
        """Whether a number is known to the host: multipliers and weights of stores, sizes, and what they give."""
        if x.axes:
            return False
        if isinstance(x, State):
            part = x.name.rpartition(".")[2]
            return part == "scale" or (part.startswith("w") and part[1:].isdigit())
        if isinstance(x, tensor.Size | Constant):
            return True
        return is_elementwise(x) and all(self._on_host(n) for n in x.operands if isinstance(n, Tensor))

    # --- sums --------------------------------------------------------------------------------------------------

    def _contraction(self, x: Contract) -> str:
        """Sums of products by kernels of the runtime or as matrix products, where they are such."""
        axes = layout(x.factors[0].axes)
        if all(set(f.axes) == set(axes) for f in x.factors) and len(x.factors) <= 2 and axes and not self._inside(x):
            arrays = ", ".join(self._name(f) for f in x.factors)
            if set(x.over) == set(axes):
                return f"rt.total({arrays})"
            if set(x.over) == set(axes[-len(x.over) :]):
                return f"rt.row_sums({len(axes) - len(x.over)}, {arrays})"
            if set(x.over) == set(axes[: len(x.over)]):
                return f"rt.column_sums({len(x.over)}, {arrays})"
        return self._product(x) or super()._contraction(x)

    def _product(self, x: Contract) -> str:
        """A product of two matrices, or of a matrix and a vector."""
        if len(x.factors) != 2 or len(x.over) != 1 or self._inside(x):
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
        return f"rt.matmul({self._name(a)}, {self._name(b)}{''.join(flags)})"

    @staticmethod
    def _inside(x: Contract) -> bool:
        """Whether a sum is part of a block of array operations."""
        return any(a.role == "atom" for a in union(*(f.axes for f in x.factors)))
