"""Windows in second moments: a moment of what places see is what places see of the moment.

Shifting is a sum with zeros and ones, and so is its transpose:

    E y[p, o] z = Σ_q [q = stride·p + dilation·o − pad] E x[q, o] z

Two that go through one window side by side, with the same target and offset, meet at one place of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from tpc.program import ir, tensor
from tpc.program.axes import Axes, Axis, fresh, union, without
from tpc.program.ir import Vector
from tpc.program.shift import Shifted, ShiftedVector, Unshifted, UnshiftedVector, shift, unshift
from tpc.program.tensor import Contract, Tensor
from tpc.program.window import Window

V = TypeVar("V", bound=Tensor | Vector)


@dataclass(frozen=True)
class View(Generic[V]):
    """What is seen of `arg` through a window, from its source, or `back` from its target."""

    arg: V
    window: Window
    back: bool

    @property
    def bound(self) -> Axis:
        """The axis of `arg` that the window replaces."""
        return self.window.target if self.back else self.window.source

    @property
    def place(self) -> Axis:
        """The axis it is replaced by."""
        return self.window.source if self.back else self.window.target

    def of(self, x: Tensor) -> Tensor:
        """What is seen of another tensor, from its own place where it has one."""
        look = unshift if self.back else shift
        if self.place in x.axes and self.place != self.bound:
            # Σ_q S[q, p, o] x[q, p, o]
            copy = fresh(self.bound.primed(), {*x.axes, self.place, self.window.offset})
            seen = self.bound_as(copy).of(identity(self.bound, copy))
            return tensor.contract((seen, x), (self.bound,))
        made: Tensor = look(x, self.window)
        return made

    def apart(self, taken: Iterable[Axis]) -> View[V]:
        """The same with a bound axis that none of `taken` is."""
        used = set(taken)
        if self.bound not in used:
            return self
        return self.bound_as(fresh(self.bound, {*used, *self.arg.axes}))

    def bound_as(self, new: Axis) -> View[V]:
        """The same with another name of the bound axis."""
        window = replace(self.window, target=new) if self.back else replace(self.window, source=new)
        return View(_renamed(self.arg, {self.bound: new}), window, self.back)

    def is_beside(self, other: View[V]) -> bool:
        """Whether the same window sees both, from one place by one offset."""
        alike = self.back == other.back and self.window.geometry == other.window.geometry
        return alike and self.place == other.place and self.window.offset == other.window.offset

    @property
    def is_injective(self) -> bool:
        """Whether by one offset different places of `arg` are seen from different places."""
        source, target, _ = self.window.sizes
        return self.back or not self.window.circular or self.window.stride * target <= source

    @property
    def is_single(self) -> bool:
        """Whether by one offset every place sees at most one."""
        source, target, _ = self.window.sizes
        return not self.back or not self.window.circular or self.window.stride * target <= source


def identity(a: Axis, b: Axis) -> Tensor:
    """1 where two axes are at one place: what a single place sees by every offset, from behind."""
    single = Axis(f"{a.base}_single", 1)
    made: Tensor = unshift(tensor.broadcast(tensor.ONE, (single,)), Window(a, single, b))
    return made


def view(x: V) -> View[V] | None:
    """x as what is seen of something, its renamings inside; None for anything else."""
    inner: Any = x
    new: dict[Axis, Axis] = {}
    if isinstance(x, ir.RenameVector | tensor.Rename):
        inner, new = x.arg, dict(x.pairs)
    if not isinstance(inner, Shifted | ShiftedVector | Unshifted | UnshiftedVector):
        return None
    back = isinstance(inner, Unshifted | UnshiftedVector)
    found: View[V] = View(cast(V, inner.arg), inner.window, back)
    if not new:
        return found
    place = new.get(found.place, found.place)
    offset = new.get(found.window.offset, found.window.offset)
    pairs = {a: b for a, b in new.items() if a in found.arg.axes and a != found.bound}
    rest = {pairs.get(a, a) for a in found.arg.axes if a != found.bound}
    bound = fresh(found.bound, {*rest, *found.arg.axes}) if found.bound in rest else found.bound
    window = replace(found.window, source=place, offset=offset, target=bound)
    if not back:
        window = replace(found.window, source=bound, offset=offset, target=place)
    return View(_renamed(found.arg, {**pairs, found.bound: bound}), window, back)


def through(x: V, y: V, inside: Callable[[V, V], Tensor]) -> Tensor | None:
    """A bilinear function of two values by that of what they see; None where neither sees anything."""
    left, right = view(x), view(y)
    if left is None and right is None:
        return None
    if left is None or right is None:
        if left is None:
            assert right is not None
            right = right.apart(x.axes)
            return right.of(inside(x, right.arg))
        left = left.apart(y.axes)
        return left.of(inside(left.arg, y))
    if left.is_beside(right) and left.is_single:
        taken = {a for a in right.arg.axes if a != right.bound}
        if left.bound in taken:
            left = left.bound_as(fresh(left.bound, {*taken, *left.arg.axes}))
        return left.of(inside(left.arg, right.bound_as(left.bound).arg))
    left = left.apart(y.axes)
    if left.window.offset != right.window.offset:
        return left.of(inside(left.arg, y))
    right = right.apart((*left.arg.axes, left.place))  # axes side by side, so that sums over offsets can part
    return left.of(right.of(inside(left.arg, right.arg)))


def contracted(factors: Iterable[Tensor], over: Axes) -> Tensor:
    """Σ_over Π factors; what two factors see is multiplied first where the sum is over its offset, and then summed."""
    given = tuple(factors)
    flat = [g for f in given for g in (f.factors if isinstance(f, Contract) and not f.over else (f,))]
    views = [view(f) for f in flat]
    if all(v is None for v in views):
        return tensor.contract(given, over)
    for i, f in enumerate(flat):
        for j in range(i + 1, len(flat)):
            left, right = views[i], views[j]
            if left is None or right is None or left.back != right.back or left.window.offset not in over:
                continue
            if left.window.offset != right.window.offset:
                continue
            rest = [g for k, g in enumerate(flat) if k not in (i, j)]
            fixed = union(*(g.axes for g in rest))
            made = _product(f, flat[j], without(over, fixed), ())
            done = without(union(f.axes, flat[j].axes), made.axes)
            return contracted((*rest, made), without(over, done))
    for i, f in enumerate(flat):
        others = union(*(g.axes for k, g in enumerate(flat) if k != i))
        own = tuple(a for a in over if a in f.axes and a not in others)
        if own and views[i] is not None:
            flat[i], over = summed(f, own), without(over, own)
    return tensor.contract(flat, over)


def summed(x: Tensor, over: Axes) -> Tensor:
    """Σ_over x, what is seen summed before where the window has no part in it."""
    seen = view(x)
    if seen is None:
        return tensor.contract((x,), over)
    inner = tuple(a for a in over if a in seen.arg.axes and a not in (seen.bound, seen.place, seen.window.offset))
    if inner:
        x = seen.of(summed(seen.arg, inner))
    return tensor.contract((x,), without(over, inner))


def _product(x: Tensor, y: Tensor, over: Axes, seen: Axes) -> Tensor:
    """x y, summed over those of `over` that no window needs."""
    ends = union(seen, *((v.place, v.window.offset) for v in (view(x), view(y)) if v is not None))
    found = through(x, y, lambda a, b: _product(a, b, over, ends))
    if found is not None:
        return found
    return tensor.contract((x, y), tuple(a for a in over if a in union(x.axes, y.axes) and a not in seen))


def renamed_factors(x: Tensor, new: Mapping[Axis, Axis]) -> Tensor:
    """Rename the factors of a product one by one: numbers leave it, and data stays data."""
    if isinstance(x, Contract) and not x.over:
        return tensor.contract(renamed_factors(f, new) for f in x.factors)
    return tensor.rename(x, dict(new))


def _renamed(x: V, pairs: dict[Axis, Axis]) -> V:
    return cast(V, ir.rename_vector(x, pairs) if isinstance(x, Vector) else tensor.rename(x, pairs))
