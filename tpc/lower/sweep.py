"""Sums over the offsets of windows without the array of all offsets.

Σ_o x[q(p, o)]  and, through two windows side by side,  Σ_o x[q(p, o), q'(p', o)]
"""

from __future__ import annotations

from tpc.program.axes import Axis
from tpc.program.node import Scope, node
from tpc.program.rewrite import Rewriter
from tpc.program.shift import Shifted, Unshifted
from tpc.program.tensor import Contract, Tensor
from tpc.program.window import Window


@node
class Swept(Tensor):
    """What places see of `arg` through windows of one offset, or `back` from their targets, summed over the offset."""

    arg: Tensor
    windows: tuple[Window, ...]
    back: bool

    @property
    def ends(self) -> tuple[tuple[Axis, Axis], ...]:
        """The axes of `arg` that windows replace, with those they are replaced by."""
        return tuple((w.target, w.source) if self.back else (w.source, w.target) for w in self.windows)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.arg,), tuple(a for a, _ in self.ends)),)

    @property
    def introduces(self) -> tuple[Axis, ...]:
        return tuple(b for _, b in self.ends)


class Sweeper(Rewriter[Tensor]):
    """Puts `Swept` in the place of sums over offsets."""

    def rule(self, n: Tensor) -> Tensor:
        if isinstance(n, Contract) and len(n.factors) == 1:
            found = _swept(n.factors[0], n.over)
            if found is not None:
                return Swept(self(found.arg), found.windows, found.back)
        return self.rebuilt(n)


def _swept(x: Tensor, over: tuple[Axis, ...]) -> Swept | None:
    """Σ_over x, if that is the sum over the offset of windows."""
    windows: list[Window] = []
    kinds: set[bool] = set()
    while isinstance(x, Shifted | Unshifted) and (x.window.offset,) == over:
        windows.append(x.window)
        kinds.add(isinstance(x, Unshifted))
        x = x.arg
    if not windows or len(kinds) > 1 or over[0] in x.axes:
        return None
    made = Swept(x, tuple(windows), kinds.pop())
    given, taken = zip(*made.ends)
    return made if set(given) <= set(x.axes) and len({*x.axes, *taken} - {*given} | {*taken}) == len(x.axes) else None
